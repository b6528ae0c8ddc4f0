"""Credentials that have to be turned into others first: Google's service accounts, roles and profiles of AWS.

Of the fault catalogue: N24.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.settings import GcsSettings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.fault_proxy import fault_proxy
from tests.kit.google_account import google
from tests.kit.loads import index_settings, rig
from tests.kit.store_service import generation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.kit.fault_proxy import FaultProxy
    from tests.kit.google_account import Google
    from tests.kit.loads import Rig
    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

URI = "gs://vectors/items.npy"
QUICK = Transfer(draw=lambda: 0.0, policy=RetryPolicy(attempts=2, first=0.01), look_within=10.0)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """A service account whose key file the environment names, and the store it may read."""
    file = tmp_path / "account.json"
    with google() as known:
        known.put(generation(0).content)
        file.write_text(known.key(), "utf-8")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        yield known


def stores_of(account: Google) -> Stores:
    settings = StoresSettings(gcs=GcsSettings(endpoint_url=account.endpoint))
    return Stores(settings, policy=COMMAND_LINE, transfer=QUICK)


@asynccontextmanager
async def service(account: Google) -> AsyncIterator[tuple[Rig, list[Any]]]:
    """The index, polled ten times a second, generation 0 published; and all that is logged."""
    stores = stores_of(account)
    try:
        with capture_logs() as logged:
            async with rig(storage=stores) as running:
                await running.apply(items=index_settings(URI, interval=0.1))
                await running.registry.until(lambda: len(running.registry.published) == 1)
                yield running, logged
    finally:
        await asyncio.to_thread(stores.close)


async def follows(running: Rig, account: Google, number: int) -> None:
    """The next generation is put, and published."""
    account.put(generation(number).content)
    count = len(running.registry.published) + 1
    await running.registry.until(lambda: len(running.registry.published) == count)
    await running.registry.until(lambda: running.error() is None)


def test_one_token_is_fetched_for_many_requests(account: Google) -> None:
    """With what the key file signed; requests at one time do not each fetch their own."""
    with contextlib.closing(stores_of(account)) as stores:
        with stores.open(URI, stores.fingerprint(URI)) as reader:
            content = bytearray(reader.size)
            reader.read_into(0, memoryview(content))
        assert generation(0).content == bytes(content)
    assert ["token-0"] == account.given


def test_a_token_that_has_expired_is_renewed(account: Google) -> None:
    """Before it is used again."""
    account.lives = 1.0
    with contextlib.closing(stores_of(account)) as stores:
        stores.fingerprint(URI)
        stores.fingerprint(URI)
    assert 2 == len(account.given)


async def test_n24_a_revoked_token_is_replaced_without_a_restart(account: Google) -> None:
    """The store refuses it, the next poll has another."""
    async with service(account) as (running, _):
        account.revoke()
        await follows(running, account, 1)


@pytest.mark.parametrize(
    ("status", "error"), [(400, "invalid_grant"), (401, "unauthorized_client"), (403, "access_denied")]
)
async def test_n24_an_account_that_gets_no_token_leaves_the_last_version(
    account: Google, status: int, error: str
) -> None:
    """The status says why, it is followed again when tokens are given again, and no token is ever told."""
    async with service(account) as (running, logged):
        account.refusal = (status, {"error": error, "error_description": "secret of reader"})
        account.revoke()
        await running.registry.until(
            lambda: (
                (failed := running.registry.load_status("items").last_error) is not None
                and error in failed.detail
            )
        )
        assert ("source_forbidden", "fingerprint") == running.error()
        assert running.registry.current("items") is not None
        told = f"{running.registry.load_status('items')}{logged}"
        assert "token-" not in told
        assert "secret of reader" not in told
        account.refusal = None
        await follows(running, account, 1)


def test_n24_tokens_that_cannot_be_had_now_are_tried_again(account: Google) -> None:
    """A token endpoint in trouble is not a refusal."""
    account.refusal = (503, {"error": "server_error"})
    with (
        contextlib.closing(stores_of(account)) as stores,
        pytest.raises(LoadError) as refused,
    ):
        stores.fingerprint(URI)
    assert LoadCode.SOURCE_UNREADABLE is refused.value.code


def test_a_key_file_that_is_not_there_is_told(account: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """As missing credentials; without its path."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/account.json")
    with contextlib.closing(stores_of(account)) as stores, pytest.raises(LoadError) as refused:
        stores.fingerprint(URI)
    assert LoadCode.SOURCE_FORBIDDEN is refused.value.code
    assert "no credentials were found" in refused.value.detail
    assert "/nowhere" not in refused.value.detail


@pytest.fixture
def aws(moto: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """S3 with an object, seen through a proxy; no keys in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    moto.put("items.npy", generation(0).content)
    with fault_proxy(moto.endpoint) as proxy:
        yield proxy


def looked(moto: ObjectServer, proxy: FaultProxy) -> dict[str, str]:
    """Headers that a look was asked with."""
    settings = moto.settings(endpoint=proxy.endpoint)
    with contextlib.closing(Stores(settings, policy=COMMAND_LINE, transfer=QUICK)) as stores:
        stores.fingerprint("s3://vectors/items.npy")
    return next(request.headers for request in proxy.seen() if request.method == "HEAD")


def test_keys_of_a_profile_are_found(
    moto: ObjectServer, aws: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the environment names."""
    keys = "[reader]\naws_access_key_id = of-a-profile\naws_secret_access_key = secret\n"
    (tmp_path / "credentials").write_text(keys, "utf-8")
    monkeypatch.setenv("AWS_PROFILE", "reader")
    assert "Credential=of-a-profile/" in looked(moto, aws)["authorization"]


def test_a_web_identity_becomes_a_role(
    moto: ObjectServer, aws: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service account of Kubernetes does: a token file, and keys of a session for it."""
    (tmp_path / "token").write_text("of-kubernetes", "utf-8")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    headers = looked(moto, aws)
    assert "Credential=ASIA" in headers["authorization"]
    assert "x-amz-security-token" in headers


def test_no_credentials_at_all_are_told(moto: ObjectServer, aws: FaultProxy) -> None:
    """Nothing is asked of the store."""
    with pytest.raises(LoadError) as refused:
        looked(moto, aws)
    assert LoadCode.SOURCE_FORBIDDEN is refused.value.code
    assert "no credentials were found" in refused.value.detail
    assert [] == aws.requests
