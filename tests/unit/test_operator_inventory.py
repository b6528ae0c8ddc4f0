"""What the operator believes of the cluster, whatever order it hears things in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kosine_operator.inventory import Changed, Inventory, version_of
from kosine_operator.kinds import BY_NAME, INDEX, POD, Ref

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = BY_NAME["Service"]
ITEMS = Ref(INDEX, "shop", "items")


def obj(name: str = "items", *, version: int, namespace: str = "shop", **fields: Any) -> dict[str, Any]:
    """An object as the API writes it."""
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version)}
    return {"metadata": metadata, **fields}


@pytest.fixture
def clock() -> list[float]:
    """The time that `unheard_for` is told in."""
    return [0.0]


@pytest.fixture
def inventory(clock: list[float]) -> Inventory:
    """One that knows nothing."""
    return Inventory(now=lambda: clock[0])


def known(inventory: Inventory, ref: Ref = ITEMS) -> int | None:
    """Version of an object, None where there is none."""
    found = inventory.get(ref)
    return None if found is None else version_of(found)


def test_what_is_newer_replaces_what_is_known(inventory: Inventory) -> None:
    """A change has the object before and after."""
    first, second = obj(version=1), obj(version=2)

    assert Changed(ref=ITEMS, before=None, after=first) == inventory.hear(INDEX, first)
    assert Changed(ref=ITEMS, before=first, after=second) == inventory.hear(INDEX, second)
    assert second == inventory.get(ITEMS)


def test_what_is_known_or_older_changes_nothing(inventory: Inventory) -> None:
    """The echo of an own write, and an event that was late, are no news."""
    inventory.put(INDEX, obj(version=5))

    assert inventory.hear(INDEX, obj(version=5)) is None
    assert inventory.hear(INDEX, obj(version=4)) is None
    assert 5 == known(inventory)


def test_a_deleted_object_is_gone_and_stays_gone(inventory: Inventory) -> None:
    """An older event that comes after the deletion does not bring it back; a new object of that name does."""
    inventory.hear(INDEX, obj(version=1))
    gone = inventory.hear(INDEX, obj(version=3), deleted=True)

    assert Changed(ref=ITEMS, before=obj(version=1), after=None) == gone
    assert inventory.hear(INDEX, obj(version=2)) is None
    assert known(inventory) is None
    inventory.hear(INDEX, obj(version=4))
    assert 4 == known(inventory)


def test_an_old_deletion_does_not_remove_a_new_object(inventory: Inventory) -> None:
    """Deleted and created again, heard the wrong way round."""
    inventory.hear(INDEX, obj(version=4))

    assert inventory.hear(INDEX, obj(version=3), deleted=True) is None
    assert 4 == known(inventory)


def test_a_list_tells_what_vanished_unnoticed(inventory: Inventory) -> None:
    """The watch was away while an object was deleted."""
    inventory.hear(INDEX, obj("items", version=1))
    inventory.hear(INDEX, obj("users", version=2))

    changes = inventory.replace(INDEX, "shop", [obj("users", version=2)], version=9)

    assert [Changed(ref=ITEMS, before=obj("items", version=1), after=None)] == changes
    assert ["users"] == [ref.name for ref in inventory.refs(INDEX)]


def test_a_list_does_not_remove_what_is_newer_than_it(inventory: Inventory) -> None:
    """Created after the list was taken and heard of before it came."""
    inventory.hear(INDEX, obj(version=10))

    assert [] == inventory.replace(INDEX, "shop", [], version=9)
    assert 10 == known(inventory)


def test_a_list_does_not_bring_back_what_was_deleted_after_it(inventory: Inventory) -> None:
    """Deleted after the list was taken and heard of before it came."""
    inventory.hear(INDEX, obj(version=5))
    inventory.hear(INDEX, obj(version=12), deleted=True)

    assert [] == inventory.replace(INDEX, "shop", [obj(version=5)], version=9)
    assert known(inventory) is None


def test_a_list_is_of_its_kind_and_namespace(inventory: Inventory) -> None:
    """Nothing else is removed by it."""
    inventory.hear(INDEX, obj(version=1, namespace="other"))
    inventory.hear(SERVICE, obj(version=1))

    inventory.replace(INDEX, "shop", [], version=9)

    assert 1 == known(inventory, Ref(INDEX, "other", "items"))
    assert 1 == known(inventory, Ref(SERVICE, "shop", "items"))
    inventory.replace(INDEX, None, [], version=9)
    assert known(inventory, Ref(INDEX, "other", "items")) is None


def test_what_nobody_reads_is_not_kept(inventory: Inventory) -> None:
    """Thousands of objects fit: no managedFields, and of pods no spec."""
    pod = obj("pod", version=1, spec={"containers": []}, status={"podIP": "10.0.0.1"})
    pod["metadata"]["managedFields"] = [{"manager": "kubelet"}]

    inventory.hear(POD, pod)

    expected = obj("pod", version=1, status={"podIP": "10.0.0.1"})
    assert expected == inventory.get(Ref(POD, "shop", "pod"))


def test_a_watch_that_never_tells_what_a_list_shows_is_stuck(
    inventory: Inventory, clock: list[float]
) -> None:
    """The age is between the first and the last list that knew better, and ends with the event."""
    inventory.hear(INDEX, obj(version=1))
    inventory.replace(INDEX, "shop", [obj(version=1)], version=1)
    clock[0] = 10.0
    assert 0.0 == inventory.unheard_for()

    inventory.replace(INDEX, "shop", [obj(version=2)], version=2)
    clock[0] = 70.0
    inventory.replace(INDEX, "shop", [obj(version=3)], version=3)
    clock[0] = 75.0
    assert 60.0 == inventory.unheard_for()

    inventory.hear(INDEX, obj(version=3))
    assert 0.0 == inventory.unheard_for()


def test_what_vanished_is_not_waited_for(inventory: Inventory, clock: list[float]) -> None:
    """An object that came and went between two events of the watch does not make it look stuck."""
    inventory.replace(INDEX, "shop", [obj(version=2)], version=2)
    clock[0] = 60.0
    inventory.replace(INDEX, "shop", [], version=8)

    assert 0.0 == inventory.unheard_for()


def test_the_answer_to_an_own_write_is_not_an_event(inventory: Inventory, clock: list[float]) -> None:
    """A dead watch is noticed also where all changes are the operator's own."""
    inventory.put(INDEX, obj(version=2))
    inventory.replace(INDEX, "shop", [obj(version=2)], version=2)
    clock[0] = 60.0
    inventory.replace(INDEX, "shop", [obj(version=2)], version=2)

    assert 60.0 == inventory.unheard_for()


