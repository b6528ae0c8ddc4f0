"""`kosine inspect` and `kosine publish` judge invalid rows as the service does that is configured so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kosine.cli import main
from kosine.errors import LoadError
from kosine.loading.artifact import read_matrix
from kosine.loading.inspection import inspect_source
from kosine.loading.layout import plan_matrix
from kosine.loading.local import LocalStorage
from kosine.npy.header import read_header
from kosine.source_uri import COMMAND_LINE
from tests.kit.npy_files import npy_bytes, unit_rows

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result
    from numpy.typing import NDArray

ROWS, DIM = 12, 4
STORAGE = LocalStorage(COMMAND_LINE)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspect") / "items.npy"


def loaded(path: Path, *, layout: Any, metric: str, drop: bool) -> tuple[str | None, int]:
    """The code that a load refuses it with, and rows that it left out."""
    with STORAGE.open(str(path), STORAGE.fingerprint(str(path))) as reader:
        plan = plan_matrix(read_header(reader), layout=layout, dim=DIM if layout == "transposed" else None)
        try:
            artifact = read_matrix(reader, plan, metric=metric, drop_invalid=drop)
        except LoadError as error:
            return error.code.value, 0
    return None, plan.rows - artifact.matrix.rows


def array(*, scale: float, bad: list[tuple[int, str]], layout: str) -> NDArray[np.float32]:
    rows = scale * unit_rows(ROWS, DIM).astype(np.float32)
    for row, what in bad:
        if what == "zero":
            rows[row] = 0.0
        else:
            rows[row, row % DIM] = np.float32(what)
    return {"rows": rows, "columns": rows.T, "transposed": rows.T.reshape(-1)}[layout]


@given(
    scale=st.sampled_from([1.0, 3.0]),
    bad=st.lists(
        st.tuples(st.integers(0, ROWS - 1), st.sampled_from(["zero", "nan", "inf"])), max_size=ROWS * 2
    ),
    layout=st.sampled_from(["rows", "columns", "transposed"]),
    metric=st.sampled_from(["cosine", "dot"]),
    invalid_rows=st.sampled_from(["refuse", "drop"]),
)
def test_an_inspection_says_what_a_load_does(
    path: Path,
    scale: float,
    bad: list[tuple[int, str]],
    layout: Literal["rows", "columns", "transposed"],
    metric: Literal["cosine", "dot"],
    invalid_rows: Literal["refuse", "drop"],
) -> None:
    """The same first refusal, or the same number of rows left out, whatever is in the file."""
    path.write_bytes(npy_bytes(array(scale=scale, bad=bad, layout=layout)))
    code, dropped = loaded(path, layout=layout, metric=metric, drop=invalid_rows == "drop")
    found = inspect_source(
        str(path),
        storage=STORAGE,
        layout=layout,
        dim=DIM if layout == "transposed" else None,
        metric=metric,
        invalid_rows=invalid_rows,
    )
    codes = [refusal.code for refusal in found.refusals]
    assert (code is None) == (codes == []), (code, codes)
    assert code is None or code in codes
    assert found.good is False or dropped == (found.dropped or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a file that lacks two rows of 200, to be in."""
    monkeypatch.chdir(tmp_path)
    rows = 3 * unit_rows(200, 16).astype(np.float32)
    rows[3], rows[7, 0] = 0.0, np.nan
    (tmp_path / "items.npy").write_bytes(npy_bytes(rows))
    return tmp_path


def kosine(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="kosine")


def test_inspect_says_how_many_rows_are_left_out_and_how_to_configure_that(folder: Path) -> None:
    """Good with the option, refused without."""
    assert folder.exists()
    assert 1 == kosine("inspect", "items.npy").exit_code
    result = kosine("inspect", "items.npy", "--invalid-rows", "drop")
    assert 0 == result.exit_code, result.output
    assert "2 of 200 rows are left out" in result.output
    assert "invalid_rows: drop" in result.output
    found = json.loads(kosine("inspect", "items.npy", "--invalid-rows", "drop", "--json").output)
    assert (2, 200) == (found["dropped"], found["rows"])


def test_publish_takes_them_and_says_how_to_configure_that(folder: Path) -> None:
    """The file is published as it is."""
    (folder / "served").mkdir()
    assert 1 == kosine("publish", "items.npy", "served").exit_code
    result = kosine("publish", "items.npy", "served", "--invalid-rows", "drop")
    assert 0 == result.exit_code, result.output
    served = yaml.safe_load(result.output.partition("configuration file:\n")[2])
    assert "drop" == served["indexes"]["items"]["invalid_rows"]
    published = next((folder / "served").glob("items-*.npy"))
    assert (folder / "items.npy").read_bytes() == published.read_bytes()
