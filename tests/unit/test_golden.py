"""The file of golden queries: what is read, and what is refused before a load has cost anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.canary.golden import MAX_BYTES, MAX_QUERIES, Golden, parse_golden, read_golden
from kosine.loading.local import LocalStorage
from kosine.source_uri import COMMAND_LINE

if TYPE_CHECKING:
    from pathlib import Path

URI = "/data/golden.json"


def parsed(content: bytes, *, metric: str = "cosine") -> Golden:
    return parse_golden(content, uri=URI, k=10, metric=metric)


def of(**fields: Any) -> bytes:
    return json.dumps({"queries": [{"id": 1, "expected": [2], **fields}]}).encode()


def refusal(content: bytes) -> LoadError:
    with pytest.raises(LoadError) as caught:
        parsed(content)
    return caught.value


def test_every_field_is_read() -> None:
    """By id or by embedding; what is not said is the index's k, and all of the expected."""
    content = {
        "queries": [
            {"id": "a", "k": 3, "expected": ["b", "c"], "min_found": 0.5},
            {"embedding": [1, 0.5], "expected": ["a"]},
        ]
    }
    by_id, by_embedding = parsed(json.dumps(content).encode()).queries
    assert ("a", None, 3, ("b", "c"), 0.5) == (
        by_id.id,
        by_id.embedding,
        by_id.k,
        by_id.expected,
        by_id.min_found,
    )
    assert by_embedding.embedding is not None
    assert (None, [1.0, 0.5], 10, ("a",), 1.0) == (
        by_embedding.id,
        by_embedding.embedding.tolist(),
        by_embedding.k,
        by_embedding.expected,
        by_embedding.min_found,
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Input data was truncated"),
        (b"[1]", "Expected `object`, got `array`"),
        (b"\xff{}", "malformed"),
        (b'{"queries": []}', "length >= 1"),
        (b'{"query": []}', "unknown field `query`"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"queries": [' + b"[" * 100_000 + b"]", "nested too deeply"),
        (of(embedding=[1.0]), "query 0: expected one of `embedding` and `id`, got both"),
        (b'{"queries": [{"expected": [1]}]}', "query 0: expected one of `embedding` and `id`, got none"),
        (b'{"queries": [{"id": 1}]}', "query 0: Object missing required field `expected`"),
        (of(expected=[]), "query 0: Expected `array` of length >= 1"),
        (of(expected=[2, 2]), "query 0: an id is expected twice"),
        (of(expected=[2.5]), "query 0: Expected `int | str`"),
        (of(id=True), "query 0: Expected `int | str | null`"),
        (of(k=0), "query 0: Expected `int` >= 1"),
        (of(min_found=0), "query 0: Expected `float` > 0"),
        (of(min_found=1.5), "query 0: Expected `float` <= 1.0"),
        (of(top=3), "query 0: Object contains unknown field `top`"),
        (of(k=1, expected=[2, 3]), "of 2 expected ids a share of 1 cannot be among the best 1"),
        (b'{"queries": [{"embedding": [0, 0], "expected": [1]}]}', "query 0: a vector of zeros"),
        (b'{"queries": [{"embedding": [1e39], "expected": [1]}]}', "query 0: 1 of 1 numbers"),
        (b'{"queries": [{"embedding": [1e999], "expected": [1]}]}', "out of range"),
        (b'{"queries": [{"embedding": [], "expected": [1]}]}', "length >= 1"),
        (
            json.dumps({"queries": [{"id": 1, "expected": [2]}] * (MAX_QUERIES + 1)}).encode(),
            "length <= 1000",
        ),
    ],
)
def test_a_bad_file_is_refused_by_what_is_wrong_with_it(content: bytes, told: str) -> None:
    """Code and stage, the number of the query, and what a good file looks like."""
    error = refusal(content)
    assert (LoadCode.BAD_GOLDEN, Stage.GATE, "golden") == (error.code, error.stage, error.facts["file"])
    assert told in error.detail
    assert 'expected {"queries": [{"id": 5' in error.detail


def test_a_zero_vector_has_a_dot_product() -> None:
    """By `dot` it is a query like any other."""
    content = b'{"queries": [{"embedding": [0, 0], "expected": [1]}]}'
    assert 1 == len(parsed(content, metric="dot").queries)


@pytest.mark.parametrize(
    ("content", "fits", "told"),
    [
        (of(), {}, None),
        (of(), {"texts": True}, "ids of this index are texts"),
        (of(id="a", expected=["b"]), {}, "ids of this index are whole numbers"),
        (of(id="a", expected=["b"]), {"texts": True}, None),
        (of(id="a"), {"texts": True}, "ids of this index are texts"),
        (of(k=11), {}, "expected k of at most max_k 10, got 11"),
        (b'{"queries": [{"embedding": [1, 2, 3], "expected": [1]}]}', {}, None),
        (b'{"queries": [{"embedding": [1, 2], "expected": [1]}]}', {}, "query 0: expected 3 numbers, got 2"),
    ],
)
def test_a_file_has_to_fit_its_index(content: bytes, fits: dict[str, Any], told: str | None) -> None:
    """Dimension, `max_k` and type of the ids are known from headers."""
    golden = parsed(content)
    if told is None:
        golden.check_fits(**{"dim": 3, "texts": False, "max_k": 10, **fits})
        return
    with pytest.raises(LoadError, match="no good file of golden queries") as caught:
        golden.check_fits(**{"dim": 3, "texts": False, "max_k": 10, **fits})
    assert told in caught.value.detail


def test_a_file_is_read_within_its_bound(tmp_path: Path) -> None:
    """2 MiB are read, a byte more is refused unread; a missing file is named as the golden one."""
    storage, path = LocalStorage(COMMAND_LINE), tmp_path / "golden.json"
    path.write_bytes(of() + b" " * (MAX_BYTES - len(of())))
    assert 1 == len(read_golden(storage, str(path), k=10, metric="cosine").queries)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    assert (LoadCode.BAD_GOLDEN, "golden") == code_of(storage, path)
    path.unlink()
    assert (LoadCode.SOURCE_MISSING, "golden") == code_of(storage, path)


def code_of(storage: LocalStorage, path: Path) -> tuple[LoadCode, object]:
    with pytest.raises(LoadError) as caught:
        read_golden(storage, str(path), k=10, metric="cosine")
    assert caught.value.stage is Stage.GATE
    return caught.value.code, caught.value.facts["file"]
