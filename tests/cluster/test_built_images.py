"""Everything from the images of the Dockerfile: `make test-images ALL=1` builds them first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit.control_plane.cluster import until
from tests.kit.operator_release import OperatorRelease, pasted
from tests.kit.operator_world import World

if TYPE_CHECKING:
    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.object_stores import ObjectServer

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(1800)]

OURS = "app.kubernetes.io/managed-by=kosine-operator"
IMAGES = {"image": {"tag": "built"}, "serviceImage": {"tag": "built"}}


@pytest.mark.usefixtures("no_crds")
def test_from_the_images_to_an_answer(namespace: Namespace, store: ObjectServer) -> None:
    """Chart, operator pod, CosineIndex, serving pods, answers of two files; then nothing is left."""
    namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    world = World(namespace, store)
    world.allow()
    world.publish("items", first=2)
    release = OperatorRelease(namespace, values=IMAGES)
    manifest, wait = pasted(release.install())
    manifest["spec"] |= world.index("items", server={"replicas": 2})["spec"]
    namespace.apply(manifest)
    namespace.kubectl(*wait)
    assert 2 == world.first("items")
    world.publish("items", first=3)
    until(lambda: world.first("items") == 3, what="the new file", within=120)
    assert [] == release.errors()

    namespace.kubectl("delete", "cosineindex", "items")
    release.uninstall()
    until(lambda: not namespace.list("pods,deployments,services", OURS), what="all of it gone", within=120)
