"""What the operator takes for what people wait for, on a real control plane with pods as processes.

    tests/kit/control_plane/in-namespaces .venv/bin/python -m tests.bench.operator_marks [MARK ...]

Each mark has a namespace and an operator of its own. The machine is shared by API server, etcd, controllers,
node and pods, so seconds are an upper bound; what is counted (failed requests, writes) is not.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kit.control_plane import assets
from tests.kit.control_plane.cluster import Namespace, until
from tests.kit.control_plane.forgetful_api import forgetful_api
from tests.kit.operator_cluster import kosine_cluster, minimal_rights, writes_of
from tests.kit.operator_process import operator_process
from tests.kit.operator_world import World, callers, condition_of, s3_for_pods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.control_plane.control_plane import ControlPlane
    from tests.kit.object_stores import ObjectServer

__all__ = ("MARKS", "Seen", "main")

_DRIFTS = (
    ("scale", "deployment", "items", "--replicas=3"),
    ("delete", "service", "items"),
    ("label", "deployment", "items", "app.kubernetes.io/managed-by-"),
    ("delete", "deployment", "items"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One figure; `at_least` is what issue and tests ask for."""

    what: str
    at_least: str
    seen: str


def first_ready(world: World) -> Iterator[Seen]:
    """From `kubectl apply` to Ready, and how much of it is the service's own start."""
    world.publish("items")
    with operator_process(world.namespace):
        took = _timed(lambda: world.namespace.apply(world.index("items")), lambda: world.is_ready("items"))
        (pod,) = world.namespace.list("pods")
    (container,) = pod["status"]["containerStatuses"]
    ready = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    began, ended = container["state"]["running"]["startedAt"], ready["lastTransitionTime"]
    own = (dt.datetime.fromisoformat(ended) - dt.datetime.fromisoformat(began)).total_seconds()
    yield Seen("apply to Ready, one replica", "10 s + own start", f"{took:.1f} s, own start {own:.0f} s")


def hot_change(world: World) -> Iterator[Seen]:
    """Another k, until each of two pods has confirmed it, while somebody asks."""
    world.publish("items")
    with operator_process(world.namespace):
        world.namespace.apply(world.index("items", k=3, server={"replicas": 2}))
        world.ready("items")
        with callers(world, "items") as asking:
            until(lambda: asking.answers, what="a first answer")
            changed = world.index("items", k=1, server={"replicas": 2})
            took = _timed(lambda: world.namespace.apply(changed), lambda: world.is_ready("items"))
    yield Seen("hot change seen by every pod", "3 s", f"{took:.1f} s")
    yield Seen("requests that failed meanwhile", "0", f"{len(asking.failures)} of {len(asking.answers)}")


def drift(world: World) -> Iterator[Seen]:
    """Something of a child is changed by hand; the next resync is an hour away."""
    with operator_process(world.namespace, "--resync", "3600"):
        world.namespace.apply(world.podless("items"))
        until(lambda: world.is_settled("items"), what="settled")
        intended = _children(world)
        slowest = 0.0
        for change in _DRIFTS:
            took = _timed(lambda: world.namespace.kubectl(*change), lambda: _children(world) == intended)  # noqa: B023
            slowest = max(slowest, took)
    yield Seen(f"drift repaired, the slowest of {len(_DRIFTS)}", "5 s", f"{slowest:.1f} s")


def missed(world: World) -> Iterator[Seen]:
    """The same, all of it at once, just after a resync and without one word from the watch."""
    with (
        forgetful_api(world.namespace) as api,
        operator_process(world.namespace, kubeconfig=api.kubeconfig),
    ):
        world.namespace.apply(world.podless("items"))
        until(lambda: world.is_settled("items"), what="settled")
        intended = _children(world)
        asked = len(api.asked)
        # Pods are listed last: whatever happens now is for the next round.
        until(lambda: any(path.endswith("/pods") for _, path in api.asked[asked:]), what="round", within=120)
        api.forgets = True
        took = _timed(
            lambda: [world.namespace.kubectl(*change) for change in _DRIFTS],
            lambda: _children(world) == intended,
        )
    told = f"{took:.1f} s, {len(api.forgotten)} events lost"
    yield Seen(f"the same {len(_DRIFTS)} without an event", "60 s", told)


def at_rest(world: World) -> Iterator[Seen]:
    """Writes of a minute in which nobody does anything; resyncs go on."""
    kubeconfig, user = minimal_rights(world.namespace)
    world.publish("items")
    with operator_process(world.namespace, "--resync", "10", kubeconfig=kubeconfig):
        world.namespace.apply(world.index("items"), *(world.podless(f"other-{n}") for n in range(5)))
        world.ready("items")
        time.sleep(15)
        before = writes_of(user, world.namespace.plane)
        time.sleep(60)
        count = writes_of(user, world.namespace.plane) - before
    yield Seen("writes in 60 s at rest", "0", str(count))


