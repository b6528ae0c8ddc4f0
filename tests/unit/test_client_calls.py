"""What the client sends, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kosine.client import calls

if TYPE_CHECKING:
    from kosine.client.calls import PageOptions

RAW, NPY, JSON = "application/octet-stream", "application/x-npy", "application/json"


@pytest.mark.parametrize(
    ("options", "query_string"),
    [
        ({}, ""),
        ({"index": "items", "expect_version": "v1", "timeout": 1.0}, ""),
        ({"k": 3}, "?k=3"),
        ({"k": np.int64(3), "min_score": np.float32(0.5)}, "?k=3&min_score=0.5"),
        ({"mask": "in_stock", "not_mask": "a&b", "k": 1}, "?mask=in_stock&not_mask=a%26b&k=1"),
        ({"with_embeddings": True, "min_score": -1e-07}, "?with_embeddings=true&min_score=-1e-07"),
        ({"with_embeddings": np.False_}, "?with_embeddings=false"),
        ({"after": None}, "?after="),
        ({"after": "0JpsX4Rnbj8"}, "?after=0JpsX4Rnbj8"),
    ],
)
def test_vectors_are_sent_as_bytes_and_the_rest_in_the_url(options: PageOptions, query_string: str) -> None:
    """Whatever is asked beside them, of one or of several."""
    path = f"{'/indexes/items' if 'index' in options else ''}/cos{query_string}"
    one, several = calls.search([1.0], options), calls.search_many([[1.0]], options)

    assert (path, RAW, np.float32(1).tobytes()) == (one.path, one.headers["Content-Type"], one.content)
    assert (path, NPY) == (several.path, several.headers["Content-Type"])


@pytest.mark.parametrize(
    "options", [{"exclude": []}, {"include": ["a"]}, {"exclude": np.arange(9999), "k": 1}]
)
def test_lists_of_ids_are_sent_as_json(options: PageOptions) -> None:
    """They may be longer than a URL, and an empty one says something, too."""
    one, several = calls.search([1.0], options), calls.search_many([[1.0]], options)

    assert [("/cos", JSON)] * 2 == [(each.path, each.headers["Content-Type"]) for each in (one, several)]
