"""What the bench sends is what the service reads."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from kosine.bench.bodies import BodyFormat, question
from kosine.bench.endpoint import Endpoint
from kosine.bench.filters import FilterPlan
from kosine.bench.plan import BenchPlan, plan_indexes, plan_loads
from kosine.errors import StartupError
from kosine.http.bodies.formats import decoder_of

QUERY = np.random.default_rng(0).standard_normal(100)


@pytest.mark.parametrize("body", get_args(BodyFormat))
def test_every_body_asks_the_same(body: BodyFormat) -> None:
    """The vector as float32, and k."""
    asked = question(QUERY, k=7, body=body)
    decode = decoder_of({b"content-type": asked.content_type.encode()})

    request = decode(asked.body, asked.parameters.removeprefix("?").encode())

    (row,) = np.asarray(request.vectors, np.float32).reshape(1, -1)
    assert QUERY.astype(np.float32).tolist() == row.tolist()
    assert 7 == request.k


@pytest.mark.parametrize("body", ["json", "base64"])
def test_text_carries_the_filter(body: BodyFormat) -> None:
    """As the service reads it."""
    filter_ = FilterPlan(exclude=2, mask="in_stock")
    asked = question(QUERY, k=7, body=body, fields=filter_.fields(np.array([8, 3])))

    request = decoder_of({b"content-type": asked.content_type.encode()})(asked.body, b"")

    assert request.options is not None
    assert ([8, 3], "in_stock") == ([*request.options.exclude], request.options.mask)


def test_a_request_is_complete() -> None:
    """Path, parameters, type and length."""
    sent = Endpoint("127.0.0.1", 8080).request("items", question(QUERY, k=7, body="binary"))
    head, _, body = sent.partition(b"\r\n\r\n")

    assert b"POST /indexes/items/cos?k=7 HTTP/1.1" == head.split(b"\r\n")[0]
    assert b"Content-Type: application/octet-stream\r\nContent-Length: 400" in head
    assert 400 == len(body)


@pytest.mark.parametrize("body", ["binary", "npy"])
def test_wrk_sends_no_bytes(body: BodyFormat) -> None:
    """Its script reads lines."""
    with pytest.raises(StartupError, match="wrk sends text only: use --generator own"):
        BenchPlan(
            url=None,
            indexes=plan_indexes([], []),
            loads=plan_loads([], [], connections=1),
            generator="wrk",
            body=body,
        )
