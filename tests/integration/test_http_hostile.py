"""What a socket can do to a server, over real sockets (rows H12-H15 and H23 of the catalogue)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from structlog.testing import capture_logs

from kosine.settings import Size
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service, query, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.http_service import HttpService

BODY = json.dumps(query(1, 0, 0, 0, k=1)).encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"


def post(
    body: bytes = BODY,
    *headers: bytes,
    host: bytes = b"Host: x\r\n",
    media: bytes = b"application/json",
    length: int | None = -1,
    version: bytes = b"1.1",
) -> bytes:
    """A query as bytes; `length` None leaves Content-Length out."""
    head = [b"POST /indexes/items/cos HTTP/", version, b"\r\n", host, b"Content-Type: ", media, b"\r\n"]
    if length is not None:
        head.append(b"Content-Length: %d\r\n" % (len(body) if length < 0 else length))
    return b"".join([*head, *headers, b"\r\n", body])


def chunks(*parts: bytes) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    """Of every answer in what a connection received."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def problem(answer: bytes) -> dict[str, Any]:
    """The body of the last answer."""
    body: dict[str, Any] = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    return body


@pytest.fixture
async def service() -> AsyncIterator[HttpService]:
    """With deadlines a test can wait for."""
    async with http_service(header_timeout=0.4, body_timeout=0.4, send_timeout=0.4) as running:
        running.publish()
        yield running


@pytest.fixture(autouse=True)
async def _nothing_is_left_behind() -> AsyncIterator[None]:
    """I4: no exception of a task or callback goes unseen, and no task stays."""
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert [] == unseen
    assert set() == asyncio.all_tasks() - before - {asyncio.current_task()}


async def test_h12_a_declared_length_over_the_limit_is_refused_before_the_body(service: HttpService) -> None:
    """413 comes though not one byte of the body was sent."""
    answer = await service.exchange(post(b"", length=100_000_000))

    assert [413] == statuses(answer)
    assert "body_too_large" == problem(answer)["code"]


async def test_h12_a_refused_body_may_still_be_sent_and_the_connection_used_again(
    service: HttpService,
) -> None:
    """A client that does not look up while it sends reads its 413, and its next query is answered."""
    big = b"x" * 3_000_000
    answer = await service.exchange(post(big) + post(BODY, CLOSE))

    assert [413, 200] == statuses(answer)


async def test_h12_a_chunked_body_over_the_limit_is_refused_on_the_way() -> None:
    """Counted, framing included: a million one-byte chunks are refused like one large body."""
    async with http_service() as service:
        service.publish()
        large = await service.exchange(post(chunks(*[b" " * 65_536] * 300), CHUNKED, length=None))
        tiny = await service.exchange(post(chunks(*[b" "] * 1_000_000), CHUNKED, length=None))

    assert [[413], [413]] == [statuses(large), statuses(tiny)]


async def test_h12_a_body_shorter_than_declared_is_waited_for_and_then_refused(service: HttpService) -> None:
    """408 after body_timeout, and the connection is closed: where the next request begins is unknown."""
    answer = await service.exchange(post(BODY, length=len(BODY) + 1))

    assert [408] == statuses(answer)
    assert "body_timeout" == problem(answer)["code"]
    assert b"connection: close" in answer


async def test_h12_a_body_longer_than_declared_is_no_second_request(service: HttpService) -> None:
    """The query is answered; the bytes behind it end the connection."""
    answer = await service.exchange(post(BODY + b"garbage\r\n\r\n", length=len(BODY)))

    assert [200] == statuses(answer)


async def test_h12_refusing_large_bodies_keeps_no_memory(service: HttpService) -> None:
    """A hundred refused uploads of 512 KiB each leave nothing behind (Triton's figure: 1 MiB)."""
    refused = post(b"x" * 524_288, length=100_000_000)

    async def upload(times: int) -> None:
        for _ in range(times):
            reader, writer = await service.connect()
            writer.write(refused)
            assert b"413" in await reader.readline()
            writer.transport.abort()
            await writer.wait_closed()

    with capture_logs():
        await upload(100)
        gc.collect()
        before = psutil.Process().memory_info().rss
        await upload(100)
        gc.collect()
    assert psutil.Process().memory_info().rss - before < 2**20