class InventoryMachine(RuleBasedStateMachine):
    """A server whose events are late, lost, repeated and reordered, and whose lists are stale."""

    NAMES = strategies.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.inventory = Inventory(now=lambda: 0.0)
        self.version = 0
        self.truth: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[dict[str, Any], bool]] = []
        self.list: tuple[list[dict[str, Any]], int] = ([], 0)

    @rule(name=NAMES)
    def write(self, name: str) -> None:
        """Somebody creates or changes an object."""
        self.version += 1
        self.truth[name] = obj(name, version=self.version)
        self.events.append((self.truth[name], False))

    @precondition(lambda self: self.truth)
    @rule(data=strategies.data())
    def delete(self, data: strategies.DataObject) -> None:
        """Somebody deletes an object."""
        name = data.draw(strategies.sampled_from(sorted(self.truth)))
        self.version += 1
        del self.truth[name]
        self.events.append((obj(name, version=self.version), True))

    @precondition(lambda self: self.events)
    @rule(data=strategies.data())
    def tell(self, data: strategies.DataObject) -> None:
        """Any event of the past arrives, maybe again."""
        event, deleted = data.draw(strategies.sampled_from(self.events))
        self.inventory.hear(INDEX, event, deleted=deleted)

    @rule()
    def take_list(self) -> None:
        """A list is taken, and may arrive much later."""
        self.list = (list(self.truth.values()), self.version)

    @rule()
    def deliver_list(self) -> None:
        """The last list arrives, maybe again."""
        objects, version = self.list
        self.inventory.replace(INDEX, "shop", objects, version=version)

    @invariant()
    def nothing_is_invented(self) -> None:
        """Whatever is known was once true."""
        history: list[Mapping[str, Any]] = [event for event, deleted in self.events if not deleted]
        assert all(found in history for found in self.inventory.all(INDEX, "shop"))

    def teardown(self) -> None:
        """One complete list after the last change leaves the truth, whatever happened before."""
        self.inventory.replace(INDEX, "shop", list(self.truth.values()), version=self.version)
        known = {found["metadata"]["name"]: found for found in self.inventory.all(INDEX, "shop")}
        assert self.truth == known


InventoryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestInventory = InventoryMachine.TestCase
