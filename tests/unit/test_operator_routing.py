"""Which pools are looked at again when an object changes: never too few."""

from __future__ import annotations

from typing import Any

import pytest

from kosine_operator.inventory import Changed, Inventory
from kosine_operator.kinds import BY_NAME, INDEX, POD, SERVER, Kind, Ref
from kosine_operator.pools import PoolKey
from kosine_operator.routing import all_pools, concerned

OWN = PoolKey("shop", "CosineIndex", "items")
GPU = PoolKey("shop", "CosineServer", "gpu")
CPU = PoolKey("shop", "CosineServer", "cpu")
SERVICE = BY_NAME["Service"]


def stored(name: str = "items", *, version: int = 1, **fields: Any) -> dict[str, Any]:
    """An object of the namespace."""
    metadata = {"name": name, "namespace": "shop", "resourceVersion": str(version)}
    return {**fields, "metadata": metadata | fields.get("metadata", {})}


def asking(server: str | None, **status: Any) -> dict[str, Any]:
    """A CosineIndex."""
    spec = {} if server is None else {"serverRef": {"name": server}}
    return stored(spec=spec, status=status)


def looked_at(
    kind: Kind, before: dict[str, Any] | None, after: dict[str, Any] | None, *known: dict[str, Any]
) -> set[PoolKey]:
    """The pools, where the indexes `known` are known."""
    inventory = Inventory(now=lambda: 0.0)
    for index in known:
        inventory.put(INDEX, index)
    name = (after or before or {})["metadata"]["name"]
    change = Changed(ref=Ref(kind, "shop", name), before=before, after=after)
    return set(concerned(change, inventory))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, asking(None), {OWN}),
        (asking(None), None, {OWN}),
        (None, asking("gpu"), {OWN, GPU}),
        (asking(None), asking("gpu"), {OWN, GPU}),
        (asking("gpu"), asking("cpu"), {OWN, GPU, CPU}),
        (asking("gpu"), None, {OWN, GPU}),
    ],
)
def test_an_index_concerns_the_pools_it_asks_for_and_asked_for(
    before: dict[str, Any] | None, after: dict[str, Any] | None, expected: set[PoolKey]
) -> None:
    """Also its own, which it may have had."""
    assert expected == looked_at(INDEX, before, after)


@pytest.mark.parametrize("field", ["serving", "previous"])
def test_an_index_concerns_the_pools_that_its_status_names(field: str) -> None:
    """The pool that it moves away from has to let go of it."""
    index = asking("gpu", **{field: {"kind": "CosineServer", "name": "cpu"}})

    assert {OWN, GPU, CPU} == looked_at(INDEX, None, index)


def test_a_server_concerns_its_pool() -> None:
    """And no other."""
    assert {GPU} == looked_at(SERVER, None, stored("gpu"))


@pytest.mark.parametrize("kind", [POD, SERVICE])
def test_what_is_labelled_concerns_its_pool(kind: Kind) -> None:
    """Pods belong to ReplicaSets, so the label it is."""
    labels = {"kosine.dev/pool": "cosineserver.gpu"}

    assert {GPU} == looked_at(kind, stored("gpu-7b", metadata={"labels": labels}), None)


def test_the_service_of_an_index_concerns_whoever_serves_the_index() -> None:
    """It is the index's own and outlives a move, so its owner tells."""
    service = stored(metadata={"ownerReferences": [{"kind": "CosineIndex", "name": "items"}]})

    assert {OWN, GPU} == looked_at(SERVICE, service, None, asking("gpu"))
    assert {OWN} == looked_at(SERVICE, service, None)


@pytest.mark.parametrize(
    "oddity",
    [
        stored(spec={"serverRef": "gpu"}, status=[]),
        stored(spec=None, status={"serving": {"kind": "Deployment", "name": 5}}),
    ],
)
def test_an_index_that_makes_no_sense_concerns_its_own_pool(oddity: dict[str, Any]) -> None:
    """Another CRD than ours may be in force; routing goes on."""
    assert {OWN} == looked_at(INDEX, None, oddity)


@pytest.mark.parametrize("label", ["gpu", "cosineserver.", "deployment.gpu", ""])
def test_a_label_that_is_not_ours_concerns_nobody(label: str) -> None:
    """Anybody may write labels."""
    assert set() == looked_at(POD, None, stored("pod", metadata={"labels": {"kosine.dev/pool": label}}))


def test_every_pool_is_known_from_the_resources() -> None:
    """A resync looks at each of them."""
    inventory = Inventory(now=lambda: 0.0)
    inventory.put(INDEX, asking("gpu"))
    inventory.put(SERVER, stored("cpu"))

    assert {OWN, GPU, CPU} == all_pools(inventory)
