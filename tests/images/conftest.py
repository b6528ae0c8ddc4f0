"""Images take minutes to build, and root: `make test-images`.

Without what they are built with they are skipped, in CI too: .ci/run installs it where it can.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.images import Image, ImageBuildMissing, image

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is of the tier `images`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.images)
            item.add_marker(pytest.mark.timeout(1800))


def built(target: str) -> Iterator[Image]:
    """One image for all tests of it."""
    if os.geteuid() != 0:
        pytest.skip("images are built and run by root")
    try:
        with image(target) as ready:
            yield ready
    except ImageBuildMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def operator_image() -> Iterator[Image]:
    """The target `operator`."""
    yield from built("operator")


@pytest.fixture(scope="session")
def gpu_image() -> Iterator[Image]:
    """The target `service-gpu`, whose packages are gigabytes: built where that is asked for."""
    if not os.environ.get("KOSINE_TEST_GPU_IMAGE"):
        pytest.skip("3.4 GB of downloads and 12 GB of disk: make test-images GPU=1")
    yield from built("service-gpu")


@pytest.fixture(scope="session")
def service_image() -> Iterator[Image]:
    """The target `service`."""
    yield from built("service")