async def test_h12_trailers_are_dropped(service: HttpService) -> None:
    """They cannot overrule a header, nor pile up."""
    trailed = chunks(BODY)[:-2] + b"X-Request-Id: from-a-trailer\r\n\r\n"
    few = await service.exchange(post(trailed, CHUNKED, CLOSE, length=None))
    many = await service.exchange(post(chunks(BODY)[:-2] + b"a:\r\n" * 1_000_000, CHUNKED, length=None))

    assert [200] == statuses(few)
    assert b"from-a-trailer" not in few
    assert [413] == statuses(many)


REFUSED_HEADS: dict[str, tuple[bytes, int]] = {
    "TE and CL": (post(chunks(BODY), CHUNKED), 400),
    "CL and TE": (post(chunks(BODY), b"Content-Length: 3\r\n", CHUNKED, length=None), 400),
    "two CLs": (post(BODY, b"Content-Length: 3\r\n"), 400),
    "two equal CLs": (post(BODY, b"Content-Length: %d\r\n" % len(BODY)), 400),
    "negative CL": (post(BODY, b"Content-Length: -1\r\n", length=None), 400),
    "CL of words": (post(BODY, b"Content-Length: ten\r\n", length=None), 400),
    "TE not chunked": (post(BODY, b"Transfer-Encoding: gzip, chunked\r\n", length=None), 400),
    "TE xchunked": (post(BODY, b"Transfer-Encoding: xchunked\r\n", length=None), 400),
    "TE in HTTP/1.0": (post(chunks(BODY), CHUNKED, length=None, version=b"1.0"), 400),
    "bad chunk": (post(b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED, length=None), 400),
    "bad second chunk": (post(b"2\r\n{}\r\nzz\r\n0\r\n\r\n", CHUNKED, length=None), 400),
    "chunk without end": (post(b"2\r\n{}xx\r\n0\r\n\r\n", CHUNKED, length=None), 400),
    "chunk size overflow": (post(b"f" * 17 + b"\r\n", CHUNKED, length=None), 400),
    "no Host": (post(host=b""), 400),
    "two Hosts": (post(host=b"Host: a\r\nHost: b\r\n"), 400),
    "space before colon": (post(BODY, b"X : 1\r\n"), 400),
    "folded header": (post(BODY, b"X: 1\r\n 2\r\n"), 400),
    "NUL in a header": (post(BODY, b"X: \x00\r\n"), 400),
    "lone CR": (post(BODY, b"X: a\rb\r\n"), 400),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "bytes": (bytes(range(256)), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    "TLS": (bytes.fromhex("16030100a5010000a10303") + bytes(160), 400),
    "not ASCII in a path": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "200 KB header": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
    "200 KB path": (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "1,000 headers": (post(BODY, *[b"X%d: 1\r\n" % number for number in range(1_000)]), 431),
    "endless headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 100_000, 431),
    "just too large": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 32_768 + b"\r\n\r\n", 431),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED_HEADS.values(), ids=REFUSED_HEADS.keys())
async def test_h13_what_is_no_clear_request_gets_one_refusal_and_the_end(
    service: HttpService, sent: bytes, status: int
) -> None:
    """4xx once, closed, never 5xx, and a good request behind it is not answered."""
    answer = await service.exchange(sent + post())

    assert [status] == statuses(answer)
    assert b"connection: close" in answer
    assert {"code", "request_id", "detail"} <= problem(answer).keys()
    assert f"x-request-id: {problem(answer)['request_id']}".encode() in answer


async def test_h13_a_query_whose_body_breaks_off_in_garbage_is_given_up() -> None:
    """The refusal is the protocol's; the application drops the query at once and answers nothing."""
    async with http_service(body_timeout=0.2) as service:
        service.publish()
        answer = await service.exchange(post(b"2\r\n{}\r\nzz\r\n", CHUNKED, length=None))

        assert [400] == statuses(answer)
        await until(lambda: service.count("items", "abandoned") == 1, within=2.0)


async def test_h13_a_head_up_to_the_limits_is_read(service: HttpService) -> None:
    """A hundred headers and 32 KiB are more than any client needs, and enough."""
    many = await service.exchange(post(BODY, CLOSE, *[b"X%d: 1\r\n" % number for number in range(96)]))
    large = await service.exchange(post(BODY, CLOSE, b"X: " + b"a" * 32_000 + b"\r\n"))

    assert [[200], [200]] == [statuses(many), statuses(large)]


def refused_connections(service: HttpService, code: str) -> float | None:
    labels = {"code": code}
    return service.metrics.registry.get_sample_value("kosine_refused_connections_total", labels)


async def test_h13_a_head_in_single_bytes_is_read(service: HttpService) -> None:
    """How the network cuts a request does not matter."""
    reader, writer = await service.connect()
    for position in range(len(sent := post(BODY, CLOSE))):
        writer.write(sent[position : position + 1])
        await asyncio.sleep(0)

    assert [200] == statuses(await reader.read())


async def test_h13_a_large_head_in_pieces_is_refused(service: HttpService) -> None:
    """Counted over all pieces, before the head is complete."""
    reader, writer = await service.connect()
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ")
    for _ in range(10):
        writer.write(b"a" * 4_096)
        await writer.drain()
        await asyncio.sleep(0.005)

    assert [431] == statuses(await reader.read())
    assert 1.0 == refused_connections(service, "head_too_large")


async def test_h13_garbage_behind_a_good_query_does_not_take_its_answer(service: HttpService) -> None:
    """The query is answered, with the end of the connection announced; the garbage gets nothing."""
    answer = await service.exchange(post() + b"\x00\x01\x02garbage\r\n\r\n")

    assert [200] == statuses(answer)
    assert b"connection: close" in answer


async def test_h13_garbage_in_a_body_that_was_refused_already_gets_no_second_answer(
    service: HttpService,
) -> None:
    """415 by the head, then a bad chunk: one answer."""
    reader, writer = await service.connect()
    writer.write(post(b"2\r\n{}\r\n", CHUNKED, length=None, media=b"text/plain"))
    first = await reader.readuntil(b"}")
    writer.write(b"zz\r\n")

    assert [415] == statuses(first + await reader.read())


async def test_h13_pipelined_queries_are_answered_in_order(service: HttpService) -> None:
    """As many answers as queries, each its own."""
    sent = [post(json.dumps(query(*row, k=1)).encode()) for row in np.eye(4).tolist()]
    answer = await service.exchange(b"".join(sent) + post(BODY, CLOSE))

    found = [
        json.loads(part.rpartition(b"\r\n\r\n")[2])["result"][0][0] for part in answer.split(b"HTTP/")[1:]
    ]
    assert [0, 1, 2, 3, 0] == found


async def test_h13_a_bad_query_in_a_pipeline_ends_it_after_the_good_ones(service: HttpService) -> None:
    """What came before is answered; nothing after."""
    answer = await service.exchange(post() + post() + post(host=b"") + post())

    assert [200, 200] == statuses(answer)


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", b"P", b"POST /indexes/items/cos HTTP/1.1\r\nHost: x\r\nX: "], ids=repr
)
async def test_h14_a_head_that_does_not_come_ends_the_connection(service: HttpService, sent: bytes) -> None:
    """Silent, or stuck in the middle: closed at header_timeout without an answer."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await service.exchange(sent)

    assert b"" == answer
    assert 0.3 < loop.time() - started < 2.0


async def test_h14_a_head_that_trickles_in_ends_the_connection(service: HttpService) -> None:
    """The deadline is for the whole head: a byte now and then does not extend it. Nor do empty lines."""
    loop = asyncio.get_running_loop()
    for drop in (b"a", b"\r\n"):
        started = loop.time()
        reader, writer = await service.connect()
        if drop == b"a":
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ")
        ended = asyncio.create_task(_ended(reader))
        while not ended.done():
            writer.write(drop)
            await asyncio.sleep(0.02)
        assert 0.3 < loop.time() - started < 2.0
        writer.transport.abort()
        await ended


async def _ended(reader: asyncio.StreamReader) -> None:
    try:
        await reader.read()
    except ConnectionError:
        return


async def test_h14_a_second_head_has_the_same_deadline(service: HttpService) -> None:
    """A kept connection may be idle for long, but not in the middle of a head."""
    reader, writer = await service.connect()
    writer.write(post() + b"POST /indexes")
    answer = await reader.read()

    assert [200] == statuses(answer)


async def test_h14_a_kept_connection_may_not_stop_in_a_head(service: HttpService) -> None:
    """Nor in the empty lines before one: what was sent once must go on."""
    loop = asyncio.get_running_loop()
    for sent in (b"POST /indexes", b"\r\n"):
        reader, writer = await service.connect()
        writer.write(post())
        await reader.readuntil(b"}")
        started = loop.time()
        writer.write(sent)

        assert b"" == await reader.read()
        assert loop.time() - started < 2.0


async def test_h14_an_idle_connection_is_kept_longer_than_a_head_may_take(service: HttpService) -> None:
    """Keep-alive has its own limit."""
    reader, writer = await service.connect()
    writer.write(post())
    await reader.readuntil(b"}")
    await asyncio.sleep(0.6)
    writer.write(post(BODY, CLOSE))

    assert [200] == statuses(await reader.read())


async def test_h14_a_body_that_trickles_in_is_refused(service: HttpService) -> None:
    """408 at body_timeout, however steadily it trickles."""
    reader, writer = await service.connect()
    writer.write(post(b"", length=10_000))
    answered = asyncio.create_task(_until_the_end(reader))
    while not answered.done():
        writer.write(b" ")
        await asyncio.sleep(0.02)

    assert [408] == statuses(await answered)


async def test_h14_what_is_left_of_a_refused_body_has_a_deadline(service: HttpService) -> None:
    """415 by the head; the rest of the body may not trickle in for ever."""
    reader, writer = await service.connect()
    writer.write(post(b"", length=10_000, media=b"text/plain"))
    answered = asyncio.create_task(_until_the_end(reader))
    while not answered.done():
        writer.write(b" ")
        await asyncio.sleep(0.02)

    assert [415] == statuses(await answered)


async def _until_the_end(reader: asyncio.StreamReader) -> bytes:
    """What came; a byte on its way while the service hung up makes the end a reset."""
    came = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := await reader.read(65_536):
            came += chunk
    return came


async def test_h14_a_peer_that_does_not_take_its_answers_is_dropped(service: HttpService) -> None:
    """Answers pile up to a bound; then the connection is reset at send_timeout."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (service.host, service.port))
    request = b"GET /schema HTTP/1.1\r\nHost: x\r\n\r\n" * 400

    async def flood() -> None:
        while True:
            await loop.sock_sendall(sock, request)

    with pytest.raises(ConnectionError):
        async with asyncio.timeout(20):
            await flood()
    sock.close()
    assert 200 == (await _status(service))


