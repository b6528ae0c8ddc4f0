"""`kosine inspect` on real files: what people and machines read, and the exit code."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from kosine.cli import main
from kosine.engines.search_plan import scratch_bytes
from kosine.loading.inspection import inspect_source
from kosine.loading.local import LocalStorage
from kosine.source_uri import COMMAND_LINE
from tests.kit.npy_files import npy_bytes, unit_rows

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result
    from numpy.typing import NDArray

BATCH_OF_128 = scratch_bytes(rows=200, dim=16, max_rows=128, max_k=1000)
ROWS = unit_rows(200, 16)
inspect_file = partial(inspect_source, storage=LocalStorage(COMMAND_LINE))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, so that files have short names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(path: Path, array: NDArray[Any]) -> str:
    path.write_bytes(npy_bytes(array))
    return path.name


def _kosine_inspect(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["inspect", *arguments], prog_name="kosine")


def test_a_good_file_says_all_there_is_to_know(folder: Path) -> None:
    """Version, dtype, order, shape, layout with its reason, norms of both readings, memory, configuration."""
    name = _write(folder / "My Items.npy", (3 * ROWS).astype(">f4"))
    result = _kosine_inspect(name)
    assert result.exit_code == 0
    for words in (
        "My Items.npy  good",
        "npy 1.0, >f4, C order, shape (200, 16)",
        "rows: 200 items of dim 16; no unit vectors either way; rows are usual",
        "as rows: 3 to 3, median 3",
        "as columns:",
        f"16.0 KiB matrix, {BATCH_OF_128 / 2**20:.1f} MiB for a batch of 128",
        'my-items:\n        uri: "My Items.npy"',
    ):
        assert words in result.output


def test_every_file_is_reported_and_one_bad_one_decides(folder: Path) -> None:
    """Exit code 1 says that the service would refuse a file; the others are still shown."""
    good, bad = _write(folder / "good.npy", ROWS), _write(folder / "bad.npy", ROWS[0])
    (folder / "page.npy").write_text("<html>Not Found</html>")
    result = _kosine_inspect(good, bad, "page.npy", "missing.npy")
    assert result.exit_code == 1
    for words in (
        "good.npy  good",
        "bad.npy  refused",
        "dim_required",
        "bad_magic",
        "HTML",
        "source_missing",
    ):
        assert words in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a.npy", "--layout", "diagonal"),
        ("a.npy", "--dim", "0"),
        ("a.npy", "--metric", "hamming"),
        ("a.npy", "b.npy", "--ids", "c.npy"),
        ("a.json", "--ids", "c.npy"),
    ],
)
def test_a_wrong_command_line_is_usage(arguments: tuple[str, ...]) -> None:
    """Exit code 2, and nothing is read."""
    assert _kosine_inspect(*arguments).exit_code == 2


def test_machines_get_one_json_object_a_line(folder: Path) -> None:
    """The same facts as typed JSON, refusals with code, stage and detail."""
    spoilt = ROWS.copy()
    spoilt[[4, 9]], spoilt[7] = 0.0, np.nan
    names = _write(folder / "a.npy", ROWS), _write(folder / "b.npy", spoilt)
    result = _kosine_inspect(*names, "--json")
    good, bad = (msgspec.json.decode(line) for line in result.output.splitlines())
    assert result.exit_code == 1
    assert (good["layout"], good["rows"], good["dim"], good["refusals"]) == ("rows", 200, 16, [])
    assert good["readings"][0]["unit"] is True
    assert good["memory"]["matrix"] == 4 * 16 * 256
    assert good["memory"]["scratch"] == BATCH_OF_128
    assert [(one["code"], one["stage"]) for one in bad["refusals"]] == [
        ("not_finite", "check"),
        ("zero_rows", "check"),
    ]
    assert bad["readings"][0]["zero"] == {"count": 2, "first": [4, 9]}
    assert bad["readings"][0]["not_finite"] == {"count": 1, "first": [7]}
    assert bad["suggestion"] is None


@pytest.mark.parametrize(
    ("array", "options", "layout", "reason"),
    [
        (ROWS, {}, "rows", "only as rows"),
        (ROWS.T.copy(), {}, "columns", "only as columns"),
        (np.asfortranarray(ROWS), {}, "rows", "only as rows"),
        (2 * ROWS.T, {}, "rows", "with more dimensions than rows think of columns"),
        (2 * ROWS, {"dim": 200}, "columns", "the only reading that fits"),
        (np.eye(16), {}, "rows", "unit vectors as rows and as columns"),
        (np.ones((2, 65_537)), {}, "columns", "the only reading that fits"),
        (ROWS.T.ravel(), {"dim": 16}, "transposed", "a flat array, read dim-major"),
        (2 * ROWS, {"layout": "columns"}, "columns", "as given"),
    ],
)
def test_a_layout_is_guessed_with_a_reason(
    folder: Path, array: NDArray[Any], options: dict[str, Any], layout: str, reason: str
) -> None:
    """Norms decide first, then what fits, then what is usual."""
    found = inspect_file(_write(folder / "x.npy", array), **options)
    assert found.refusals == []
    assert found.layout == layout
    assert reason in (found.reason or "")


@pytest.mark.parametrize(
    ("array", "options", "code"),
    [
        (ROWS.T.copy(), {"layout": "rows"}, "layout_mismatch"),
        (ROWS.ravel(), {"dim": 16}, "layout_mismatch"),
        (2 * ROWS.T.ravel(), {"dim": 16}, "layout_unproven"),
        (ROWS.ravel(), {}, "dim_required"),
        (ROWS, {"layout": "rows", "dim": 17}, "dim_not_declared"),
        (ROWS, {"layout": "transposed", "dim": 16}, "bad_shape"),
        (ROWS.reshape(4, 50, 16), {}, "bad_shape"),
    ],
)
def test_what_the_file_contradicts_is_refused(
    folder: Path, array: NDArray[Any], options: dict[str, Any], code: str
) -> None:
    """A layout that was asked for, or a flat file, is judged as a load would judge it."""
    found = inspect_file(_write(folder / "x.npy", array), **options)
    assert [refusal.code for refusal in found.refusals] == [code]


def test_dot_accepts_zero_rows(folder: Path) -> None:
    """What is refused depends on the metric, as it does in the service."""
    rows = ROWS.copy()
    rows[5] = 0.0
    name = _write(folder / "x.npy", rows)
    assert [refusal.code for refusal in inspect_file(name).refusals] == ["zero_rows"]
    assert inspect_file(name, metric="dot").good


@pytest.mark.parametrize(
    ("ids", "codes"),
    [
        (np.arange(200), []),
        (np.arange(199), ["ids_length"]),
        (np.zeros(200, np.int64), ["ids_duplicate"]),
        (np.arange(200.0), ["dtype_not_allowed"]),
    ],
)
def test_ids_are_checked_with_their_file(folder: Path, ids: NDArray[Any], codes: list[str]) -> None:
    """N10: the pair is one unit."""
    found = inspect_file(_write(folder / "x.npy", ROWS), ids=_write(folder / "ids.npy", ids))
    assert [refusal.code for refusal in found.refusals] == codes
    assert found.ids == ("<i8" if not codes else None)


def test_masks_are_checked_with_their_file(folder: Path) -> None:
    """How many are true, and every fault; the suggestion names them."""
    vectors, flags = _write(folder / "items.npy", ROWS), np.arange(200) < 30
    good, bad = _write(folder / "good.npy", flags), _write(folder / "bad.npy", flags[1:])
    found = inspect_file(vectors, masks={"good": good})
    assert ([], {"good": 30}) == (found.refusals, found.masks)
    assert {"good": good} == yaml.safe_load(found.suggestion or "")["indexes"]["items"]["masks"]
    assert {"good": None} == inspect_file(vectors, masks={"good": good}, header_only=True).masks
    both = inspect_file(vectors, masks={"bad": bad, "good": good})
    assert (["mask_length"], {"good": 30}) == ([each.code for each in both.refusals], both.masks)

    told = _kosine_inspect(vectors, "--mask", f"in_stock={good}")
    assert (0, True) == (told.exit_code, "in_stock, true for 30 of 200 rows" in told.output)


def test_the_suggestion_is_yaml_that_says_what_was_asked_for(folder: Path) -> None:
    """It can be pasted: any file name, layout, dim, ids and metric."""
    name = _write(folder / 'a "b": #c.npy', ROWS.T.ravel())
    ids = _write(folder / "ids.npy", np.arange(200))
    found = inspect_file(name, dim=16, ids=ids, metric="dot")
    assert found.suggestion is not None
    assert found.suggestion.startswith("# not from a configuration file: ")
    assert yaml.safe_load(found.suggestion) == {
        "indexes": {"a-b-c": {"uri": name, "layout": "transposed", "dim": 16, "ids": ids, "metric": "dot"}}
    }


def test_what_a_configuration_file_may_name_is_suggested_without_remark(folder: Path) -> None:
    """The usual case: nothing but YAML to paste."""
    found = inspect_file(_write(folder / "items.npy", ROWS))
    assert found.suggestion is not None
    assert found.suggestion.startswith("indexes:")


def test_progress_reaches_all_there_is_to_read(folder: Path) -> None:
    """Every byte once, also of a flat file, which has two readings."""
    for array, dim in ((ROWS, None), (ROWS.T.ravel(), 16)):
        name = _write(folder / "x.npy", array)
        seen: list[tuple[int, int]] = []
        inspect_file(name, dim=dim, progress=lambda *now, seen=seen: seen.append(now))
        size = (folder / "x.npy").stat().st_size
        assert seen[-1] == (size, size)
        assert seen == sorted(seen)


def test_a_file_name_that_is_no_utf8_is_still_reported(folder: Path) -> None:
    """A path is bytes; output is not."""
    name = b"caf\xe9.npy".decode(errors="surrogateescape")
    (folder / name).write_bytes(npy_bytes(ROWS))
    for extra in ((), ("--json",)):
        result = _kosine_inspect(name, *extra)
        assert result.exit_code == 0
        assert "caf?.npy" in result.output


@pytest.mark.parametrize("dim", [3, 7, 600])
def test_both_readings_of_a_flat_file_are_those_of_numpy(folder: Path, dim: int) -> None:
    """Runs that a chunk begins in the middle of are not lost."""
    flat = np.random.default_rng(dim).standard_normal(9_000 // dim * dim)
    found = inspect_file(_write(folder / "x.npy", flat), dim=dim)
    for reading, items in zip(found.readings, (flat.reshape(dim, -1).T, flat.reshape(-1, dim)), strict=True):
        norms = np.linalg.norm(items, axis=1)
        assert reading.norms is not None
        assert pytest.approx((norms.min(), np.median(norms), norms.max()), rel=1e-6) == (
            reading.norms.low,
            reading.norms.median,
            reading.norms.high,
        )


# ---- manifests ----


def _manifest(folder: Path, array: NDArray[Any], **changes: Any) -> str:
    """A manifest of `array` and its ids, as `kosine publish` writes it but for `changes`."""
    vectors, ids = npy_bytes(array), npy_bytes(np.arange(200))
    (folder / "v.npy").write_bytes(vectors)
    (folder / "i.npy").write_bytes(ids)
    sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in (("vectors", vectors), ("ids", ids))}
    plain = {"vectors": "v.npy", "ids": "i.npy", "sha256": sha256, "rows": 200, "dim": 16} | changes
    (folder / "items.json").write_text(
        json.dumps({name: value for name, value in plain.items() if value is not None})
    )
    return "items.json"


def test_a_manifest_is_inspected_with_what_it_names(folder: Path) -> None:
    """Vectors, ids, their digests; the configuration names the manifest."""
    result = _kosine_inspect(_manifest(folder, ROWS))
    assert 0 == result.exit_code
    for words in ("items.json  good", "v.npy", "i.npy", "200 items of dim 16", "each once", "uri: "):
        assert words in result.output
    assert "ids:" not in result.output[result.output.index("indexes:") :]


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"dim": 17}, ["bad_manifest"]),
        ({"rows": 199}, ["bad_manifest"]),
        ({"vectors": "../v.npy"}, ["bad_manifest"]),
        ({"vectors": "gone.npy"}, ["source_missing"]),
        ({"ids": "gone.npy"}, ["source_missing"]),
        ({"sha256": {"vectors": "0" * 64}}, ["digest_mismatch"]),
        ({"sha256": {"ids": "0" * 64}}, ["digest_mismatch"]),
        ({"sha256": None}, []),
        ({"ids": None, "sha256": None}, []),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    folder: Path, changes: dict[str, Any], codes: list[str]
) -> None:
    """With the code that a load would give."""
    found = inspect_file(_manifest(folder, ROWS, **changes))
    assert codes == [refusal.code for refusal in found.refusals]


def test_a_manifest_tells_what_its_vectors_do_not(folder: Path) -> None:
    """The dimension of a flat file; which axis is an item where norms do not say."""
    flat = inspect_file(_manifest(folder, ROWS.T.ravel()))
    assert ("transposed", 16, True) == (flat.layout, flat.dim, flat.good)
    assert ("columns", 200) == (
        (found := inspect_file(_manifest(folder, 2 * ROWS.T))).layout,
        found.rows,
    )


def test_headers_only_reads_headers_only(folder: Path) -> None:
    """What a load checks first, and no word about values or of what to configure."""
    spoilt = ROWS.copy()
    spoilt[3] = 0
    name = _manifest(folder, spoilt)
    result = _kosine_inspect(name, "--header-only")
    assert (0, True) == (result.exit_code, "header good, values not read" in result.output)
    assert "indexes:" not in result.output
    found = inspect_file(name, header_only=True)
    assert ("rows", 200, 16, "<i8", []) == (found.layout, found.rows, found.dim, found.ids, found.readings)
    (folder / "v.npy").write_bytes((folder / "v.npy").read_bytes()[:-1])
    assert 1 == _kosine_inspect(name, "--header-only").exit_code
