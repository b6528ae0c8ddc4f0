"""Ids lead to rows and rows to ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.errors import InvalidValue
from kosine.serving import item_ids
from kosine.serving.item_ids import ItemIds

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
_NUMBER = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(_NUMBER, min_size=1, unique=True), st.lists(_NUMBER | st.integers()))
def test_a_number_leads_to_its_row(values: list[int], others: list[int]) -> None:
    """Every id of the index to its row, every other, however large, to none."""
    ids = ItemIds(np.array(values, np.int64), len(values))
    rows = {value: row for row, value in enumerate(values)}
    assert [rows.get(each, -1) for each in values + others] == ids.find(values + others, field="id").tolist()


@given(st.lists(_TEXT, min_size=1, unique=True), st.lists(_TEXT | st.text()), st.booleans())
def test_a_text_leads_to_its_row(values: list[str], others: list[str], collide: bool) -> None:
    """The same, also where every text has the same hash; NULs and halves of pairs name nothing."""
    with pytest.MonkeyPatch.context() as patched:
        if collide:
            patched.setattr(item_ids, "hash_texts", lambda points: np.zeros(len(points), np.uint64))
        ids = ItemIds(np.array(values), len(values))
        rows = {value: row for row, value in enumerate(values)}
        asked = [
            *values,
            *others,
            *(value + "\0" for value in values),
            *(value + "x" * 99 for value in values),
        ]
        assert [rows.get(each, -1) for each in asked] == ids.find(asked, field="id").tolist()


def test_without_ids_a_row_is_its_own_number() -> None:
    """From 0 up to the last row."""
    assert [-1, 0, 2, -1, -1, -1] == ItemIds(None, 3).find([-1, 0, 2, 3, 2**63, 2**64], field="id").tolist()


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        (None, "1"),
        (np.array([1, 2]), "1"),
        (np.array(["1", "2"]), 1),
        (None, True),
        (np.array(["a", "b"]), None),
    ],
)
def test_an_id_of_another_type_is_refused(values: Any, wrong: Any) -> None:
    """Texts and numbers are never turned into each other, so that nobody gets the wrong item."""
    with pytest.raises(InvalidValue) as refused:
        ItemIds(values, 2).find([wrong], field="exclude")
    assert {"path": "$.exclude"} == refused.value.facts
    with pytest.raises(InvalidValue):
        ItemIds(values, 2).known([2**64, wrong], field="exclude")


@pytest.mark.parametrize("values", [None, np.array([5, 6, 7]), np.array(["a", "b", "c"])])
def test_no_ids_lead_to_no_rows(values: Any) -> None:
    """An empty list is fine."""
    assert [] == ItemIds(values, 3).find([], field="include").tolist()
    assert [] == ItemIds(values, 3).known([], field="include").tolist()


@given(st.lists(st.integers(-3, 9) | st.integers(-(2**70), 2**70)))
@pytest.mark.parametrize("values", [None, np.array([5, -2, 7]), np.array([2**63 - 1, -(2**63), 0])])
def test_known_are_the_rows_that_are_found(values: Any, asked: list[int]) -> None:
    """In their order, the others left out; so with texts."""
    ids = ItemIds(values, 3)
    found = ids.find(asked, field="exclude")
    assert found[found >= 0].tolist() == ids.known(asked, field="exclude").tolist()
    texts = ItemIds(np.array(["5", "-2", "7"]), 3)
    found = texts.find([*map(str, asked)], field="exclude")
    assert found[found >= 0].tolist() == texts.known([*map(str, asked)], field="exclude").tolist()


@given(st.lists(st.integers(-3, 9) | st.integers(-(2**63), 2**63 - 1)))
@pytest.mark.parametrize("values", [None, np.array([5, -2, 7])])
def test_left_out_are_the_known_rows_whatever_holds_their_ids(values: Any, asked: list[int]) -> None:
    """Beside numbers of no row; the same from a list as from an array."""
    ids = ItemIds(values, 3)
    left = ids.left_out(asked, field="exclude")
    assert ids.known(asked, field="exclude").tolist() == [each for each in left.tolist() if 0 <= each < 3]
    assert left.tobytes() == ids.left_out(np.array(asked, np.int64), field="exclude").tobytes()


def test_names_are_nested_like_rows() -> None:
    """A batch of answers at once."""
    rows = np.array([[1, 0], [2, 2]], np.int32)
    assert [["b", "a"], ["c", "c"]] == ItemIds(np.array(["a", "b", "c"]), 3).names(rows)
    assert [[1, 0], [2, 2]] == ItemIds(None, 3).names(rows)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("-7", -7), ("42", 42), ("007", None), ("+1", None), ("1.0", None), ("", None)],
)
def test_a_number_in_a_path_has_one_spelling(text: str, number: int | None) -> None:
    """Where ids are numbers; where they are texts a text is what it is."""
    expected = text if number is None else number
    assert [expected, expected] == [ItemIds(values, 1).typed(text) for values in (None, np.array([5]))]
    assert text == ItemIds(np.array(["a"]), 1).typed(text)
