"""An autoscaler of Kubernetes acts on the queue of the service, and the operator leaves it alone."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import httpx
import numpy as np

from tests.kit.control_plane.cluster import until
from tests.kit.metrics_adapter import metrics_adapter
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.operator_process import operator_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.operator_world import World

ROWS, DIM, CALLERS = 200_000, 64, 24


@contextlib.contextmanager
def crowd(url: str) -> Iterator[None]:
    """Many who ask at once, all the time."""
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not stop.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    client.post(url, json={"embedding": [1.0] * DIM})

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_queries_that_wait_bring_another_pod(world: World) -> None:
    """By the metric that the HorizontalPodAutoscaler names, through the custom metrics API."""
    rows = unit_rows(ROWS, DIM, seed=1).astype(np.float32)
    world.store.put(f"{world.namespace.name}/items.npy", npy_bytes(rows))
    scaled = {"autoscaling": {"maxReplicas": 2, "targetQueueRows": 1}}
    # One query a call, so that the others wait.
    index = world.index("items", server=scaled, batch={"maxRows": 1})
    with metrics_adapter(world.namespace), operator_process(world.namespace, "--resync", "2") as operator:
        world.namespace.apply(index)
        world.ready("items")
        assert 1 == len(world.pod_names())
        url = f"http://{world.namespace.cluster_address('items')}/indexes/items/cos"
        with crowd(url):
            until(lambda: world.status("items").get("loadedPods") == "2/2", what="two pods", within=180)
        world.namespace.apply(world.index("items", server=scaled, batch={"maxRows": 1}, k=1))
        world.ready("items")

        deployment = world.namespace.get("deployment", "items") or {}
        assert 2 == deployment["spec"]["replicas"], "a change of the index leaves the number alone"
        assert [] == operator.events("reconcile_failed")
