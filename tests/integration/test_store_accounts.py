"""A store that checks who asks: versitygw, with signatures, accounts and bucket policies.

Of the fault catalogue: N13 (gone, forbidden), N24 (credentials that are revoked and come back), as a caller
of the index sees them: the last version answers on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec import structs
from structlog.testing import capture_logs

from kosine.cli import main
from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.source_uri import COMMAND_LINE
from tests.kit.loads import index_settings, rig
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.writers import put_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.kit.loads import Rig
    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

ROWS, DIM = 500, 8
TRANSFER = Transfer(draw=random.Random(1).random, policy=RetryPolicy(attempts=2, first=0.01))
READS = ["s3:GetObject"]
ALL = ["s3:*"]


class Accounts:
    """What the owner of the store does: buckets, accounts, and who may do what."""

    def __init__(self, owner: ObjectServer) -> None:
        self.owner = owner
        self.reader = replace(owner, access_key="reader", secret_key=f"secret-{secrets.token_hex(8)}")

    def create(self) -> None:
        """The reader's account, which may do nothing yet."""
        fields = f"<Access>{self.reader.access_key}</Access><Secret>{self.reader.secret_key}</Secret>"
        self.owner.send("PATCH", "/create-user", f"<Account>{fields}<Role>user</Role></Account>".encode())

    def revoke(self) -> None:
        """No such account any more."""
        self.owner.send("PATCH", f"/delete-user?access={self.reader.access_key}")

    def allow(self, actions: list[str]) -> None:
        """What the reader may do in the bucket."""
        arn = f"arn:aws:s3:::{self.owner.bucket}"
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": [self.reader.access_key]},
            "Action": actions,
            "Resource": [arn, f"{arn}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.owner.send("PUT", f"/{self.owner.bucket}?policy=", json.dumps(policy).encode())

    def deny(self) -> None:
        """Nothing, for anybody but the owner."""
        self.owner.send("DELETE", f"/{self.owner.bucket}?policy=")

    def remove_bucket(self) -> None:
        """The bucket with all that is in it."""
        for key in self.owner.keys(""):
            self.owner.delete(key)
        self.owner.send("DELETE", f"/{self.owner.bucket}")


@pytest.fixture
def accounts(versitygw: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    """A bucket of its own with generation 0, and a reader whose keys are in the environment."""
    known = Accounts(replace(versitygw, bucket=f"bucket-{abs(hash(tmp_path))}"))
    known.owner.make_bucket()
    known.owner.put("items.npy", content(0))
    known.create()
    known.allow(READS)
    for name, value in known.reader.environment().items():
        monkeypatch.setenv(name, value)
    yield known
    with contextlib.suppress(Exception):
        known.revoke()


def rows(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return unit_rows(ROWS, DIM, seed=seed).astype(np.float32)


def content(seed: int) -> bytes:
    return npy_bytes(rows(seed))


def refusal(accounts: Accounts) -> LoadCode:
    """What a look by the credentials of the environment is refused with; no secret in it."""
    with (
        contextlib.closing(Stores(accounts.owner.settings(), policy=COMMAND_LINE)) as stores,
        pytest.raises(LoadError) as refused,
    ):
        stores.fingerprint(accounts.owner.uri("items.npy"))
    assert accounts.reader.secret_key not in refused.value.detail
    return refused.value.code


@asynccontextmanager
async def service(accounts: Accounts) -> AsyncIterator[Rig]:
    """A service of the index `items`, polled ten times a second, generation 0 published."""
    stores = Stores(accounts.owner.settings(), policy=COMMAND_LINE, transfer=TRANSFER)
    try:
        with capture_logs():
            async with rig(storage=stores) as running:
                await running.apply(items=index_settings(accounts.owner.uri("items.npy"), interval=0.1))
                await running.registry.until(lambda: len(running.registry.published) == 1)
                yield running
    finally:
        await asyncio.to_thread(stores.close)


async def failed_as(running: Rig, code: str) -> None:
    """The status says so, and generation 0 answers on."""
    await running.registry.until(lambda: (running.error() or ("", ""))[0] == code)
    assert [7] == (await running.ask("items", rows(0)[7])).ids


async def followed(running: Rig, accounts: Accounts) -> None:
    """Generation 1 is put, and is served."""
    await asyncio.to_thread(accounts.owner.put, "items.npy", content(1))
    await running.registry.until(lambda: len(running.registry.published) == 2)
    assert [7] == (await running.ask("items", rows(1)[7])).ids
    await running.registry.until(lambda: running.error() is None)


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")]
)
def test_n24_wrong_keys_are_forbidden(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A signature that does not match, and an account that is not known; never missing, never unreadable."""
    monkeypatch.setenv(variable, value)
    assert LoadCode.SOURCE_FORBIDDEN is refusal(accounts)


def test_n13_who_may_not_look_is_not_told_that_it_is_missing(accounts: Accounts) -> None:
    """Denied is not deleted, for an object that is there and for one that is not."""
    accounts.deny()
    assert LoadCode.SOURCE_FORBIDDEN is refusal(accounts)
    accounts.owner.delete("items.npy")
    assert LoadCode.SOURCE_FORBIDDEN is refusal(accounts)


async def test_n24_revoked_credentials_leave_the_last_version(accounts: Accounts) -> None:
    """The account is deleted, and made again: followed without a restart."""
    async with service(accounts) as running:
        await asyncio.to_thread(accounts.revoke)
        await failed_as(running, "source_forbidden")
        await asyncio.to_thread(accounts.create)
        await followed(running, accounts)


async def test_n13_a_denied_bucket_leaves_the_last_version(accounts: Accounts) -> None:
    """The policy is taken away, and given back."""
    async with service(accounts) as running:
        await asyncio.to_thread(accounts.deny)
        await failed_as(running, "source_forbidden")
        await asyncio.to_thread(accounts.allow, READS)
        await followed(running, accounts)


async def test_n13_a_bucket_that_is_deleted_and_made_again_is_followed(accounts: Accounts) -> None:
    """Gone with all that was in it: the last version serves on; the new bucket is found."""
    async with service(accounts) as running:
        await asyncio.to_thread(accounts.remove_bucket)
        await failed_as(running, "source_missing")
        await asyncio.to_thread(accounts.owner.make_bucket)
        await asyncio.to_thread(accounts.allow, READS)
        await followed(running, accounts)


async def test_n24_each_index_is_read_with_its_own_credentials(accounts: Accounts, tmp_path: Path) -> None:
    """In one process; a file of credentials that comes later, or is replaced, needs no restart."""
    settings = structs.replace(accounts.owner.settings(), credentials_dir=str(tmp_path))
    stores = Stores(settings, policy=COMMAND_LINE, transfer=TRANSFER)
    accounts.owner.put("theirs.npy", content(1))
    accounts.deny()
    try:
        with capture_logs():
            async with rig(storage=stores) as running:
                index = index_settings(accounts.owner.uri("theirs.npy"), interval=0.1, credentials="owner")
                by_process = index_settings(accounts.owner.uri("items.npy"), interval=0.1)
                await running.apply(theirs=index, items=by_process)
                await running.registry.until(lambda: running.error("theirs") is not None)
                put_whole(tmp_path / "owner", keys_file(accounts.reader))
                await running.registry.until(
                    lambda: running.error("items") == ("source_forbidden", "fingerprint")
                )
                assert running.registry.current("theirs") is None

                put_whole(tmp_path / "owner", keys_file(accounts.owner))
                await running.registry.until(lambda: running.registry.current("theirs") is not None)
                assert [7] == (await running.ask("theirs", rows(1)[7])).ids
                assert running.registry.current("items") is None
    finally:
        await asyncio.to_thread(stores.close)


def keys_file(account: ObjectServer) -> str:
    """An AWS credentials file."""
    keys = f"aws_access_key_id = {account.access_key}\naws_secret_access_key = {account.secret_key}\n"
    return f"[default]\n{keys}"


def test_n24_who_may_not_write_publishes_nothing(accounts: Accounts, tmp_path: Path) -> None:
    """Exit code 2 with what the store said; with the right to write the same command works."""
    (tmp_path / "items.npy").write_bytes(content(1))
    place = f"s3://{accounts.owner.bucket}/published/"
    endpoint = ["--endpoint-url", accounts.owner.endpoint, "--region", "us-east-1"]
    command = ["publish", str(tmp_path / "items.npy"), place, *endpoint]
    refused = CliRunner().invoke(main, command)
    assert (2, True) == (refused.exit_code, "403" in refused.output), refused.output
    assert [] == accounts.owner.keys("published/")
    accounts.allow(ALL)
    assert 0 == CliRunner().invoke(main, [*command, "--keep", "1"]).exit_code
    assert 2 == len(accounts.owner.keys("published/"))
