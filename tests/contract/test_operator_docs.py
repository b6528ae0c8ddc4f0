"""docs/operator.md and the rooms of docs/architecture.md say what the operator's code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest
import yaml

import kosine_operator
from kosine_operator import api_errors, kinds
from tests.kit.generated_docs import DOCS

SOURCE = Path(kosine_operator.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
RULES = DOCS.parent / "charts" / "kosine-operator" / "files" / "rbac-rules.yaml"


def rows(page: str, mark: str) -> list[list[str]]:
    """Cells of a marked table, without its head."""
    text = (DOCS / page).read_text(encoding="utf-8")
    block = re.search(rf"<!-- {mark} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert block is not None, mark
    lines = [line.strip("|").split("|") for line in block[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def logged_events() -> set[str]:
    """The first argument of every call of a logger."""
    calls = [
        node
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
    ]
    firsts = [call.args[0] for call in calls if call.func.attr in LEVELS]  # type: ignore[attr-defined]
    return {
        first.value for first in firsts if isinstance(first, ast.Constant) and isinstance(first.value, str)
    }


def test_every_event_of_the_log_is_in_the_table_and_a_stable_identifier() -> None:
    """Names are snake_case, not sentences."""
    events = logged_events()

    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", event) for event in events), events
    assert events | {"library_message"} == {row[0].strip("`") for row in rows("operator.md", "events")}


def test_every_reason_of_an_error_is_in_the_table() -> None:
    """And what to do about it."""
    text = (DOCS / "operator.md").read_text(encoding="utf-8")
    told = re.search(r"\| reason of an error \|.*?\n\n", text, re.DOTALL)
    assert told is not None
    classes = [each for each in vars(api_errors).values() if isinstance(each, type)]
    reasons = {each.reason for each in classes if issubclass(each, api_errors.ApiError)} - {"api_error"}

    assert reasons | {"overdue", "defect"} == set(re.findall(r"^\| `([a-z_]+)` \|", told[0], re.MULTILINE))


def test_every_room_has_its_paragraph() -> None:
    """docs/architecture.md says what each module of the operator is for."""
    rooms = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    section = text.split("\n## Rooms of the operator\n")[1].split("\n## ")[0]
    bold = re.findall(r"^\*\*([a-z_, ]+)\*\* ", section, re.MULTILINE)

    assert rooms - {"__init__", "__main__"} == {name.strip() for names in bold for name in names.split(",")}


def modules_with_examples() -> list[str]:
    """Modules whose docstrings show something."""
    paths = [path for path in SOURCE.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in paths)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_are_right(name: str) -> None:
    """What a docstring shows is what the function answers."""
    failed, tried = doctest.testmod(importlib.import_module(name))

    assert (0, True) == (failed, tried > 0)


def test_the_rules_are_about_the_kinds_that_are_watched_and_no_others() -> None:
    """One table of kinds: what is watched may be listed and watched, and nothing else of the cluster."""
    rules = yaml.safe_load(RULES.read_bytes())
    granted = {
        (group, resource): set(rule["verbs"])
        for rule in (*rules["rules"], *rules["optional"])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    watched = {key for key, verbs in granted.items() if {"list", "watch"} <= verbs}

    assert {(kind.group, kind.plural) for kind in kinds.WATCHED} == watched
    assert not {"*", "secrets"} & {resource for _, resource in granted}
    assert not any({"*", "escalate", "bind", "impersonate"} & verbs for verbs in granted.values())
