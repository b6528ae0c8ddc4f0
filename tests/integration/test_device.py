"""Opening TensorFlow, each time in a process of its own: what it says when it cannot, and what it sets.

Opening changes the process for good, so nothing here runs in the test's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kosine.engines.cpus import bfloat16_unit
from kosine.engines.device import missing_gpu

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """
import json, sys
import structlog
structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
from kosine.engines.device import open_device
from kosine.errors import StartupError
assert "tensorflow" not in sys.modules, "imported before it was asked for"
def refusal(*arguments):
    try:
        open_device(*arguments)
    except StartupError as error:
        return error.detail
"""


def in_a_process(program: str, *, environment: dict[str, str] | None = None) -> Any:
    """What `program` leaves in `result`; warnings are errors, and standard error must stay silent."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "CUDA_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{PRELUDE}\n{program}\nprint(json.dumps(result))"],
        env=clean | (environment or {}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def test_a_gpu_that_is_not_there_is_refused_and_a_cpu_is_set_up_for_exact_scores() -> None:
    """`gpu` on a CPU build says what to install; then `auto` takes the CPU, with the threads asked for."""
    result = in_a_process(
        """
refused = refusal("gpu", None)
device = open_device("auto", 3)
import os
import tensorflow as tf
result = dict(
    refused=refused,
    described=device.describe(),
    intra=tf.config.threading.get_intra_op_parallelism_threads(),
    inter=tf.config.threading.get_inter_op_parallelism_threads(),
    tf32=tf.config.experimental.tensor_float_32_execution_enabled(),
    growth=os.environ["TF_FORCE_GPU_ALLOW_GROWTH"],
    kept=os.environ["TF_CPP_MIN_LOG_LEVEL"],
    version=tf.__version__,
)
""",
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    version = result.pop("version")
    assert result["described"].pop("bfloat16") in ("amx", "avx512", "off")
    assert {
        "refused": missing_gpu(version, {"is_cuda_build": False}),
        "described": {"tensorflow": version, "device": "/CPU:0", "threads": 3, "onednn": "on"},
        "intra": 3,
        "inter": 1,
        "tf32": False,
        "growth": "true",
        "kept": "3",
    } == result


def test_a_process_that_runs_tensorflow_otherwise_is_refused() -> None:
    """Threads cannot change once TensorFlow runs; opening the same again is no error."""
    refused, again = in_a_process(
        """
open_device("cpu", 1)
import tensorflow as tf
tf.constant(1.0)
result = [refusal("cpu", 2), refusal("cpu", 1)]
"""
    )
    assert refused.startswith("TensorFlow was already running with other settings: ")
    assert again is None


def test_without_tensorflow_it_says_what_to_install() -> None:
    """A plain `pip install kosine` can do everything but serve."""
    refused = in_a_process(
        """
sys.modules["tensorflow"] = None
result = refusal("auto", None)
"""
    )
    assert refused.startswith("TensorFlow is not installed: pip install 'kosine[cpu]', or 'kosine[gpu]'")


def test_a_tensorflow_that_does_not_import_is_told_apart(tmp_path: Path) -> None:
    """A library that does not load is named; it is not called missing."""
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libfoo.so.1: cannot open\\nmore')")
    refused = in_a_process('result = refusal("cpu", None)', environment={"PYTHONPATH": str(tmp_path)})
    assert refused.startswith(
        "TensorFlow is installed but cannot be imported: libfoo.so.1: cannot open; reinstall"
    )


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            {"is_cuda_build": False},
            ["TensorFlow 2.21.0 lists none", "for CPUs only", "install 'kosine[gpu]'"],
        ),
        ({}, ["for CPUs only"]),
        (
            {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"},
            [
                "built for CUDA 12.5.1 and cuDNN 9",
                "nvidia-smi",
                "CUDA_VISIBLE_DEVICES",
                "nvidia/cusolver/lib",
            ],
        ),
    ],
)
def test_a_missing_gpu_is_explained_by_the_build(build: dict[str, Any], said: list[str]) -> None:
    """A CPU build needs another package; a CUDA build needs a driver, a visible device or a library path."""
    text = missing_gpu("2.21.0", build)
    assert [] == [part for part in said if part not in text]


def test_matrix_and_product_lie_on_the_device_that_was_named() -> None:
    """A device that is not the first CPU, as a GPU is not, gets the matrix once, not at each call."""
    result = in_a_process(
        """
import numpy as np
from kosine.engines.device import TensorFlowDevice
from kosine.engines.matrix import ItemMatrix
import re
from kosine.engines.held_stderr import without_lines
with without_lines(re.compile(b"")):
    import tensorflow as tf
split = [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()]
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], split)
opened = open_device("cpu", 1)
from kosine.engines.search_graphs import SearchGraphs
graphs = SearchGraphs("/CPU:1")
second = TensorFlowDevice(device="/CPU:1", threads=1, facts=opened.facts, graphs=graphs, bfloat16="off")
matrix = ItemMatrix.allocate(3000, 4)
[(_, columns)] = matrix.spans(0, 3000)
columns[...] = np.random.default_rng(0).standard_normal((4, 3000))
columns /= np.linalg.norm(columns, axis=0)
query = matrix.take(np.array([1234]))
engine = second.build(matrix, metric="cosine", max_k=10, max_rows=8)
graph = second.graphs.of("cosine", "dim_major", by_block=True).graph
result = dict(
    best=engine.search(query, 1)[0].tolist(),
    matrix=engine._tiles[0].device,
    products=[node.device for node in graph.as_graph_def().node if node.op == "MatMul"],
)
"""
    )
    assert [[1234]] == result["best"]
    assert result["matrix"].endswith("CPU:1")
    assert [True] == [name.endswith("CPU:1") for name in result["products"]]


