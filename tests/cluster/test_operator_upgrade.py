"""The operator's chart upgraded from the release before, and rolled back, while callers ask all the time."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.kit.chart_files import CHARTS, OPERATOR
from tests.kit.control_plane.cluster import CommandFailed, until
from tests.kit.operator_release import OperatorRelease
from tests.kit.operator_world import World
from tests.kit.released import releases
from tests.kit.steady_load import steady_load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.object_stores import ObjectServer

OURS = "app.kubernetes.io/managed-by=kosine-operator"
PREVIOUS = releases()[-1]
RATE = 500


def next_chart(folder: Path) -> Path:
    """This tree's chart as a later version, whose CosineIndex has one more field."""
    chart = folder / OPERATOR
    shutil.copytree(CHARTS / OPERATOR, chart)
    about = chart / "Chart.yaml"
    text = re.sub(r"(?m)^version: .*", "version: 9.9.9", about.read_text(encoding="utf-8"))
    about.write_text(text, encoding="utf-8")
    path = chart / "files" / "crds" / "cosineindexes.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["note"] = {"type": "string", "maxLength": 20}
    path.write_text(yaml.safe_dump(definition), encoding="utf-8")
    return chart


def images(namespace: Namespace) -> dict[str, str]:
    """Names of serving pods that are ready and stay, with their image."""
    return {
        pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"]
        for pod in namespace.list("pods", OURS)
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in pod["status"].get("conditions", ())
        )
    }


def rolled_to(image: str, world: World) -> set[str]:
    """Wait for the one pod of `items` to be of that image, and for the index to be ready; its name."""

    def found() -> set[str]:
        ready = images(world.namespace)
        return set(ready) if [*ready.values()] == [image] else set()

    pods = until(found, what=f"one pod of {image}", within=300)
    world.ready("items")
    return pods


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("no_crds")
def test_callers_notice_neither_an_upgrade_nor_its_undoing(
    namespace: Namespace, store: ObjectServer, tmp_path: Path
) -> None:
    """0 of 500 requests a second fail; pods are replaced only where the image that they run changes."""
    world = World(namespace, store)
    world.allow()
    world.publish("items", first=1)
    chart = str(next_chart(tmp_path))
    release = OperatorRelease(namespace)
    release.install(chart=str(PREVIOUS.chart))
    # A stall of a busy machine is not what is tested, so deadlines are long.
    patient = {"timeout": "30s", "server": world.pods(process={"drainDelay": "2s", "maxTimeout": "60s"})}
    namespace.apply(world.index("items") | {"spec": {**world.index("items")["spec"], **patient}})
    pods = rolled_to("kosine:test", world)

    url = f"http://{namespace.cluster_address('items')}/indexes/items/cos"
    with steady_load(url, {"embedding": [1.0, 0.0, 0.0, 0.0]}, rate=RATE) as load:
        before = release.pods()
        release.upgrade(chart=chart, podAnnotations={"revision": "2"})
        assert not before & release.pods()
        namespace.kubectl("patch", "cosineindex", "items", "--type=merge", "-p", '{"spec": {"k": 2}}')
        assert pods == rolled_to("kosine:test", world)

        release.upgrade(chart=chart, serviceImage={"tag": "next"})
        rolled_to("kosine:next", world)
        release.rollback(1)
        rolled_to("kosine:test", world)

    sys.stdout.write(f"{load.answered} answers in {load.seconds} s\n")  # pytest -rP
    assert {} == load.failures
    assert load.answered


def resources() -> list[dict[str, Any]]:
    """Those of the release before; their namespace is left to the test."""
    found = list(yaml.safe_load_all(PREVIOUS.resources.read_text(encoding="utf-8")))
    for each in found:
        del each["metadata"]["namespace"]
    return found


@pytest.mark.usefixtures("no_crds")
def test_resources_of_the_release_before_outlive_its_crds(
    namespace: Namespace, neighbour: Namespace, tmp_path: Path
) -> None:
    """Upgraded, the CRDs have what is new, and everything that was written under the old ones is valid."""
    # In a namespace that no operator works in: what is tested is what the API server makes of them.
    release = OperatorRelease(neighbour, values={"replicas": 0})
    release.install(chart=str(PREVIOUS.chart))
    namespace.apply(*resources())
    stored = namespace.list("cosineindexes,cosineservers")
    annotated = {**resources()[0], "spec": {**resources()[0]["spec"], "note": "new"}}
    with pytest.raises(CommandFailed, match="note"):
        namespace.apply(annotated)

    release.upgrade(chart=str(next_chart(tmp_path)))
    assert stored == namespace.list("cosineindexes,cosineservers")
    # Written again by a reader who changes nothing: not even a generation is new.
    namespace.kubectl("replace", "--validate=strict", "-f", "-", stdin=json.dumps(listed(stored)))
    assert [each["metadata"]["generation"] for each in stored] == [
        each["metadata"]["generation"] for each in namespace.list("cosineindexes,cosineservers")
    ]
    namespace.apply(annotated)
    release.uninstall()


def listed(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """As one object."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}
