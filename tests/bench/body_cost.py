"""What a query costs the service by how it is written: `python -m tests.bench.body_cost`.

Two tables for each dimension, in microseconds of CPU: parsing alone, from the bytes of a body to the row that
is queued, and a whole request through the application, everything but the socket and the search included.
The best of several rounds, formats in turn, since the machine is never quiet.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from kosine.bench.bodies import BodyFormat, Question, question
from kosine.http.bodies.formats import decoder_of
from kosine.serving.query import to_query
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import service_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.http.asgi import ASGIApp, Message

DIMS = (100, 512, 1024, 2048)
FORMATS: tuple[BodyFormat, ...] = get_args(BodyFormat)
ROUNDS, CALLS = 15, 400


def parsing(asked: Question, dim: int) -> Callable[[], object]:
    """From the body to the row."""
    headers, parameters = {b"content-type": asked.content_type.encode()}, asked.parameters[1:].encode()

    def parse() -> object:
        vectors: Any = decoder_of(headers)(asked.body, parameters).vectors
        row = vectors if isinstance(vectors, np.ndarray) and vectors.ndim == 1 else vectors[0]
        return to_query(row, dim=dim, metric="cosine")

    return parse


def best_of_parsing(dim: int) -> dict[str, float]:
    """Microseconds, by format."""
    query = np.random.default_rng(0).standard_normal(dim)
    calls = {body: parsing(question(query, k=10, body=body), dim) for body in FORMATS}
    best = dict.fromkeys(FORMATS, float("inf"))
    for _ in range(ROUNDS):
        for body, call in calls.items():
            started = time.process_time()
            for _ in range(CALLS):
                call()
            best[body] = min(best[body], (time.process_time() - started) / CALLS * 1e6)
    return {str(body): seconds for body, seconds in best.items()}


async def best_of_requests(dim: int) -> dict[str, float]:
    """Microseconds, by format; the answer is JSON."""
    query = np.random.default_rng(0).standard_normal(dim)
    engine = NumpyEngine(matrix=matrix_of(np.random.default_rng(1).standard_normal((16, dim))))
    best = dict.fromkeys(FORMATS, float("inf"))
    async with service_of() as service:
        service.publish(engine=engine)
        for _ in range(ROUNDS):
            for body in FORMATS:
                asked = question(query, k=10, body=body)
                started = time.process_time()
                for _ in range(CALLS):
                    await ask(service.doors.fast, asked)
                best[body] = min(best[body], (time.process_time() - started) / CALLS * 1e6)
    return {str(body): seconds for body, seconds in best.items()}


async def ask(app: ASGIApp, asked: Question) -> None:
    """One request, without a server."""
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": asked.body}

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 200))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/indexes/items/cos",
        "query_string": asked.parameters[1:].encode(),
        "headers": [
            (b"content-type", asked.content_type.encode()),
            (b"content-length", b"%d" % len(asked.body)),
        ],
    }
    await app(scope, receive, send)
    assert [200, 200] == statuses


def table(title: str, rows: dict[int, dict[str, float]]) -> None:
    """For people."""
    print(f"\n{title}\n{'dim':>6}" + "".join(f"{name:>20}" for name in FORMATS))  # noqa: T201
    for dim, row in rows.items():
        cells = (f"{row[name]:9.1f} ({row['json'] / row[name]:5.1f}x)" for name in FORMATS)
        print(f"{dim:>6}" + "".join(f"{cell:>20}" for cell in cells))  # noqa: T201


if __name__ == "__main__":
    table("parsing, us", {dim: best_of_parsing(dim) for dim in DIMS})
    table("whole request, us", {dim: asyncio.run(best_of_requests(dim)) for dim in DIMS})
