"""What a store does on a bad day, and what a load makes of it: S3 (moto) and GCS behind a proxy of faults.

Of the fault catalogue: N11 (replaced while read), N13 (gone, forbidden), N14 (every status, cut, stall, drip,
lengths, redirects), N24 (credentials that expire).
"""

from __future__ import annotations

import random
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.settings import GcsSettings, S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from kosine.units import Duration
from tests.kit.fault_proxy import Fault, fault_proxy, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.fault_proxy import FaultProxy, Request
    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

CONTENT = random.Random(5).randbytes(400_009)
BLOCK = 64 * 2**10
IDLE = 2.0
RANGE_WITHIN = 6.0


class Bench(NamedTuple):
    """A store, the proxy before it, and what is tested."""

    server: ObjectServer
    proxy: FaultProxy
    stores: Stores
    uri: str

    def read(self) -> bytes:
        """Look, read in order and verify, as a load does."""
        with self.stores.open(self.uri, self.stores.fingerprint(self.uri)) as reader:
            buffer = memoryview(bytearray(reader.size))
            for start in range(0, reader.size, 50_000):
                reader.read_into(start, buffer[start : start + 50_000])
            reader.verify()
        return bytes(buffer)

    def refusal(self, call: Callable[[], object] | None = None) -> LoadError:
        """What a call, else a look, is refused with."""
        with pytest.raises(LoadError) as caught:
            (call or (lambda: self.stores.fingerprint(self.uri)))()
        return caught.value


