"""Charts are tested with the real helm. Where it is missing the tests are skipped, and fail with CI=true."""

from __future__ import annotations

import os

import pytest

from tests.kit.helm import Helm, HelmMissing, find_helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The program with a home of its own."""
    try:
        program = find_helm()
    except HelmMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    return Helm(program, tmp_path_factory.mktemp("helm"))
