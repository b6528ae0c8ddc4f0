"""The cluster that these tests share: a real control plane, and one node whose pods are processes.

`make test-cluster` runs them. Without a control plane they are skipped, and where CI=true they fail.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.control_plane import assets, namespaces
from tests.kit.control_plane.assets import ControlPlaneMissing
from tests.kit.control_plane.cluster import Namespace
from tests.kit.control_plane.kubelet.settings import Image
from tests.kit.images import ImageBuildMissing, image
from tests.kit.operator_cluster import IMAGES, definitions, kosine_cluster
from tests.kit.operator_release import CRDS
from tests.kit.operator_world import World, s3_for_pods

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.kit.control_plane.control_plane import ControlPlane
    from tests.kit.object_stores import ObjectServer

TEST_SECONDS = 300

BUILT = {"kosine:built": "service", "kosine-operator:built": "operator"}
"""What targets of the Dockerfile the images of a test of built images are."""

_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is of the cluster tier; the first one waits for the control plane too.

    Tests that take the CRDs away come last: for up to 30 s the garbage collector does not know new ones.
    """
    items.sort(key=lambda item: "crds_may_go" in getattr(item, "fixturenames", ()))
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("images"):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The namespace of a failed test is reported before it goes."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def _unavailable(reason: str) -> BaseException:
    outcome = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    return outcome.Exception(reason, pytrace=False)


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Iterator[dict[str, Image]]:
    """What a node runs: IMAGES, and BUILT where a test of this run is about them."""
    with contextlib.ExitStack() as opened:
        wanted = any(item.get_closest_marker("images") for item in request.session.items)
        try:
            built = {name: opened.enter_context(image(target)) for name, target in BUILT.items() if wanted}
        except ImageBuildMissing as missing:
            raise _unavailable(str(missing)) from None
        yield IMAGES | {
            name: Image(
                command=tuple(each.entrypoint),
                root=str(each.root),
                environment=dict(line.split("=", 1) for line in each.config["Env"]),
                user=each.config["User"],
            )
            for name, each in built.items()
        }


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest, images: dict[str, Image]) -> Iterator[ControlPlane]:
    """The control plane with kosine's CRDs and a node that runs `images`."""
    if not namespaces.inside():
        raise _unavailable("not in namespaces of their own: run the cluster tests by make test-cluster")
    try:
        programs = assets.find()
    except ControlPlaneMissing as missing:
        raise _unavailable(str(missing)) from None
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))  # short, for Unix sockets
    try:
        with kosine_cluster(programs, folder, images) as started:
            yield started
    finally:
        if request.session.testsfailed:
            sys.stderr.write(f"\nlogs of the control plane and of pods: {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def namespace(
    plane: ControlPlane, request: pytest.FixtureRequest, _numbers: Iterator[int]
) -> Iterator[Namespace]:
    """A namespace for one test. What is left in it ends behind the next test."""
    with _made(f"test-{next(_numbers)}", plane, request.node) as made:
        yield made


@pytest.fixture
def neighbour(
    plane: ControlPlane, request: pytest.FixtureRequest, _numbers: Iterator[int]
) -> Iterator[Namespace]:
    """A second one."""
    with _made(f"test-{next(_numbers)}", plane, request.node) as made:
        yield made


@contextlib.contextmanager
def _made(name: str, plane: ControlPlane, test: pytest.Item) -> Iterator[Namespace]:
    made = Namespace(name, plane, plane.files.kubeconfig)
    made.kubectl("create", "namespace", made.name)
    # Pods are refused until it exists.
    made.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    yield made
    if test.stash.get(_failed, False):
        sys.stderr.write(made.report())
    made.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture(scope="session")
def store(plane: ControlPlane) -> Iterator[ObjectServer]:
    """An object store that pods reach."""
    assert plane.port
    with s3_for_pods() as server:
        yield server


@pytest.fixture
def world(namespace: Namespace, store: ObjectServer) -> World:
    """A namespace whose pods may read the store; without an operator so far."""
    made = World(namespace, store)
    made.allow()
    return made


@pytest.fixture
def crds_may_go(plane: ControlPlane) -> Iterator[None]:
    """A test may delete kosine's CRDs; afterwards they are as they were."""
    yield
    _remove_crds(plane)
    for definition in definitions():
        plane.define(definition)


@pytest.fixture
def no_crds(plane: ControlPlane, crds_may_go: None) -> None:
    """A cluster that has never heard of kosine."""
    assert crds_may_go is None
    _remove_crds(plane)


def _remove_crds(plane: ControlPlane) -> None:
    everywhere = Namespace("default", plane, plane.files.kubeconfig)
    everywhere.kubectl("delete", "--ignore-not-found", "--wait", "--timeout=120s", *CRDS)
