"""`kosine query` against a service: what it prints and how it ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from kosine.cli import main
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    """One query, nearest to the second axis."""
    np.save(tmp_path / "query.npy", np.array([1.0, 2.0, 0.0, 0.0]))
    return tmp_path / "query.npy"


async def query(*arguments: str | Path) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, ["query", *map(str, arguments)])


async def test_an_answer_is_a_table(vector: Path) -> None:
    """Place, id and score, best first, and the version."""
    async with http_service() as service:
        service.publish(ids=np.array(["apple", "pear", "[plum]", "quince"]))
        done = await query("items", "--vector", vector, "--k", "3", "--url", service.url)

    assert 0 == done.exit_code, done.output
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert [["1", "pear", "0.894427"], ["2", "apple", "0.447214"], ["3", "[plum]", "0.000000"]] == rows[2:5]
    assert ["version", "v1"] == rows[-1]


async def test_each_row_of_a_file_is_a_query(tmp_path: Path) -> None:
    """With --json an object a line; ids keep their type; without NAME the default index answers."""
    np.save(tmp_path / "queries.npy", np.eye(4, dtype=np.float16)[[2, 0]])
    async with http_service() as service:
        service.publish(ids=np.array([10, 11, 12, 13]))
        service.default_index = "items"
        done = await query("--vector", tmp_path / "queries.npy", "--k", "1", "--json", "--url", service.url)

    assert 0 == done.exit_code, done.output
    assert [
        {"result": [[12, 1.0]], "version": "v1"},
        {"result": [[10, 1.0]], "version": "v1"},
    ] == [json.loads(line) for line in done.stdout.splitlines()]


async def test_an_item_is_a_query_by_its_id() -> None:
    """Itself left out, and what is excluded; numbers are texts where they are told to be."""
    stored = np.array([[4, 0, 0, 0], [3, 1, 0, 0], [2, 2, 0, 0], [1, 3, 0, 0]])
    async with http_service() as service:
        service.publish(engine=NumpyEngine(matrix=matrix_of(stored)), masks={"even": [1, 0, 1, 0]})
        service.publish(
            "named", engine=NumpyEngine(matrix=matrix_of(stored)), ids=np.array(["7", "8", "9", "x"])
        )
        url = ("--json", "--url", service.url)
        by_number = await query("items", "--id", "1", "--exclude", "2", "--k", "2", *url)
        several = await query("items", "--id", "1", "--id", "3", "--min-score", "0.9", "--url", service.url)
        masked = await query("items", "--id", "1", "--mask", "even", *url)
        negated = await query("items", "--id", "1", "--not-mask", "even", *url)
        by_text = await query("named", "--id", "x", *url)
        like_numbers = await query("named", "--id", "7", "--text-ids", "--k", "1", *url)
        wrong = await query("named", "--id", "7", *url)

    assert [0, 3] == [item for item, _ in json.loads(by_number.stdout)["result"]]
    assert ["1", "3"] == [line.strip() for line in several.stdout.splitlines() if line.strip() in {"1", "3"}]
    assert [[0, 2], [3]] == [
        [item for item, _ in json.loads(each.stdout)["result"]] for each in (masked, negated)
    ]
    assert ["9", "8", "7"] == [item for item, _ in json.loads(by_text.stdout)["result"]]
    assert ["8"] == [item for item, _ in json.loads(like_numbers.stdout)["result"]]
    assert (1, True) == (wrong.exit_code, "ids of this index are texts" in wrong.stderr)


async def test_all_that_can_be_found_comes_page_by_page(vector: Path, tmp_path: Path) -> None:
    """A line or a table a page, places counted through; of one query only."""
    np.save(tmp_path / "two.npy", np.eye(4)[:2])
    async with http_service() as service:
        service.publish()
        url = ("--url", service.url)
        lines = await query("items", "--id", "1", "--all", "--k", "2", "--json", *url)
        tables = await query("items", "--vector", vector, "--all", "--k", "3", *url)
        among = await query("items", "--vector", vector, "--include", "3", "--include", "0", "--json", *url)
        several = await query("items", "--vector", tmp_path / "two.npy", "--all", *url)

    assert [[0, 2], [3]] == [
        [item for item, _ in json.loads(line)["result"]] for line in lines.stdout.splitlines()
    ]
    rows = [line.split() for line in tables.stdout.splitlines()]
    assert [["1", "1"], ["2", "0"], ["3", "2"], ["4", "3"]] == [row[:2] for row in rows if len(row) == 3]
    assert [0, 3] == [item for item, _ in json.loads(among.stdout)["result"]]
    assert (2, True) == (several.exit_code, "expected one query with --all, got 2" in several.stderr)


@pytest.mark.parametrize("both", [True, False])
async def test_an_item_or_a_vector_is_needed(vector: Path, both: bool) -> None:
    """And not both."""
    done = await query("items", *(("--id", "1", "--vector", vector) if both else ()))

    assert (2, True) == (done.exit_code, "expected --id or --vector, and not both" in done.stderr)


async def test_a_refusal_is_told_with_its_code(vector: Path) -> None:
    """One message, exit code 1."""
    async with http_service() as service:
        done = await query("other", "--vector", vector, "--url", service.url)

    assert 1 == done.exit_code
    assert done.stderr.startswith("Error: unknown_index: no index other is configured")


async def test_a_service_that_is_not_there_is_told_as_such(vector: Path) -> None:
    """With the place that was tried."""
    done = await query("items", "--vector", vector, "--url", f"http://127.0.0.1:{free_port()}")

    assert (1, "") == (done.exit_code, done.stdout)
    assert "no answer from http://127.0.0.1:" in done.stderr


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (b"", "expected an .npy file, made by np.save; it is empty"),
        (b"1.0 2.0", "expected an .npy file, made by np.save"),
        (np.ones((2, 2, 2)), "expected shape (d,) or (n, d), got (2, 2, 2)"),
        (np.array(["a"]), "expected float16, float32 or float64"),
    ],
)
async def test_a_file_that_holds_no_vectors_is_refused(
    saved: bytes | np.ndarray[tuple[int, ...], np.dtype[np.generic]], said: str, tmp_path: Path
) -> None:
    """Before anything is sent; exit code 2."""
    path = tmp_path / "bad.npy"
    if isinstance(saved, bytes):
        path.write_bytes(saved)
    else:
        np.save(path, saved)

    done = await query("items", "--vector", path)

    assert (2, "") == (done.exit_code, done.stdout)
    assert said in done.stderr


async def test_a_url_that_is_none_is_refused(vector: Path) -> None:
    """Exit code 2, as for any other option."""
    done = await query("items", "--vector", vector, "--url", "localhost:8080")

    assert (2, "") == (done.exit_code, done.stdout)
    assert "--url: expected http://HOST:PORT or https://HOST, got 'localhost:8080'" in done.stderr


def test_without_httpx_the_message_names_what_to_install(vector: Path) -> None:
    """The service runs without the client's extra."""
    code = "import sys; sys.modules['httpx'] = None; from kosine.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "query", "--vector", vector],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, "") == (done.returncode, done.stdout)
    assert "httpx is not installed; run: pip install 'kosine[client]'" in done.stderr
