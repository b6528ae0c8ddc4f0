"""Certificates of stores, over real TLS: N14 of the fault catalogue."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.stores import Stores
from kosine.source_uri import COMMAND_LINE
from tests.kit.certificates import Authority, tls_before

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

CONTENT = bytes(range(256)) * 1000
KINDS = ("s3", "gs")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """That the environment does not name."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return Authority.create(tmp_path)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, moto: ObjectServer, emulator: ObjectServer) -> ObjectServer:
    """With an object."""
    server = moto if request.param == "s3" else emulator
    server.put("tls.npy", CONTENT)
    return server


def read(store: ObjectServer, context: ssl.SSLContext) -> bytes:
    """The object, through a server that shows the certificate of `context`."""
    uri = store.uri("tls.npy")
    with (
        tls_before(store.port, context) as endpoint,
        contextlib.closing(Stores(store.settings(endpoint=endpoint), policy=COMMAND_LINE)) as stores,
        stores.open(uri, stores.fingerprint(uri)) as reader,
    ):
        content = bytearray(reader.size)
        reader.read_into(0, memoryview(content))
    return bytes(content)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda authority: authority.server(self_signed=True), "self-signed certificate"),
        (lambda authority: authority.server(), "unable to get local issuer certificate"),
    ],
    ids=["self-signed", "unknown authority"],
)
def test_n14_a_certificate_of_nobody_we_know_is_refused(
    store: ObjectServer, authority: Authority, made: Callable[[Authority], ssl.SSLContext], reason: str
) -> None:
    """It says so, and what to do."""
    with pytest.raises(LoadError) as refused:
        read(store, made(authority))
    assert LoadCode.SOURCE_UNREADABLE is refused.value.code
    assert f"certificate is not trusted: {reason}" in refused.value.detail
    assert "REQUESTS_CA_BUNDLE" in refused.value.detail


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda authority: authority.server(days=-1), "certificate has expired"),
        (lambda authority: authority.server(address="127.0.0.9"), "certificate is not valid for"),
    ],
    ids=["expired", "another name"],
)
def test_n14_a_certificate_that_does_not_hold_is_refused(
    store: ObjectServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[[Authority], ssl.SSLContext],
    reason: str,
) -> None:
    """Though its authority is trusted."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.path))
    with pytest.raises(LoadError) as refused:
        read(store, made(authority))
    assert LoadCode.SOURCE_UNREADABLE is refused.value.code
    assert "certificate is not trusted" in refused.value.detail
    assert reason in refused.value.detail


def test_a_private_authority_is_named_by_the_environment(
    store: ObjectServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variable for both kinds of store; S3 has its own as well."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.path))
    assert CONTENT == read(store, authority.server())
    if store.kind == "s3":
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
        assert CONTENT == read(store, authority.server())
