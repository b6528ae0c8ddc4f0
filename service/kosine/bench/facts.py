"""What is known of an index before a load: its shape, what is asked of it, and the right answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kosine.bench.bodies import question
from kosine.bench.files import make_queries, read_file, read_mask
from kosine.bench.filters import Findable, draw_excluded
from kosine.bench.samples import Subject
from kosine.bench.truth import Truth
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from kosine.bench.bodies import Question
    from kosine.bench.endpoint import Endpoint, IndexStatus
    from kosine.bench.plan import BenchPlan, IndexPlan

__all__ = ("IndexFacts", "index_facts", "questions")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexFacts:
    """What is known of one index."""

    plan: IndexPlan
    dim: int
    rows: int | None
    metric: str
    version: str | None
    subjects: tuple[Subject | None, ...]
    """Of each kind of queries; None where a file is not known, so that answers cannot be judged."""
    excluded: NDArray[np.int64] | None
    """[queries, n]: rows that filtered queries exclude."""
    mask_rows: int | None
    """Rows that the mask of filtered queries leaves; None where there is none, or it is not known."""


def index_facts(
    plan: BenchPlan,
    index: IndexPlan,
    endpoint: Endpoint,
    *,
    file: Path | None,
    mask: Path | None,
    kinds: Sequence[bool],
) -> IndexFacts:
    """Of an index whose `file` and `mask` may be unknown; `kinds` of queries are plain or filtered."""
    status = endpoint.index(index.name)
    if status is not None and status.state != "available":
        raise StartupError(f"index {index.name} is {status.state}: expected it to be available")
    vectors = None if file is None else read_file(file)
    dim = _dim(index.name, endpoint, vectors, status)
    rows = len(vectors) if vectors is not None else (status.rows if status else None)
    metric = (status.metric if status else None) or "cosine"
    version = status.version if status else None
    excluded = _excluded(plan, index, rows)
    flags = _flags(plan, mask, rows)
    subjects: list[Subject | None] = []
    for filtered in kinds:
        findable = Findable(excluded=excluded, flags=flags) if filtered else Findable()
        if vectors is None or (filtered and _has_mask(plan) and flags is None):
            subjects.append(None)
            continue
        queries = make_queries(plan.queries, dim, seed=plan.seed)
        truth = Truth(vectors, queries, k=plan.k, metric=metric, findable=findable)
        subjects.append(Subject(index.name, truth, {version: 0}))
    return IndexFacts(
        plan=index,
        dim=dim,
        rows=rows,
        metric=metric,
        version=version,
        subjects=tuple(subjects),
        excluded=excluded,
        mask_rows=None if flags is None else int(flags.sum()),
    )


def questions(plan: BenchPlan, index: IndexFacts, *, filtered: bool) -> list[Question]:
    """What is asked of the index, in the order of its queries."""
    queries = make_queries(plan.queries, index.dim, seed=plan.seed)
    if plan.filter is None or not filtered:
        return [question(query, k=plan.k, body=plan.body) for query in queries]
    excluded = [None] * len(queries) if index.excluded is None else list(index.excluded)
    fields = [plan.filter.fields(each) for each in excluded]
    return [
        question(query, k=plan.k, body=plan.body, fields=more)
        for query, more in zip(queries, fields, strict=True)
    ]


def _has_mask(plan: BenchPlan) -> bool:
    return plan.filter is not None and plan.filter.mask_name is not None


def _excluded(plan: BenchPlan, index: IndexPlan, rows: int | None) -> NDArray[np.int64] | None:
    if plan.filter is None or not plan.filter.exclude:
        return None
    if rows is None:
        raise StartupError(
            f"--exclude: the server does not tell how many rows index {index.name} has: give its --file"
        )
    return draw_excluded(plan.filter.exclude, queries=plan.queries, rows=rows, seed=plan.seed)


def _flags(plan: BenchPlan, mask: Path | None, rows: int | None) -> NDArray[np.bool_] | None:
    """[rows]: what the mask lets pass, the way it is used."""
    if mask is None or rows is None or plan.filter is None:
        return None
    flags = read_mask(mask, rows=rows)
    return flags if plan.filter.not_mask is None else ~flags


def _dim(
    name: str, endpoint: Endpoint, vectors: NDArray[np.floating] | None, status: IndexStatus | None
) -> int:
    if vectors is None:
        if status is None or status.dim is None:
            raise StartupError(
                f"{endpoint.url} has no index {name}, or does not tell its dimension: expected the name of "
                "one in --index, or its --file"
            )
        return status.dim
    found: tuple[int, int] = vectors.shape
    if status is not None and status.dim is not None and found != (status.rows, status.dim):
        raise StartupError(
            f"index {name} has {status.rows} rows of dim {status.dim}, its --file {found[0]} of {found[1]}: "
            "expected the file that the service reads"
        )
    return found[1]
