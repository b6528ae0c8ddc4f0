"""The corpus of files that must never be served: loader and inspection refuse each for the same reason."""

from __future__ import annotations

import ast
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import kosine
from kosine.errors import LoadError, Stage
from kosine.loading.artifact import read_matrix
from kosine.loading.inspection import inspect_source
from kosine.loading.layout import plan_matrix
from kosine.loading.local import LocalStorage
from kosine.npy.header import read_header
from kosine.source_uri import COMMAND_LINE
from tests.kit.bad_files import BadFile, bad_files
from tests.kit.npy_files import BytesReader

_CORPUS = bad_files()


def _load(content: bytes, *, layout: str = "rows", dim: int | None = None, metric: str = "cosine") -> Any:
    reader = BytesReader(content)
    plan = plan_matrix(read_header(reader), layout=layout, dim=dim)  # type: ignore[arg-type]
    return read_matrix(reader, plan, metric=metric)


def test_the_corpus_covers_its_rows_of_the_catalogue() -> None:
    """At least sixty files, from each of N1 to N7."""
    assert len(_CORPUS) >= 60
    assert {file.row for file in _CORPUS} == {f"N{number}" for number in range(1, 8)}


@pytest.mark.parametrize("file", _CORPUS, ids=str)
def test_a_bad_file_is_refused_for_its_reason(file: BadFile) -> None:
    """The refusal has the code of its fault, a message, and a stage before anything is built."""
    with pytest.raises(LoadError) as refused:
        _load(file.content, **file.options)
    assert refused.value.code == file.code
    assert refused.value.stage in {Stage.GATE, Stage.CHECK}
    assert 20 < len(refused.value.detail) < 500


@pytest.mark.parametrize("file", [file for file in _CORPUS if file.row == "N5"], ids=str)
def test_a_hostile_header_costs_neither_time_nor_memory(file: BadFile) -> None:
    """N5: refused within 50 ms of processor time and 1 MiB, whatever the header claims."""
    reader = BytesReader(file.content)
    times = []
    for _ in range(3):
        started = time.thread_time()
        with pytest.raises(LoadError):
            plan_matrix(read_header(reader), layout="rows", dim=None)
        times.append(time.thread_time() - started)
    tracemalloc.start()
    try:
        with pytest.raises(LoadError):
            plan_matrix(read_header(reader), layout="rows", dim=None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert min(times) < 0.050
    assert peak < 2**20


@pytest.mark.parametrize("file", _CORPUS, ids=str)
def test_an_inspection_names_the_same_reason(file: BadFile, tmp_path: Path) -> None:
    """`kosine inspect` with the layout that would be configured finds what the load would fail on."""
    path = tmp_path / "items.npy"
    path.write_bytes(file.content)
    options = {"layout": "rows", **file.options}
    found = inspect_source(str(path), storage=LocalStorage(COMMAND_LINE), **options)
    assert not found.good
    assert file.code in {refusal.code for refusal in found.refusals}
    assert found.suggestion is None


def test_nothing_in_the_service_can_unpickle() -> None:
    """N2: no module imports what runs code while it reads, and none leaves reading an .npy to NumPy."""
    unpicklers = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    modules = sorted(Path(kosine.__file__).parent.rglob("*.py"))
    found = {
        f"{module.name}: {name}"
        for module in modules
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        for name in _names(node)
        if name.split(".")[0] in unpicklers or name in {"np.load", "numpy.load", "eval", "exec"}
    }
    assert len(modules) > 10
    assert found == set()


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [ast.unparse(node.func)] if isinstance(node, ast.Call) else []
