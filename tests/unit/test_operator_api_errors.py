"""What an answer of the API server means: one row each."""

from __future__ import annotations

import json

import pytest

from kosine_operator.api_errors import (
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    Refused,
    Throttled,
    Unreachable,
    classify,
    retry_after,
)

UNDECLARED = (
    "failed to create typed patch object (shop/items; apps/v1, Kind=Deployment): "
    ".spec.replica: field not declared in schema"
)
OTHER_UID = 'Service "items" is invalid: metadata.uid: Invalid value: "1-2": field is immutable'


def answer(status: int, message: str | None = "no", **headers: str) -> ApiError:
    """As the API server writes it; without a message, as a proxy might."""
    body = b"<html>" if message is None else json.dumps({"kind": "Status", "message": message}).encode()
    return classify(status, body, headers, what="apply Service shop/items")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "bad", Refused),
        (401, "Unauthorized", Forbidden),
        (403, "exceeded quota", Forbidden),
        (404, "not found", NotFound),
        (409, "the object has been modified", Conflict),
        (422, "spec.replicas: Invalid value", Refused),
        (422, OTHER_UID, Conflict),
        (429, "too many requests", Throttled),
        (500, "etcdserver: request timed out", Unreachable),
        (500, UNDECLARED, Refused),
        (502, None, Unreachable),
        (503, None, Unreachable),
        (504, "timeout", Unreachable),
        (301, None, Unreachable),
    ],
)
def test_an_answer_has_one_meaning(status: int, message: str | None, expected: type[ApiError]) -> None:
    """What is worth another try is told from what is not, by status and, twice, by message."""
    assert expected is type(answer(status, message))


def test_the_servers_own_words_are_kept() -> None:
    """The message says what was asked and what came."""
    assert "apply Service shop/items: exceeded quota" == answer(403, "exceeded quota").message
    assert "apply Service shop/items: <html>" == answer(502, None).message
    assert (
        "apply Service shop/items: HTTP 503"
        == classify(503, b"", {}, what="apply Service shop/items").message
    )


def test_messages_are_bounded() -> None:
    """They end up in conditions, Events and logs."""
    assert len(answer(422, "x" * 100_000).message) < 1100
    assert len(classify(502, b"x" * 100_000, {}, what="get").message) < 200


@pytest.mark.parametrize(
    ("header", "expected"),
    [("7", 7.0), ("0.5", 0.5), ("99999999", 300.0), ("-1", 0.0), ("soon", 1.0), ("", 1.0)],
)
def test_retry_after_is_obeyed_within_bounds(header: str, expected: float) -> None:
    """A server cannot switch the operator off, nor make it hammer."""
    assert expected == retry_after(answer(429, **{"Retry-After": header}))


def test_other_errors_ask_for_no_pause_of_their_own() -> None:
    """The back-off of the queue is enough."""
    assert [0.0, 0.0] == [retry_after(answer(503)), retry_after(RuntimeError("defect"))]