def many(world: World) -> Iterator[Seen]:
    """Two hundred resources in one apply."""
    names = [f"items-{number}" for number in range(200)]
    with operator_process(world.namespace) as operator:

        def settled() -> bool:
            found = world.namespace.list("cosineindexes")
            return len(found) == len(names) and all(condition_of(each, "Ready") for each in found)

        took = _timed(lambda: world.namespace.apply(*(world.podless(name) for name in names)), settled)
        text = operator.ask("/metrics").text
    resident = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    assert resident is not None
    yield Seen("200 resources reconciled", "60 s", f"{took:.1f} s")
    yield Seen("memory of the operator then", "200 MiB", f"{float(resident[1]) / 2**20:.0f} MiB")


def beside_broken_ones(world: World) -> Iterator[Seen]:
    """How much longer ten resources take beside ten that are refused."""
    bad = {"replicas": 0, "podTemplate": {"spec": {"restartPolicy": "Never"}}}
    with operator_process(world.namespace):
        seconds = []
        for run, broken in (("a", []), ("b", [world.index(f"broken-{n}", server=bad) for n in range(10)])):
            good = [f"{run}-{number}" for number in range(10)]
            manifests = [*broken, *(world.podless(name) for name in good)]
            seconds.append(
                _timed(
                    lambda: world.namespace.apply(*manifests),  # noqa: B023
                    lambda: all(world.is_settled(name) for name in good),  # noqa: B023
                )
            )
    alone, beside = seconds
    yield Seen("delay by broken neighbours", "1 s", f"{beside - alone:+.1f} s ({alone:.1f}, {beside:.1f})")


def api_server_away(world: World, outage: float) -> Iterator[Seen]:
    """The API server is killed and comes back; somebody asks the pods throughout."""
    plane = world.namespace.plane
    world.publish("items")
    with operator_process(world.namespace) as operator:
        world.namespace.apply(world.index("items"))
        world.ready("items")
        with callers(world, "items") as asking:
            until(lambda: asking.answers, what="a first answer")
            plane.kill("kube-apiserver")
            time.sleep(outage)
            plane.start_api_server()
            took = _timed(
                lambda: world.namespace.apply(world.podless("after")), lambda: world.is_settled("after")
            )
        alive = operator.process.poll() is None
    yield Seen(f"converged after {outage:.0f} s without API server", "15 s", f"{took:.1f} s")
    yield Seen("the operator went on", "yes", "yes" if alive else "no")
    yield Seen("requests that failed meanwhile", "0", f"{len(asking.failures)} of {len(asking.answers)}")


MARKS: dict[str, Callable[[World], Iterator[Seen]]] = {
    "first_ready": first_ready,
    "hot_change": hot_change,
    "drift": drift,
    "missed": missed,
    "at_rest": at_rest,
    "many": many,
    "broken": beside_broken_ones,
    "away": lambda world: api_server_away(world, 60.0),
}


def _timed(act: Callable[[], object], done: Callable[[], bool]) -> float:
    """Seconds from the end of `act` until `done`."""
    act()
    began = time.monotonic()
    until(done, what="done", within=300)
    return time.monotonic() - began


def _children(world: World) -> list[tuple[Any, ...]]:
    kinds = ("configmap", "service", "deployment")
    found = [world.namespace.get(kind, "items") or {"metadata": {}} for kind in kinds]
    return [(each["metadata"].get("labels"), each.get("spec", {}).get("replicas")) for each in found]


@contextlib.contextmanager
def _world(plane: ControlPlane, store: ObjectServer, name: str) -> Iterator[World]:
    namespace = Namespace(name, plane, plane.files.kubeconfig)
    namespace.kubectl("create", "namespace", name)
    namespace.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    world = World(namespace, store)
    world.allow()
    yield world
    namespace.kubectl("delete", "namespace", name, "--timeout=120s")


def main() -> None:
    """Measure, and print one line each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("mark", nargs="*", choices=[*MARKS, []], help="all where none is named")
    chosen = options.parse_args().mark or [*MARKS]
    folder = Path(tempfile.mkdtemp(prefix="marks-", dir="/tmp"))  # short, for Unix sockets
    try:
        with kosine_cluster(assets.find(), folder) as plane, s3_for_pods() as store:
            for number, name in enumerate(chosen):
                with _world(plane, store, f"mark-{number}") as world:
                    for each in MARKS[name](world):
                        print(f"{each.what:<45} {each.at_least:<17} {each.seen}", flush=True)  # noqa: T201
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