@pytest.fixture(params=["s3", "gs"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """An object of seven blocks; short patience, so that a failure takes a second."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-first")
    server = request.getfixturevalue("moto" if request.param == "s3" else "emulator")
    server.put("items.npy", CONTENT)
    with fault_proxy(server.endpoint) as proxy:
        settings = StoresSettings(
            s3=S3Settings(endpoint_url=proxy.endpoint, region="us-east-1"),
            gcs=GcsSettings(endpoint_url=proxy.endpoint, anon=True),
            idle_timeout=Duration(IDLE),
        )
        transfer = Transfer(
            draw=lambda: 0.5,
            parallel=3,
            block_bytes=BLOCK,
            look_within=20.0,
            range_within=RANGE_WITHIN,
            policy=RetryPolicy(attempts=3, first=0.01),
        )
        stores = Stores(settings, policy=COMMAND_LINE, transfer=transfer)
        stores.fingerprint(server.uri("items.npy"))
        proxy.seen()
        yield Bench(server, proxy, stores, server.uri("items.npy"))
        stores.close()


def of_range(request: Request) -> bool:
    """Whether content is asked for."""
    return "range" in request.headers


def test_n14_a_look_is_one_request_without_content(bench: Bench) -> None:
    """Polling costs one request, never a listing or a byte of the object."""
    for _ in range(3):
        bench.stores.fingerprint(bench.uri)
    seen = bench.proxy.seen()
    assert 3 == len(seen)
    assert all("items.npy" in request.target and not of_range(request) for request in seen)
    if bench.server.kind == "s3":
        assert {"HEAD"} == {request.method for request in seen}


def test_n14_every_range_is_pinned(bench: Bench) -> None:
    """Each piece names the generation it belongs to, and no byte is fetched twice."""
    assert CONTENT == bench.read()
    ranges = [request for request in bench.proxy.seen() if of_range(request)]
    assert 7 == len(ranges)
    for request in ranges:
        assert "if-match" in request.headers or "ifGenerationMatch=" in request.target
    assert len(ranges) == len({request.headers["range"] for request in ranges})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_n14_what_passes_is_asked_again(bench: Bench, status: int) -> None:
    """A look and a load survive a store that is busy or restarts."""
    bench.proxy.script = in_turn(Fault(status=status), Fault(status=status))
    assert len(CONTENT) == bench.stores.fingerprint(bench.uri).size
    assert 3 == len(bench.proxy.seen())
    bench.proxy.script = in_turn(Fault(status=status), Fault(status=status), when=of_range)
    assert CONTENT == bench.read()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_n14_a_store_that_stays_busy_is_unreadable_not_empty(bench: Bench, status: int) -> None:
    """After as many attempts as allowed: `source_unreadable`; nobody takes it for deleted."""
    bench.proxy.script = lambda _: Fault(status=status)
    error = bench.refusal()
    assert (LoadCode.SOURCE_UNREADABLE, Stage.FINGERPRINT) == (error.code, error.stage)
    assert status == error.facts["status"]
    assert 3 == len(bench.proxy.seen())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, LoadCode.SOURCE_FORBIDDEN),
        (403, LoadCode.SOURCE_FORBIDDEN),
        (404, LoadCode.SOURCE_MISSING),
        (405, LoadCode.SOURCE_UNREADABLE),
        (412, LoadCode.CHANGED_WHILE_READING),
    ],
)
def test_n14_what_stays_is_asked_once(bench: Bench, status: int, code: LoadCode) -> None:
    """Who is refused is told at once; the store is not pestered."""
    bench.proxy.script = lambda _: Fault(status=status)
    assert code == bench.refusal().code
    assert 1 == sum("items.npy" in request.target for request in bench.proxy.seen())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, LoadCode.SOURCE_FORBIDDEN),
        (403, LoadCode.SOURCE_FORBIDDEN),
        (404, LoadCode.CHANGED_WHILE_READING),
        (412, LoadCode.CHANGED_WHILE_READING),
        (416, LoadCode.CHANGED_WHILE_READING),
    ],
)
def test_n14_n24_refused_in_the_middle(bench: Bench, status: int, code: LoadCode) -> None:
    """Expired, deleted, replaced or truncated while it is read: the load ends, with the reason."""
    bench.proxy.script = in_turn(None, None, *[Fault(status=status)] * 9, when=of_range)
    error = bench.refusal(bench.read)
    assert (code, Stage.FETCH) == (error.code, error.stage)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=1_000),
        Fault(reset_after=1_000),
        Fault(stall_after=1_000),
        Fault(cut_after=0),
        Fault(stall_after=0),
    ],
    ids=["cut", "reset", "stalled", "cut at once", "stalled at once"],
)
def test_n14_a_connection_that_fails_is_replaced(bench: Bench, fault: Fault) -> None:
    """The rest of the range is asked for, and what comes out is the object, byte for byte."""
    bench.proxy.script = in_turn(None, fault, fault, fault, when=of_range)
    began = time.monotonic()
    assert CONTENT == bench.read()
    assert time.monotonic() - began < 60


def test_n14_a_range_goes_on_where_it_was_cut(bench: Bench) -> None:
    """A store that cuts every answer short is read nevertheless, without fetching anything twice."""
    bench.proxy.script = lambda request: Fault(cut_after=20_000) if of_range(request) else None
    assert CONTENT == bench.read()
    starts = [
        int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
        for request in bench.proxy.seen()
        if of_range(request)
    ]
    assert len(starts) == len(set(starts))


def test_n14_one_byte_now_and_then_is_not_progress_enough(bench: Bench) -> None:
    """A store that drips keeps no load for ever: a range has a deadline besides the idle timeout."""
    bench.proxy.script = lambda request: Fault(drip=0.05) if of_range(request) else None
    began = time.monotonic()
    assert LoadCode.SOURCE_UNREADABLE == bench.refusal(bench.read).code
    assert RANGE_WITHIN - 0.1 < time.monotonic() - began < 60


def test_n14_a_store_that_never_answers_ends_a_look(bench: Bench) -> None:
    """The loader thread comes back."""
    bench.proxy.script = lambda _: Fault(delay=3600)
    began = time.monotonic()
    assert LoadCode.SOURCE_UNREADABLE == bench.refusal().code
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "headers",
    [
        {"content-range": f"bytes 0-9/{len(CONTENT)}"},
        {"content-range": f"bytes 0-65535/{len(CONTENT) + 1}"},
        {"content-range": "bytes */*"},
        {"etag": '"another"', "x-goog-generation": "7"},
    ],
    ids=["another range", "another size", "no range", "another generation"],
)
def test_n14_an_answer_that_is_not_the_range_is_not_taken(bench: Bench, headers: dict[str, str]) -> None:
    """A store that ignores what was asked cannot tear a load."""
    bench.proxy.script = lambda request: Fault(headers=headers) if of_range(request) else None
    error = bench.refusal(bench.read)
    assert error.code in {LoadCode.CHANGED_WHILE_READING, LoadCode.SOURCE_UNREADABLE}
    assert Stage.FETCH == error.stage


def test_n14_a_store_without_ranges_is_refused(bench: Bench) -> None:
    """200 with the whole object from its beginning is not the middle of it."""
    bench.proxy.script = in_turn(
        None, *[Fault(status=200, body=CONTENT, headers={"etag": '"x"'})] * 20, when=of_range
    )
    error = bench.refusal(bench.read)
    assert LoadCode.SOURCE_UNREADABLE == error.code
    assert "206" in error.detail


@pytest.mark.parametrize("length", ["1", "99999999"])
def test_n14_a_wrong_length_is_not_taken(bench: Bench, length: str) -> None:
    """A declared length that is not that of the range: retried, then refused; never a mixed matrix."""
    bench.proxy.script = lambda request: (
        Fault(headers={"content-length": length}, cut_after=30_000) if of_range(request) else None
    )
    try:
        assert CONTENT == bench.read()
    except LoadError as error:
        assert error.code in {LoadCode.SOURCE_UNREADABLE, LoadCode.CHANGED_WHILE_READING}  # noqa: PT017


def test_n14_retry_after_is_honoured(bench: Bench) -> None:
    """The next attempt comes no sooner than the store said."""
    bench.proxy.script = in_turn(Fault(status=503, headers={"retry-after": "1"}))
    began = time.monotonic()
    bench.stores.fingerprint(bench.uri)
    assert 1.0 <= time.monotonic() - began < 20
    assert 2 == len(bench.proxy.seen())


def test_n14_a_store_that_wants_quiet_gets_it(bench: Bench) -> None:
    """Where Retry-After is longer than a look may take, polls in between send nothing."""
    bench.proxy.script = in_turn(Fault(status=429, headers={"retry-after": "600"}))
    assert LoadCode.SOURCE_UNREADABLE == bench.refusal().code
    assert LoadCode.SOURCE_UNREADABLE == bench.refusal().code
    assert 1 == len(bench.proxy.seen())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_n14_a_redirect_is_not_followed(bench: Bench, status: int) -> None:
    """No request reaches the host that a store names, by a look or by a range."""
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        elsewhere.settimeout(0.05)
        there = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/secret"
        redirect = Fault(status=status, headers={"location": there})
        bench.proxy.script = lambda _: redirect
        assert LoadCode.SOURCE_UNREADABLE == bench.refusal().code
        bench.proxy.script = lambda request: redirect if of_range(request) else None
        assert LoadCode.SOURCE_UNREADABLE == bench.refusal(bench.read).code
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_n14_nobody_listens(bench: Bench) -> None:
    """Connection refused, a name that does not resolve, and no TLS where it is expected."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for endpoint in (nowhere, "http://store.invalid", bench.proxy.endpoint.replace("http:", "https:")):
        settings = StoresSettings(
            s3=S3Settings(endpoint_url=endpoint, region="us-east-1"),
            gcs=GcsSettings(endpoint_url=endpoint, anon=True),
        )
        policy = RetryPolicy(attempts=2, first=0.01)
        stores = Stores(settings, policy=COMMAND_LINE, transfer=Transfer(draw=lambda: 0.5, policy=policy))
        error = bench.refusal(lambda stores=stores: stores.fingerprint(bench.uri))  # type: ignore[misc]
        stores.close()
        assert LoadCode.SOURCE_UNREADABLE == error.code


def test_n11_replaced_between_two_ranges(bench: Bench) -> None:
    """N11, N14: the object changes while its ranges are in flight, at each of the seven of them."""
    for at in range(7):
        count = 0
        other = bytes([at]) * len(CONTENT)

        def replace(request: Request, at: int = at, other: bytes = other) -> None:
            nonlocal count
            if of_range(request):
                if count == at:
                    bench.server.put("items.npy", other)
                count += 1

        bench.server.put("items.npy", CONTENT)
        bench.proxy.script = replace
        assert LoadCode.CHANGED_WHILE_READING == bench.refusal(bench.read).code


def test_n24_rotated_credentials_are_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look after a refusal uses what the environment holds then."""
    if bench.server.kind == "gs":
        pytest.skip("credentials of Google need Google")

    def only_second(request: Request) -> Fault | None:
        return None if "Credential=second/" in request.headers["authorization"] else Fault(status=403)

    bench.proxy.script = only_second
    assert LoadCode.SOURCE_FORBIDDEN == bench.refusal().code
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-second")
    assert CONTENT == bench.read()


@pytest.mark.parametrize("reason", ["ExpiredToken", "InvalidToken"])
def test_n24_an_expired_token_is_forbidden(bench: Bench, reason: str) -> None:
    """S3 says it with 400 in the middle of a read; it is about who asks."""
    if bench.server.kind == "gs":
        pytest.skip("S3's way to say it")
    body = f"<Error><Code>{reason}</Code><Message>m</Message></Error>".encode()
    bench.proxy.script = lambda request: Fault(status=400, body=body) if of_range(request) else None
    error = bench.refusal(bench.read)
    assert LoadCode.SOURCE_FORBIDDEN == error.code
    assert reason in error.detail


def test_n24_an_expired_token_is_renewed_by_the_look_that_meets_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers its HEAD with 400 and nothing else: no look fails where newer credentials are there."""
    if bench.server.kind == "gs":
        pytest.skip("S3's way to say it")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-second")
    bench.proxy.script = lambda request: (
        None if "Credential=second/" in request.headers["authorization"] else Fault(status=400)
    )
    assert CONTENT == bench.read()


def test_n24_an_expired_token_that_nobody_renewed_is_told(bench: Bench) -> None:
    """One more attempt with what the environment holds; new credentials then never worked, so no third."""
    if bench.server.kind == "gs":
        pytest.skip("S3's way to say it")
    bench.proxy.script = lambda _: Fault(status=400)
    assert LoadCode.SOURCE_FORBIDDEN == bench.refusal().code
    assert 2 == len(bench.proxy.seen())
    assert LoadCode.SOURCE_FORBIDDEN == bench.refusal().code
    assert 1 == len(bench.proxy.seen())


def test_n24_no_secret_is_told(bench: Bench) -> None:
    """Neither key nor signature stands in what a person reads."""
    for status in (400, 403, 404, 503):
        bench.proxy.script = lambda _, status=status: Fault(status=status)  # type: ignore[misc]
        error = bench.refusal()
        assert "first" not in f"{error.detail}{error.facts}"
        assert "Signature" not in f"{error.detail}{error.facts}"


def test_configuration_of_fsspec_does_not_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints come from the settings, not from variables that other programs of the machine use."""
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://store.invalid", "anon": True})
    monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": "http://store.invalid"})
    monkeypatch.setitem(fsspec.config.conf, "gcs", {"endpoint_url": "http://store.invalid"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.invalid")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://store.invalid")
    bench.proxy.script = in_turn(Fault(status=403))  # so that the next look makes a client
    bench.refusal()
    assert CONTENT == bench.read()
