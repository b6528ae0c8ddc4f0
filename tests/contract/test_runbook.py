"""docs/operations.md has everything that can say that something is wrong, and what to do about it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import kosine
import kosine_operator
from kosine_operator.status import REASONS, ConditionType, transitions
from kosine_operator.status.conditions import LOAD_REASONS
from tests.contract.test_docs import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

LOUD = {"warning", "error", "exception", "critical"}
HALVES = {"service": kosine, "operator": kosine_operator}


def rows(mark: str) -> list[list[str]]:
    return table(page("operations.md"), f"runbook {mark}")


def loud_events(half: ModuleType) -> Iterator[str]:
    """What may be logged at warning or above."""
    for path in Path(str(half.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and LOUD & set(_names(node.func)):
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value


def _names(function: ast.expr) -> Iterator[str]:
    """Of the methods that a call may be of."""
    if isinstance(function, ast.IfExp):
        yield from _names(function.body)
        yield from _names(function.orelse)
    elif isinstance(function, ast.Attribute):
        yield function.attr


def test_every_log_event_that_asks_for_attention_is_in_the_runbook() -> None:
    """At warning or above, of both halves, and no other."""
    told = [(row[0], code(row[1])) for row in rows("log events")]
    # What libraries say is logged as they say it, by a function of its own.
    logged = {(name, event) for name, half in HALVES.items() for event in loud_events(half)}
    assert sorted(logged | {(name, "library_message") for name in HALVES}) == sorted(told)


def test_every_condition_is_in_the_runbook_in_its_order() -> None:
    """With what is wrong when it is, and what to do."""
    assert [*ConditionType] == [code(row[0]) for row in rows("conditions")]


def test_every_row_says_what_to_do() -> None:
    """Here, and in the tables that the runbook leads to."""
    elsewhere = [*table(page("http.md"), "codes"), *table(page("errors.md"), "load codes")]
    elsewhere += [*table(page("resources.md"), "reasons"), *table(page("operations.md"), "alerts")]
    here = [row for mark in ("conditions", "kubernetes events", "log events") for row in rows(mark)]
    assert all(all(row) for row in here + elsewhere)


def warnings() -> set[tuple[str, str]]:
    """Action and reason of every Kubernetes Event that is a warning."""
    return {
        (f"{told.type}{told.status}", told.reason)
        for kind in ConditionType
        for reason in REASONS[kind]
        for status in ("True", "False")
        for told in transitions(None, {"conditions": [condition(kind, status, reason)]})
        if told.warning
    }


def condition(kind: str, status: str, reason: str) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": ""}


def test_every_kubernetes_event_that_is_a_warning_is_in_the_runbook() -> None:
    """By its action; a reason is any, or that of a failed load."""
    of_loads = {"LoadFailed", *LOAD_REASONS.values()}
    told = {
        (action.strip().strip("`"), row[1])
        for row in rows("kubernetes events")
        for action in row[0].split(",")
    }
    any_reason = {action for action, which in told if which == "any"}
    of_a_load = {action for action, which in told if which == "of a failed load"}
    assert any_reason | of_a_load == {action for action, _ in warnings()}
    assert of_loads >= {reason for action, reason in warnings() if action in of_a_load}