async def test_h14_slow_clients_do_not_slow_the_others(service: HttpService) -> None:
    """While two hundred dribble their heads, good queries are answered, and the slow are gone in time."""
    slow = [await service.connect() for _ in range(200)]
    for number, (_, writer) in enumerate(slow):
        writer.write(post()[: 1 + number % 60])
    async with service.client() as client:
        answers = await asyncio.gather(
            *[client.post("/indexes/items/cos", json=query(1, 0, 0, 0)) for _ in range(50)]
        )
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*[reader.read() for reader, _ in slow])

    assert [200] * 50 == [answer.status_code for answer in answers]
    assert [b""] * 200 == ended


async def _status(service: HttpService) -> int:
    async with service.client() as client:
        return (await client.post("/indexes/items/cos", json=query(1, 0, 0, 0))).status_code


class Held:
    """An engine that answers when it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.engine = NumpyEngine(matrix=matrix_of(np.eye(4)), hold=self.gate)


@pytest.fixture
async def held(service: HttpService) -> AsyncIterator[Held]:
    """Published as `items`."""
    engine = Held()
    service.publish(engine=engine.engine)
    yield engine
    engine.gate.set()


async def test_h15_gone_before_the_body_is_complete(service: HttpService, held: Held) -> None:
    """Counted as abandoned; the engine hears nothing of it."""
    reader, writer = await service.connect()
    writer.write(post(b"", b"Expect: 100-continue\r\n", length=len(BODY)))
    await reader.readuntil(b"100 Continue\r\n\r\n")
    writer.write(BODY[:5])
    await writer.drain()
    writer.transport.abort()

    await until(lambda: service.count("items", "abandoned") == 1)
    assert [] == held.engine.batches


async def test_h15_gone_while_queued(service: HttpService, held: Held) -> None:
    """A query nobody waits for is not computed."""
    async with service.client() as client:
        first = asyncio.create_task(client.post("/indexes/items/cos", json=query(1, 0, 0, 0)))
        await until(lambda: len(held.engine.batches) == 1)
        _, writer = await service.connect()
        writer.write(post())
        version = service.registry.current("items")
        assert version is not None
        await until(lambda: version.batcher.queued_rows == 1)
        writer.transport.abort()
        await until(lambda: service.connections == 1)
        held.gate.set()
        assert 200 == (await first).status_code
        assert 200 == (await client.post("/indexes/items/cos", json=query(0, 1, 0, 0))).status_code

    assert 1 == service.count("items", "abandoned")
    assert [1, 1] == [rows for rows, _ in held.engine.batches]


async def test_h15_gone_while_computed(service: HttpService, held: Held) -> None:
    """The result is dropped; whoever shares the batch gets theirs."""
    async with service.client() as client:
        _, leaver = await service.connect()
        leaver.write(post())
        stayer = asyncio.create_task(client.post("/indexes/items/cos", json=query(0, 1, 0, 0)))
        await until(lambda: len(held.engine.batches) == 1)
        leaver.transport.abort()
        await until(lambda: service.connections == 1)
        held.gate.set()

        assert [1, 1.0] == (await stayer).json()["result"][0]


async def test_h15_gone_before_the_answer_is_read(service: HttpService) -> None:
    """Nothing is logged as an error, and the next caller is served."""
    with capture_logs() as lines:
        for _ in range(20):
            _, writer = await service.connect()
            writer.write(post())
            await writer.drain()
            writer.transport.abort()
        assert 200 == await _status(service)

    assert [] == [line for line in lines if line["log_level"] == "error"]


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_h23_another_method_is_not_allowed(service: HttpService, method: str) -> None:
    """405 with what is allowed."""
    answer = await service.exchange(
        f"{method} /indexes/items/cos HTTP/1.1\r\nHost: x\r\n".encode() + CLOSE + b"\r\n"
    )

    assert [405] == statuses(answer)
    assert b"allow: " in answer
    assert b"POST" in answer


async def test_h23_options_tells_the_methods(service: HttpService) -> None:
    """As HTTP has it: 204 and Allow."""
    answer = await service.exchange(b"OPTIONS /cos HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n")

    assert [204] == statuses(answer)
    assert b"allow: OPTIONS, POST" in answer


async def test_h23_a_websocket_is_not_opened(service: HttpService) -> None:
    """The handshake is a GET like any other here."""
    answer = await service.exchange(
        b"GET /cos HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
         b"GET /livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
    )  # fmt: skip

    assert [405, 200] == statuses(answer)


async def test_h23_an_offer_of_http_2_is_declined_and_its_query_answered(service: HttpService) -> None:
    """Java's HttpClient offers h2c with its first request; the body must not become a request."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAQ\r\n"
    whole = await service.exchange(post(BODY, upgrade) + post(BODY, upgrade) + post(BODY, CLOSE))
    reader, writer = await service.connect()
    sent = post(BODY, upgrade)
    writer.write(sent[:-10])
    await asyncio.sleep(0.05)
    writer.write(sent[-10:] + post(BODY, CLOSE))
    cut = await reader.read()

    assert [[200] * 3, [200] * 2] == [statuses(whole), statuses(cut)]


