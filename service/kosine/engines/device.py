"""The device that engines run on: opened once per process, before anything else touches TensorFlow.

TensorFlow is imported here and not earlier: the import takes seconds, reads its environment once, and only
`serve` needs it. What cannot work is refused now, with what TensorFlow reported, instead of falling back.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kosine.engines.cpus import available_cpus, bfloat16_unit
from kosine.engines.held_stderr import without_lines
from kosine.engines.screening import is_worth_a_copy
from kosine.engines.search_plan import rounded_bytes, scratch_bytes
from kosine.errors import LoadCode, LoadError, Stage, StartupError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kosine.engines.cosine_graph import CosineGraph
    from kosine.engines.cpus import Bfloat16
    from kosine.engines.matrix import ItemMatrix, Order
    from kosine.engines.search_graphs import SearchGraphs

__all__ = ("TensorFlowDevice", "missing_gpu", "open_device")

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}
"""Read by TensorFlow while it is imported; what the user has set stays. Without oneDNN a batch takes 4-7
times as long; without growth the first process takes the whole GPU."""

_EXACT = {"TF_SET_ONEDNN_FPMATH_MODE": "STRICT"}
"""Whatever the user has set: otherwise oneDNN may round what is to be multiplied as float32."""

_BANNER = re.compile(rb"All log messages before absl::InitializeLog|oneDNN custom operations are on")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowDevice:
    """Implements `EngineFactory` on one device of this process."""

    device: str
    threads: int
    facts: Mapping[str, str | int]
    graphs: SearchGraphs
    bfloat16: Bfloat16
    """What large matrices are screened with."""

    def prepare(self) -> None:
        """See `OpenedDevice.prepare`: cosine, of items that are not screened, is what most indexes have."""
        self.graphs.prepare("cosine", "dim_major")

    def order(self, metric: str, *, rows: int, dim: int) -> Order:
        """See `EngineFactory.order`: rows that pass a screening are looked up, so each lies in one piece."""
        screened = metric == "cosine" and is_worth_a_copy(self.bfloat16, rows=rows, dim=dim)
        return "row_major" if screened else "dim_major"

    def build(self, matrix: ItemMatrix, *, metric: str, max_k: int, max_rows: int) -> CosineGraph:
        """See `EngineFactory.build`. Raises LoadError OUT_OF_DEVICE_MEMORY or BUILD_FAILED."""
        import tensorflow as tf  # noqa: PLC0415  see the module

        from kosine.engines.cosine_graph import CosineGraph  # noqa: PLC0415

        try:
            return CosineGraph(matrix, metric=metric, max_k=max_k, max_rows=max_rows, graphs=self.graphs)
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise LoadError(
                LoadCode.OUT_OF_DEVICE_MEMORY,
                f"{self.device} cannot hold {matrix.nbytes} bytes for {matrix.rows} rows of {matrix.dim}: "
                f"{_first_line(error)}; use a larger device, or policy resource_preserving",
                stage=Stage.BUILD,
                device=self.device,
                bytes=matrix.nbytes,
            ) from error
        except Exception as error:
            raise LoadError(
                LoadCode.BUILD_FAILED,
                f"no graph could be built on {self.device} for {matrix.rows} rows of {matrix.dim}: "
                f"{type(error).__name__}: {_first_line(error)}",
                stage=Stage.BUILD,
                device=self.device,
            ) from error

    def scratch_bytes(self, order: Order, *, rows: int, dim: int, max_rows: int, max_k: int) -> int:
        """See `EngineFactory.scratch_bytes`."""
        screened = order == "row_major"
        calls = scratch_bytes(rows=rows, dim=dim, max_rows=max_rows, max_k=max_k, screened=screened)
        return calls + (rounded_bytes(rows=rows, dim=dim) if screened else 0)

    def describe(self) -> dict[str, str | int]:
        """What the log should say once: version, device, threads, oneDNN, and what multiplies bfloat16."""
        return dict(self.facts)


def open_device(
    device: Literal["auto", "cpu", "gpu"],
    threads: int | None,
    screening: Literal["auto", "never"] = "auto",
) -> TensorFlowDevice:
    """Import TensorFlow, set it up for exact scores on `threads` CPUs, and choose the device.

    Call once, before anything else imports TensorFlow. StartupError: TensorFlow is not installed or does not
    start, `gpu` was asked for and there is none, or the process has already set TensorFlow up otherwise.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(_EXACT)
    tf = _import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise StartupError(missing_gpu(tf.__version__, tf.sysconfig.get_build_info()))
    use_gpu = bool(gpus) and device != "cpu"
    threads = threads or available_cpus()
    try:
        tf.config.set_visible_devices(gpus[:1] if use_gpu else [], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise StartupError(f"TensorFlow was already running with other settings: {error}") from error
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    from kosine.engines.search_graphs import SearchGraphs  # noqa: PLC0415  see the module

    name = "/GPU:0" if use_gpu else "/CPU:0"
    bfloat16 = "off" if use_gpu or screening == "never" else _bfloat16()
    return TensorFlowDevice(
        device=name,
        threads=threads,
        facts=_facts(tf, gpus[:1] if use_gpu else [], threads) | {"bfloat16": bfloat16},
        graphs=SearchGraphs(name),
        bfloat16=bfloat16,
    )


def missing_gpu(version: str, build: Mapping[str, Any]) -> str:
    """Why TensorFlow lists no GPU and what to do, from its version and build information."""
    found = f"device gpu was asked for, but TensorFlow {version} lists none"
    if not build.get("is_cuda_build"):
        return f"{found}: this build is for CPUs only; uninstall tensorflow-cpu and install 'kosine[gpu]'"
    return (
        f"{found}, though it is built for CUDA {build.get('cuda_version', '?')} and cuDNN "
        f"{build.get('cudnn_version', '?')}: check that nvidia-smi shows a GPU in this container, that "
        "CUDA_VISIBLE_DEVICES does not hide it, and that the CUDA libraries are installed ('kosine[gpu]'); "
        "TensorFlow 2.21 finds libcusolver only with site-packages/nvidia/cusolver/lib in LD_LIBRARY_PATH; "
        "TF_CPP_MAX_VLOG_LEVEL=1 names a library that does not open"
    )


def _import_tensorflow() -> Any:
    try:
        with without_lines(_BANNER):
            import tensorflow as tf  # noqa: PLC0415  see the module
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise StartupError(_does_not_start(error)) from error
        raise StartupError(
            "TensorFlow is not installed: pip install 'kosine[cpu]', or 'kosine[gpu]' for an NVIDIA GPU; "
            "its wheels exist for CPython 3.11 to 3.13 on Linux"
        ) from error
    except ImportError as error:
        raise StartupError(_does_not_start(error)) from error
    return tf


def _does_not_start(error: ImportError) -> str:
    return (
        f"TensorFlow is installed but cannot be imported: {_first_line(error)}; "
        "reinstall it with pip install --force-reinstall 'kosine[cpu]' or 'kosine[gpu]'"
    )


def _facts(tf: Any, gpus: list[Any], threads: int) -> dict[str, str | int]:
    facts: dict[str, str | int] = {
        "tensorflow": str(tf.__version__),
        "device": "/GPU:0" if gpus else "/CPU:0",
        "threads": threads,
        "onednn": _onednn(),
    }
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        major, minor = details.get("compute_capability", ("?", "?"))
        facts |= {"gpu": str(details.get("device_name", "?")), "compute_capability": f"{major}.{minor}"}
    return facts


def _onednn() -> str:
    """Only a private module knows whether oneDNN is really in use, so not knowing is an answer, too."""
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled  # noqa: PLC0415
    except ImportError:
        return "unknown"
    return "on" if IsMklEnabled() else "off"


def _bfloat16() -> Bfloat16:
    """What the CPU has, as long as oneDNN uses it as `kosine.engines.screened_scores` takes for granted."""
    from kosine.engines.screened_scores import products_are_near  # noqa: PLC0415  see the module

    found = bfloat16_unit()
    usable = found != "off" and _onednn() == "on" and products_are_near()
    return found if usable else "off"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
