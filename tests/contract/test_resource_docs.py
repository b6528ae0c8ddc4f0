"""docs/resources.md says what the operator does: conditions, reasons, the first example."""

from __future__ import annotations

import re

import yaml

from kosine_operator.resources import parse_index
from kosine_operator.status import REASONS, ConditionType
from tests.contract.test_docs import code, page, table


def test_every_condition_is_in_the_table_in_its_order() -> None:
    """A condition has a meaning that people can read."""
    rows = table(page("resources.md"), "conditions")
    assert [*ConditionType] == [code(row[0]) for row in rows]
    assert all(row[1] for row in rows)


def test_every_reason_is_in_the_table_with_its_conditions() -> None:
    """No reason without a meaning and a remedy, and none that is not given."""
    rows = table(page("resources.md"), "reasons")
    told = {code(row[0]): row[1].split(", ") for row in rows}
    given = {reason for reasons in REASONS.values() for reason in reasons}
    assert sorted(given) == sorted(told)
    for reason, kinds in told.items():
        assert [kind for kind in ConditionType if reason in REASONS[kind]] == kinds, reason
    assert all(row[2] and row[3] for row in rows)


def test_the_first_example_is_a_resource() -> None:
    """What the page shows first is what the operator reads."""
    example = re.search(r"```yaml\n(.*?)```", page("resources.md"), re.DOTALL)
    assert example is not None
    found = yaml.safe_load(example[1])
    stored = {**found, "metadata": {**found["metadata"], "namespace": "search", "uid": "u"}}
    assert "s3://embeddings/items.npy" == parse_index(stored).spec.source.uri
