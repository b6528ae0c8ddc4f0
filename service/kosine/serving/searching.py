"""Answers a request from one version: the way of every door, and the only one.

Rows are checked before the queue and queued together, so they count against its bounds like rows of several
callers, and may share batches with those or be spread over several. All belong to the version of the lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import structs

from kosine.errors import DimMismatch, InvalidValue, RequestError, TooManyRows
from kosine.serving.batch import Answer
from kosine.serving.cursors import Walk
from kosine.serving.query import check_k, to_query
from kosine.serving.request import SearchRequest, SearchResult
from kosine.serving.resolving import resolve_ids, resolve_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from numpy.typing import NDArray

    from kosine.serving.item_ids import Ids
    from kosine.serving.options import RowOptions
    from kosine.serving.query import Vector
    from kosine.serving.request import SearchOptions
    from kosine.serving.version import Version

__all__ = ("Terms", "search")

_SHOWN = 10

Row = tuple["NDArray[np.float32] | None", "RowOptions | None"]


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
    if request.ids_as_text:
        request = _typed(request, version)
    if request.many is None:
        request = _cut(request, version)
    if request.many:
        return await _search_many(version, request, terms)
    if request.ids is None:
        query = _to_query(version, request.vectors[0])
        options = None if request.options is None else _resolved(version, request.options)
    else:
        query, options = None, _only(resolve_ids(request.ids, request.options, version.ids, version.masks))
    if options is not None and options.answered_apart:
        return await _search_apart(version, request, terms, (query, options))
    answer = await version.batcher.search(
        query, _k(version, request), deadline=terms.deadline, abandoned=terms.abandoned, options=options
    )
    return SearchResult(version=version.info.version, outcomes=[answer])


async def _search_apart(
    version: Version, request: SearchRequest, terms: Terms, row: tuple[NDArray[np.float32] | None, RowOptions]
) -> SearchResult:
    """A page, or the scores of given items."""
    (query, options), cursor = row, None if request.options is None else request.options.after
    walk = Walk(version=version.info.version, metric=version.info.metric, query=query, options=options)
    if cursor:
        options = structs.replace(options, after=walk.place(cursor))
    k = _k(version, request) if options.scored is None else max(1, len(options.scored))
    answer = await version.batcher.search(
        query, k, deadline=terms.deadline, abandoned=terms.abandoned, options=options
    )
    result = SearchResult(version=version.info.version, outcomes=[answer])
    if cursor is not None:
        result.next = "" if answer.last is None else walk.cursor(answer.last)
    return result


def _k(version: Version, request: SearchRequest) -> int:
    return check_k(version.settings.k if request.k is None else request.k, max_k=version.settings.max_k)


async def _search_many(version: Version, request: SearchRequest, terms: Terms) -> SearchResult:
    if request.options is not None and request.options.after is not None:
        raise InvalidValue(
            "expected `after` only beside one query: each has pages of its own", path="$.after"
        )
    k = _k(version, request)
    rows = _rows_by_id(version, request) if request.ids is not None else _rows(version, request)
    good = {at: row for at, row in enumerate(rows) if not isinstance(row, RequestError)}
    refused = {at: row for at, row in enumerate(rows) if isinstance(row, RequestError)}
    if refused and not terms.lenient:
        _refuse(refused)
    answers = await version.batcher.search_all(
        good.values(), k, deadline=terms.deadline, abandoned=terms.abandoned
    )
    outcomes: dict[int, Answer | Exception] = {**refused, **dict(zip(good, answers, strict=True))}
    result = SearchResult(
        version=version.info.version,
        outcomes=[_outcome(outcomes[row]) for row in range(len(rows))],
        many=True,
    )
    if result.errors and not terms.lenient:
        _refuse(result.errors)
    return result


def _rows(version: Version, request: SearchRequest) -> list[Row | RequestError]:
    """Each query as it can be queued, or why not."""
    _check_count(len(request.vectors), version)
    options = None if request.options is None else _resolved(version, request.options)
    rows: list[Row | RequestError] = []
    for values in request.vectors:
        try:
            rows.append((_to_query(version, values), options))
        except RequestError as error:
            rows.append(error)
    return rows


def _rows_by_id(version: Version, request: SearchRequest) -> list[Row | RequestError]:
    ids = request.ids or ()
    _check_count(len(ids), version)
    found = resolve_ids(ids, request.options, version.ids, version.masks)
    return [each if isinstance(each, RequestError) else (None, each) for each in found]


def _resolved(version: Version, options: SearchOptions) -> RowOptions:
    return resolve_options(options, version.ids, version.masks)


def _typed(request: SearchRequest, version: Version) -> SearchRequest:
    """Only the version knows whether an id is a number."""

    def typed(ids: Ids | None) -> Sequence[int | str] | None:
        return None if ids is None else [version.ids.typed(str(each)) for each in ids]

    options = request.options
    if options is not None:
        options = structs.replace(
            options, exclude=typed(options.exclude) or (), include=typed(options.include)
        )
    return structs.replace(request, ids=typed(request.ids), options=options)


def _only(resolved: list[RowOptions | RequestError]) -> RowOptions:
    [options] = resolved
    if isinstance(options, RequestError):
        raise options
    return options


def _cut(request: SearchRequest, version: Version) -> SearchRequest:
    """Numbers end to end have no other boundaries than the dimension."""
    flat, dim = np.asarray(request.vectors), version.info.dim
    if not len(flat) or len(flat) % dim:
        raise DimMismatch(
            f"expected a multiple of {dim} numbers, got {len(flat)}",
            expected=dim,
            got=len(flat),
            version=version.info.version,
        )
    return structs.replace(request, vectors=flat.reshape(-1, dim), many=len(flat) > dim)


def _check_count(rows: int, version: Version) -> None:
    if not rows:
        raise InvalidValue("expected at least one query, got an empty list")
    most = min(version.settings.max_query_rows, version.batcher.queue_limit)
    if rows > most:
        raise TooManyRows(
            f"expected at most {most} queries in one request, got {rows}; send them in several, or raise "
            "max_query_rows and batch.queue_rows",
            limit=most,
            got=rows,
        )


def _to_query(version: Version, values: Vector) -> NDArray[np.float32]:
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
    rows = sorted(refused)
    error = refused[rows[0]]
    whole = type(error)(
        f"query {rows[0]}: {error.detail} ({len(rows)} of the queries refused; `Prefer: handling=lenient` "
        "answers the others)",
        retry_after=error.retry_after,
        **error.facts,
        rows=rows[:_SHOWN],
    )
    raise whole from error.__cause__
