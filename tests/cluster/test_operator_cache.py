"""Copies of what was loaded, in a claim: what a new pod serves while the store is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.kit.control_plane.cluster import until
from tests.kit.control_plane.manifests import claim
from tests.kit.control_plane.namespaces import NODE_ADDRESS
from tests.kit.operator_process import operator_process
from tests.kit.operator_world import World, s3_for_pods
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.cluster import Namespace


def test_another_pod_starts_from_the_copy_in_a_claim_while_the_store_is_down(
    namespace: Namespace, tmp_path: Path
) -> None:
    """The claim outlives the pod, unlike a cache of its own; the status says that the store was not asked."""
    copies = claim("copies", namespace.name, tmp_path)
    namespace.apply(*copies)
    with operator_process(namespace):
        with s3_for_pods(free_port(NODE_ADDRESS)) as store:
            world = World(namespace, store)
            world.allow()
            world.publish("items", first=2)
            namespace.apply(world.index("items", server={"cache": {"claimName": "copies"}}))
            world.ready("items")
            (before,) = world.pod_names()
        namespace.kubectl("delete", "pod", before)

        found = until(lambda: world.first("items") == 2, what="an answer", despite=httpx.HTTPError)
        described = httpx.get(f"http://{namespace.cluster_address('items')}/indexes/items", trust_env=False)
        assert (True, True) == (found, described.json()["stale"])
        assert {before}.isdisjoint(world.pod_names())
    namespace.kubectl("delete", "persistentvolume", copies[0]["metadata"]["name"], "--wait=false")
