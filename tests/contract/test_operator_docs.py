"""docs/operator.md says what the operator does: conditions, reasons, examples, rooms."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import yaml

import kosine_operator
from kosine_operator.resources import parse_index
from kosine_operator.status import REASONS, ConditionType
from tests.contract.test_docs import code, page, table

SOURCE = Path(kosine_operator.__file__).parent


def test_every_condition_is_in_the_table_in_its_order() -> None:
    """A condition has a meaning that people can read."""
    rows = table(page("operator.md"), "conditions")
    assert [*ConditionType] == [code(row[0]) for row in rows]
    assert all(row[1] for row in rows)


def test_every_reason_is_in_the_table_with_its_conditions() -> None:
    """No reason without a meaning and a remedy, and none that is not given."""
    rows = table(page("operator.md"), "reasons")
    told = {code(row[0]): row[1].split(", ") for row in rows}
    given = {reason for reasons in REASONS.values() for reason in reasons}
    assert sorted(given) == sorted(told)
    for reason, kinds in told.items():
        assert [kind for kind in ConditionType if reason in REASONS[kind]] == kinds, reason
    assert all(row[2] and row[3] for row in rows)


def test_the_first_example_is_a_resource() -> None:
    """What the page shows first is what the operator reads."""
    example = re.search(r"```yaml\n(.*?)```", page("operator.md"), re.DOTALL)
    assert example is not None
    found = yaml.safe_load(example[1])
    stored = {**found, "metadata": {**found["metadata"], "namespace": "search", "uid": "u"}}
    assert "s3://embeddings/items.npy" == parse_index(stored).spec.source.uri


def modules_with_examples() -> list[str]:
    paths = [path for path in SOURCE.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in paths)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_are_right(name: str) -> None:
    """What a docstring shows is what the function answers."""
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert (0, True) == (failed, tried > 0)
