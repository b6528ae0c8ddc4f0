"""What is in the images, and that each does its job as uid 65532, root read-only, without capabilities."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

import kosine
from tests.kit.process import eventually

if TYPE_CHECKING:
    from tests.kit.images import Image

ROOT = Path(__file__).parents[2]
MIB, GIB = 2**20, 2**30
COMPILERS = ("cc1", "gcc*", "cc", "ld", "Python.h", "make")


def size_of(image: Image) -> int:
    """Bytes of everything in it."""
    return size_below(image.root)


def size_below(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  hundreds of thousands of files
        for folder, _, names in os.walk(path)
        for name in names
    )


def assert_sound(image: Image) -> None:
    """What holds of every image."""
    assert "65532:65532" == image.config["User"]
    assert [] == [name for pattern in COMPILERS for name in image.files(pattern, below="opt")]
    assert [] == image.files("gcc*", below="usr/bin")
    assert [] == image.files("pip", below="opt"), "a package installer in the image"
    owned = [path for path in image.root.joinpath("opt").rglob("*") if os.lstat(path).st_uid]
    assert [] == owned, "code that its own user could change"
    assert [] == image.files("pip.conf", below="etc") + image.files("secrets", below="run")
    labels = image.config["Labels"]
    assert kosine.__version__ == labels["org.opencontainers.image.version"]
    assert "Apache-2.0" == labels["org.opencontainers.image.licenses"]


def locked(name: str) -> set[str]:
    """Requirements of a lock."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return set(re.findall(r"(?m)^[a-z0-9][a-z0-9.-]*==[^ ;\\\n]+", text))


def installed(image: Image) -> set[str]:
    """NAME==VERSION of every distribution in it."""
    code = (
        "import importlib.metadata as m, re\n"
        "for d in m.distributions(path=['/opt/venv/lib/python3.11/site-packages']):\n"
        "    print(re.sub('[-_.]+', '-', d.name).lower() + '==' + d.version)"
    )
    return set(image.run("python", "-c", code).stdout.split())


def test_the_operator_image_is_small_and_holds_nothing_that_is_not_locked(operator_image: Image) -> None:
    """No TensorFlow, no compiler, no installer, under 250 MiB."""
    assert_sound(operator_image)
    assert size_of(operator_image) < 250 * MIB
    assert installed(operator_image) - {f"kosine=={kosine.__version__}"} <= locked("operator.txt")


def test_the_operator_of_the_image_renders(operator_image: Image, tmp_path: Path) -> None:
    """`kosine-operator render`, on a read-only root, makes a Deployment of an index."""
    resource = {
        "apiVersion": "kosine.dev/v1alpha1",
        "kind": "CosineIndex",
        "metadata": {"name": "items"},
        "spec": {"source": {"uri": "s3://bucket/items.npy"}},
    }
    tmp_path.chmod(0o755)  # pytest's own is for its user only
    (tmp_path / "items.yaml").write_text(json.dumps(resource), encoding="utf-8")
    done = subprocess.run(
        operator_image.command(*operator_image.entrypoint, "render", "/etc/resources/items.yaml"),
        env={**operator_image.environment(), "IMAGE_MOUNTS": f"{tmp_path} /etc/resources"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, True) == (done.returncode, "kind: Deployment" in done.stdout), done.stderr


def test_the_operator_of_the_image_says_what_it_misses(operator_image: Image) -> None:
    """Without a cluster it ends with a message, and none of its imports is missing."""
    done = operator_image.run(*operator_image.entrypoint, "run", "--namespace=shop")
    assert 2 == done.returncode
    assert "Traceback" not in done.stderr
    assert "kosine-operator:" in done.stderr


@pytest.mark.slow
def test_the_service_image_holds_nothing_that_is_not_locked(service_image: Image) -> None:
    """No compiler, no headers, no installer; TensorFlow's headers alone would be 380 MB."""
    assert_sound(service_image)
    assert installed(service_image) - {f"kosine=={kosine.__version__}"} <= locked("service-cpu.txt")


@pytest.mark.slow
def test_the_service_of_the_image_answers_and_stops(service_image: Image, tmp_path: Path) -> None:
    """With the arguments that the chart gives it: ready, a query, SIGTERM, exit code 0."""
    tmp_path.chmod(0o755)
    np.save(tmp_path / "items.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "kosine.yaml").write_text("indexes: {items: {uri: items.npy}}", encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "serve",
        "--config=/etc/kosine/kosine.yaml",
        f"--set=service.port={port}",
        "--log-format=json",
    ]
    process = subprocess.Popen(
        service_image.command(*service_image.entrypoint, *arguments),
        env={**service_image.environment(), "IMAGE_MOUNTS": f"{tmp_path} /etc/kosine"},
        stderr=sys.stderr,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, "the service ended"
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(ready, within=180, what="ready")
        answer = httpx.post(f"{url}/cos", json={"embedding": [0, 0, 1, 0], "k": 1}, timeout=30)
        assert [[2, 1.0]] == answer.json()["result"]
        os.killpg(process.pid, signal.SIGTERM)
        assert 0 == process.wait(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


NVIDIA = "opt/venv/lib/python3.11/site-packages/nvidia"


@pytest.mark.slow
def test_the_gpu_image_has_of_cuda_what_tensorflow_opens(gpu_image: Image) -> None:
    """Of cuDNN its front door; nothing that products and top-k do without; under 4 GiB."""
    assert_sound(gpu_image)
    assert installed(gpu_image) - {f"kosine=={kosine.__version__}"} <= locked("service-gpu.txt")
    folders = {path.name for path in gpu_image.root.joinpath(NVIDIA).iterdir() if size_below(path)}
    needed = {"cublas", "cuda_runtime", "cudnn", "cufft", "cusolver", "cusparse", "nvjitlink"}
    assert needed == folders - {"__init__.py"}
    assert [f"{NVIDIA}/cudnn/lib/libcudnn.so.9"] == gpu_image.files("libcudnn*", below=NVIDIA)
    assert size_of(gpu_image) < 4 * GIB


@pytest.mark.slow
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_the_gpu_image_does_not_start_without_a_gpu(gpu_image: Image, tmp_path: Path) -> None:
    """With `device: gpu`: exit code 2 and what to look at, and no CPU that answers in silence."""
    tmp_path.chmod(0o755)
    (tmp_path / "kosine.yaml").write_text("service: {device: gpu}", encoding="utf-8")
    done = subprocess.run(
        gpu_image.command(*gpu_image.entrypoint, "serve", "--config=/etc/kosine/kosine.yaml"),
        env={**gpu_image.environment(), "IMAGE_MOUNTS": f"{tmp_path} /etc/kosine"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 2 == done.returncode
    assert "device gpu was asked for" in done.stderr
    assert "Traceback" not in done.stderr