async def test_h23_a_pipeline_of_upgrades_is_bounded(service: HttpService) -> None:
    """Thousands of offers in one packet overflow no stack; past the bound the rest is not answered."""
    offer = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    answer = await service.exchange(offer * 3_000)

    assert {200} == set(statuses(answer))
    assert len(statuses(answer)) < 3_000
    assert 200 == await _status(service)


async def test_h23_expect_continue_is_answered_when_the_body_is_wanted(service: HttpService) -> None:
    """100 before a good body; the final refusal at once, without 100, for a bad head."""
    reader, writer = await service.connect()
    expect = b"Expect: 100-continue\r\n"
    writer.write(post(b"", expect, CLOSE, length=len(BODY)))
    interim = await reader.readuntil(b"\r\n\r\n")
    writer.write(BODY)
    final = await reader.read()
    refused = await service.exchange(post(b"", expect, media=b"text/plain", length=len(BODY)))

    assert [[100], [200], [415]] == [statuses(interim), statuses(final), statuses(refused)]


async def test_connections_past_the_limit_are_turned_away() -> None:
    """503 and closed; those within the limit go on, and a place that is given up is free again."""
    async with http_service(max_connections=2) as service:
        service.publish()
        first, second = await service.connect(), await service.connect()
        for _, writer in (first, second):
            writer.write(post())
        for reader, _ in (first, second):
            await reader.readuntil(b"}")
        third, _ = await service.connect()
        answer = await third.read()
        first[1].close()
        await until(lambda: service.connections == 1)
        second[1].write(post(BODY, CLOSE))

        assert [503] == statuses(answer)
        assert "too_many_connections" == problem(answer)["code"]
        assert b"retry-after: " in answer
        assert 1.0 == refused_connections(service, "too_many_connections")
        assert [200] == statuses(await second[0].read())
        assert [200] == statuses(await service.exchange(post(BODY, CLOSE)))


async def test_a_body_limit_is_a_setting() -> None:
    """And the refusal names it."""
    async with http_service(body_limit=Size(1024)) as service:
        service.publish()
        answer = await service.exchange(post(BODY.ljust(1025), CLOSE))

        assert [413] == statuses(answer)
        assert 1024 == problem(answer)["limit"]
