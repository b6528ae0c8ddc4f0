"""When the client asks again, how long it waits, and what it makes of a refusal; as tables."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

import kosine.errors
from kosine.client.attempts import Attempts
from kosine.client.errors import UnexpectedAnswer, Unreachable, refusal
from kosine.errors import (
    DeadlineExceeded,
    DimMismatch,
    EngineFailed,
    IndexNotReady,
    KosineError,
    Overloaded,
    RequestError,
    ShuttingDown,
    ZeroVector,
)
from kosine.http.problems import problem_reply
from kosine.retries import RetryPolicy
from tests.contract.test_error_codes import refusals


class Clock:
    """Seconds, as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts_of(clock: Clock, *, timeout: float = 10.0) -> Attempts:
    policy = RetryPolicy(attempts=3, first=1.0, cap=4.0)
    return Attempts(policy, timeout=timeout, clock=clock, draw=lambda: 0.5)


def proxy(status: int, after: float | None = None) -> UnexpectedAnswer:
    return UnexpectedAnswer("not kosine", status=status, after=after)


@pytest.mark.parametrize(
    ("error", "timeout", "pause"),
    [
        (Unreachable("nothing listens"), 10.0, 0.5),
        (Overloaded("full"), 10.0, 0.5),
        (Overloaded("full", retry_after=3), 10.0, 3.5),
        (Overloaded("full", retry_after=30), 10.0, None),
        (Overloaded("full", retry_after=3), 3.2, None),
        (IndexNotReady("loading", retry_after=1), 10.0, 1.5),
        (EngineFailed("failing", retry_after=1), 10.0, 1.5),
        (ShuttingDown("stopping", retry_after=0), 10.0, 0.5),
        (DeadlineExceeded("too late"), 10.0, None),
        (ZeroVector("zeros"), 10.0, None),
        (DimMismatch("3 not 4"), 10.0, None),
        (proxy(429), 10.0, 0.5),
        (proxy(502), 10.0, 0.5),
        (proxy(503, after=2.0), 10.0, 2.5),
        (proxy(504), 10.0, None),
        (proxy(500), 10.0, None),
        (proxy(404), 10.0, None),
        (proxy(200), 10.0, None),
    ],
    ids=str,
)
def test_the_pause_before_the_next_attempt(error: KosineError, timeout: float, pause: float | None) -> None:
    """What passes is tried again, not sooner than asked for and not past the deadline; the rest is raised."""
    attempts = attempts_of(Clock(), timeout=timeout)
    if pause is None:
        with pytest.raises(type(error)):
            attempts.pause(error)
    else:
        assert pause == attempts.pause(error)


def test_pauses_grow_and_end() -> None:
    """The third failure is told."""
    attempts = attempts_of(Clock())

    assert [0.5, 1.0] == [attempts.pause(Overloaded("full")) for _ in range(2)]
    with pytest.raises(Overloaded):
        attempts.pause(Overloaded("full"))


@pytest.mark.parametrize(("passed", "told"), [(0.0, "2000"), (0.5, "1500"), (1.9995, "1")])
def test_the_service_is_told_what_is_left(passed: float, told: str) -> None:
    """Whole milliseconds of the one deadline, at least one."""
    clock = Clock()
    attempts = attempts_of(clock, timeout=2.0)
    clock.now += passed

    assert {"X-Request-Timeout-Ms": told} == attempts.headers()


def test_nothing_is_sent_after_the_deadline() -> None:
    """Neither an attempt nor a pause."""
    clock = Clock()
    attempts = attempts_of(clock, timeout=2.0)
    clock.now += 2.0

    with pytest.raises(DeadlineExceeded, match="no answer within 2 s"):
        attempts.left()
    with pytest.raises(Overloaded):
        attempts.pause(Overloaded("full"))


@pytest.mark.parametrize("kind", refusals(), ids=lambda kind: kind.code)
def test_every_refusal_arrives_as_the_class_it_was_raised_as(kind: type[RequestError]) -> None:
    """Class, text, facts and Retry-After come through; a new code needs nothing here."""
    reply = problem_reply(kind("what happened", retry_after=7, got=3), request_id="a-1")
    headers = httpx.Headers(reply.headers)

    error = refusal(reply.status, headers, reply.body)

    assert (kind, "what happened") == (type(error), error.detail)
    assert isinstance(error, RequestError)
    assert ({"got": 3, "request_id": "a-1"}, 7) == (error.facts, error.retry_after)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"<html>nginx</html>", "got HTTP 404 Not Found: '<html>nginx</html>'"),
        (502, b"", "got HTTP 502 Bad Gateway: ''"),
        (500, b"\xff\xfe" + b"x" * 1000, "got HTTP 500"),
        (299, b"[]", "got HTTP 299: '[]'"),
        (422, json.dumps({"code": "of_tomorrow", "detail": "what it says"}).encode(), "'what it says'"),
        (422, json.dumps({"code": "overloaded", "detail": "no"}).encode(), "422"),
        (400, json.dumps({"code": ["bad_k"], "status": 400}).encode(), "400"),
        (400, b'{"code": ' + b"[" * 100_000, "400"),
    ],
)
def test_what_is_no_refusal_of_kosine_is_told_as_such(status: int, body: bytes, said: str) -> None:
    """A proxy's page, a newer service's code, or a code that does not go with its status."""
    error = refusal(status, {}, body)

    assert isinstance(error, UnexpectedAnswer)
    assert status == error.status
    assert said in error.detail
    assert len(error.detail) < 1000


def test_facts_cannot_replace_what_an_error_is_made_of() -> None:
    """Whatever members a body has, an error comes of it."""
    body: dict[str, Any] = {"code": "bad_k", "detail": "no", "self": 1, "retry_after": "x", "error": None}

    error = refusal(422, {}, json.dumps(body).encode())

    assert isinstance(error, kosine.errors.BadK)
    assert {"self": 1, "error": None} == error.facts
