"""The whole service on a file past the sizes where 32-bit arithmetic and TensorFlow's graphs end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.kit.process import kosine_serve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_file_over_2_gib_is_served_to_its_last_row(tmp_path: Path) -> None:
    """N8: 1.5M x 384 float32 in a sparse file; the rows that are not zero are found where they stand."""
    rows, dim = 1_500_000, 384
    path = tmp_path / "items.npy"
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    places = {rows - 1: 0, 1_399_999: 1, 0: 2}
    for row, axis in places.items():
        matrix[row, axis] = 2.0
    matrix.flush()
    del matrix
    assert path.stat().st_size > 2**31

    with kosine_serve("--index", f"items={path}", "--set", "indexes.items.metric=dot") as service:
        service.wait_ready(within=120)
        for row, axis in places.items():
            embedding = [0.0] * dim
            embedding[axis] = 0.5
            found = httpx.post(
                f"{service.url}/indexes/items/cos", json={"embedding": embedding, "k": 2}, timeout=30
            ).json()["result"]

            lowest_of_the_rest = 1 if row == 0 else 0
            assert [[row, 1.0], [lowest_of_the_rest, 0.0]] == found
