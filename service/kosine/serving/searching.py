"""Answers a request from one version: the way of every door, and the only one.

Rows are checked before the queue and queued together, so they count against its bounds like rows of several
callers, and may share batches with those or be spread over several. All belong to the version of the lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from kosine.errors import DimMismatch, InvalidValue, RequestError, TooManyRows
from kosine.serving.batch import Answer
from kosine.serving.query import check_k, to_query
from kosine.serving.request import SearchRequest, SearchResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from numpy.typing import NDArray

    from kosine.serving.version import Version

__all__ = ("Terms", "search")

_SHOWN = 10


class Terms(msgspec.Struct, kw_only=True):
    """What a caller says of the answer rather than of the query."""

    deadline: float
    """In the time of the loop."""
    abandoned: Callable[[], bool]
    """Whether the client has gone."""
    lenient: bool = False
    """Whether good queries of a list are answered though others are refused."""


async def search(version: Version, request: SearchRequest, terms: Terms) -> SearchResult:
    """Answer `request`; the caller holds a lease on `version`.

    Raises RequestError where the whole is refused: for the first refused row, unless `terms` are lenient.
    """
    if request.many is None:
        request = _cut(request, version)
    if request.many:
        return await _search_many(version, request, terms)
    row = _to_query(version, request.vectors[0])
    k = version.settings.k if request.k is None else request.k
    check_k(k, max_k=version.settings.max_k)
    answer = await version.batcher.search(row, k, deadline=terms.deadline, abandoned=terms.abandoned)
    return SearchResult(version=version.info.version, outcomes=[answer])


async def _search_many(version: Version, request: SearchRequest, terms: Terms) -> SearchResult:
    vectors = request.vectors
    _check_count(len(vectors), version)
    k = check_k(version.settings.k if request.k is None else request.k, max_k=version.settings.max_k)
    good, refused = _checked(version, vectors)
    if refused and not terms.lenient:
        _refuse(refused)
    answers = await version.batcher.search_all(
        good.values(), k, deadline=terms.deadline, abandoned=terms.abandoned
    )
    outcomes: dict[int, Answer | Exception] = {**refused, **dict(zip(good, answers, strict=True))}
    result = SearchResult(
        version=version.info.version,
        outcomes=[_outcome(outcomes[row]) for row in range(len(vectors))],
        many=True,
    )
    if result.errors and not terms.lenient:
        _refuse(result.errors)
    return result


def _cut(request: SearchRequest, version: Version) -> SearchRequest:
    """Numbers end to end have no other boundaries than the dimension."""
    flat, dim = np.asarray(request.vectors), version.info.dim
    if len(flat) == dim:
        return SearchRequest(vectors=(flat,), k=request.k)
    if not len(flat) or len(flat) % dim:
        raise DimMismatch(
            f"expected a multiple of {dim} numbers, got {len(flat)}",
            expected=dim,
            got=len(flat),
            version=version.info.version,
        )
    return SearchRequest(vectors=flat.reshape(-1, dim), many=True, k=request.k)


def _check_count(rows: int, version: Version) -> None:
    if not rows:
        raise InvalidValue("expected at least one query, got an empty list", path="$.embeddings")
    most = min(version.settings.max_query_rows, version.batcher.queue_limit)
    if rows > most:
        raise TooManyRows(
            f"expected at most {most} queries in one request, got {rows}; send them in several, or raise "
            "max_query_rows and batch.queue_rows",
            limit=most,
            got=rows,
        )


def _checked(
    version: Version, vectors: Sequence[list[float] | NDArray[np.float32]] | NDArray[np.float32]
) -> tuple[dict[int, NDArray[np.float32]], dict[int, RequestError]]:
    """Rows that can be scored and refusals of the others, by position."""
    good: dict[int, NDArray[np.float32]] = {}
    refused: dict[int, RequestError] = {}
    for row, values in enumerate(vectors):
        try:
            good[row] = _to_query(version, values)
        except RequestError as error:
            refused[row] = error
    return good, refused


def _to_query(version: Version, values: list[float] | NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        return to_query(values, dim=version.info.dim, metric=version.info.metric)
    except DimMismatch as error:
        error.facts["version"] = version.info.version
        raise


def _outcome(outcome: Answer | Exception) -> Answer | RequestError:
    """What belongs to one row; whatever else came concerns the whole request."""
    if isinstance(outcome, Answer | RequestError):
        return outcome
    raise outcome


def _refuse(refused: dict[int, RequestError]) -> NoReturn:
    """Refuse the whole for its first bad row, and name all of them."""
    row, error = min(refused.items())
    rows = sorted(refused)
    whole = type(error)(
        f"query {row}: {error.detail} ({len(rows)} of the queries are refused; `Prefer: handling=lenient` "
        "answers the others)",
        retry_after=error.retry_after,
        **error.facts,
        rows=rows[:_SHOWN],
    )
    raise whole from error.__cause__
