"""What a caller is told: a refusal as the class that the service raised, and what can go wrong on the way.

A refusal is known by its `code` alone. Its class is the one of `kosine.errors`, so that the two sides cannot
drift apart: `except kosine.errors.Overloaded` means the same here and there.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

import kosine.errors
from kosine.errors import KosineError, RequestError
from kosine.retries import retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("UnexpectedAnswer", "Unreachable", "refusal", "wait_asked_for")

_REFUSALS: dict[str, type[RequestError]] = {
    each.code: each
    for each in vars(kosine.errors).values()
    if isinstance(each, type) and issubclass(each, RequestError) and each is not RequestError
}
_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "retry_after"})
_SHOWN = 200


class Unreachable(KosineError):
    """No answer: the name does not resolve, nothing listens, or the connection broke."""


class UnexpectedAnswer(KosineError):
    """An answer that no kosine of this version gives: from a proxy, another server, or a newer service."""

    def __init__(self, detail: str, *, status: int, after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.after = after


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> RequestError | UnexpectedAnswer:
    """The error that an answer other than 200 stands for. `headers` has lower-case names."""
    after = retry_after(headers.get("retry-after"), now=datetime.now(UTC))
    problem = _problem(body)
    error = _refusal(status, problem, after) or UnexpectedAnswer(
        f"expected an answer of kosine, got HTTP {_named(status)}: {_said(problem, body)!r}; right URL?",
        status=status,
        after=after,
    )
    error.facts.update({name: value for name, value in problem.items() if name not in _MEMBERS})
    return error


def wait_asked_for(error: Exception) -> tuple[bool, float | None]:
    """Whether the service asks to come again after this error, and in how many seconds at the earliest.

    >>> wait_asked_for(kosine.errors.Overloaded("full", retry_after=2))
    (True, 2.0)
    >>> wait_asked_for(kosine.errors.ZeroVector("zeros"))
    (False, None)
    """
    if isinstance(error, RequestError):
        again = error.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
        return again, None if error.retry_after is None else float(error.retry_after)
    if isinstance(error, UnexpectedAnswer):
        # What a proxy answers while the pods behind it are replaced.
        return error.status in {
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.BAD_GATEWAY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        }, error.after
    return isinstance(error, Unreachable), None


def _problem(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _refusal(status: int, problem: dict[str, Any], after: float | None) -> RequestError | None:
    kind = _REFUSALS.get(str(problem.get("code")))
    if kind is None or kind.status != status:
        return None
    return kind(str(problem.get("detail", "")), retry_after=None if after is None else math.ceil(after))


def _said(problem: dict[str, Any], body: bytes) -> str:
    return str(problem.get("detail") or body[:_SHOWN].decode("utf-8", "replace"))[:_SHOWN]


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