def test_items_lie_as_the_device_searches_them_fastest() -> None:
    """Row-major, with room for a copy, where the CPU multiplies bfloat16 and it is large; or as told."""
    program = """
device = open_device("cpu", 1, {!r})
indexes = ("cosine", 768), ("cosine", 100), ("dot", 768)
orders = [device.order(metric, rows=100_000, dim=dim) for metric, dim in indexes]
sizes = dict(rows=100_000, dim=768, max_rows=1, max_k=1)
more = device.scratch_bytes(orders[0], **sizes) - device.scratch_bytes("dim_major", **sizes)
result = [device.describe()["bfloat16"], *orders, more >= 2 * 768 * 100_000]
"""
    never = ["off", "dim_major", "dim_major", "dim_major", False]
    expected = never if bfloat16_unit() == "off" else [bfloat16_unit(), "row_major", *never[2:4], True]
    assert expected == in_a_process(program.format("auto"))
    assert never == in_a_process(program.format("never"))


def test_nobody_can_have_float32_rounded_by_the_environment() -> None:
    """It would be, in the product of items that are not screened; scores are exact whatever was set."""
    program = """
import numpy as np
open_device("cpu", 1)
import tensorflow as tf
random = np.random.default_rng(0)
left, right = (random.standard_normal((1, rows, 256), np.float32) for rows in (64, 512))
product = tf.raw_ops.BatchMatMulV2(x=left, y=right, adj_y=True).numpy()
result = float(np.abs(product - left.astype(float) @ right.astype(float).transpose(0, 2, 1)).max())
"""
    assert in_a_process(program, environment={"TF_SET_ONEDNN_FPMATH_MODE": "BF16"}) < 1e-3


@pytest.mark.parametrize(("rows", "dim"), [(250_000, 64), (60_000, 384)], ids=["plain", "screened"])
def test_memory_is_flat_over_swaps_and_within_what_was_admitted(rows: int, dim: int) -> None:
    """New engine beside the old: two matrices and the scratch that was announced; none of it is ever lost.

    A copy in bfloat16 is part of either. All rows are equal, so that whatever is screened is searched again.
    """
    result = in_a_process(
        f"ROWS, DIM, QUERIES, K = {rows}, {dim}, 64, 100\n"
        """
import dataclasses, gc, re
from pathlib import Path
from kosine.engines.matrix import ItemMatrix
def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
device = dataclasses.replace(open_device("cpu", 2), bfloat16="amx")
order = device.order("cosine", rows=ROWS, dim=DIM)
def load(rows):
    matrix = ItemMatrix.allocate(rows, DIM, order)
    for _, columns in matrix.spans(0, rows):
        columns[...] = DIM ** -0.5
    engine = device.build(matrix, metric="cosine", max_k=K, max_rows=QUERIES)
    engine.warm_up((QUERIES, 8, 1), lambda _: None)
    return engine
load(300).close()
gc.collect()
base, seen, old = status("VmRSS"), [], None
Path("/proc/self/clear_refs").write_text("5")
for _ in range(6):
    new = load(ROWS)
    if old:
        old.close()
    old = new
    gc.collect()
    seen.append(status("VmRSS"))
held, matrix = new.nbytes, ItemMatrix.allocate(ROWS, DIM).nbytes
copy = held - matrix
scratch = device.scratch_bytes(order, rows=ROWS, dim=DIM, max_rows=QUERIES, max_k=K) - copy
peak = status("VmHWM") - base
new.close()
del new, old
gc.collect()
result = dict(seen=seen, peak=peak, engine=held, scratch=scratch, left=status("VmRSS") - base)
"""
    )
    assert result["peak"] <= 2 * result["engine"] + result["scratch"]
    assert max(result["seen"][2:]) - min(result["seen"][2:]) < 0.25 * result["engine"]
    assert result["left"] <= result["scratch"]


def test_what_lives_as_long_as_the_process_is_never_collected() -> None:
    """After the start a full collection looks at what was made since, not at TensorFlow's half a million."""
    frozen, left = in_a_process(
        """
import gc
from kosine.app import _keep_for_good
open_device("cpu", 1)
_keep_for_good()
result = [gc.get_freeze_count(), len(gc.get_objects())]
"""
    )
    assert frozen > 100_000
    assert left < frozen / 100
