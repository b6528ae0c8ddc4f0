"""Files of credentials that an index names: what is taken from them, and what is not."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kosine import configuration
from kosine.errors import ConfigurationError, LoadCode, LoadError
from kosine.loading.storage.credentials import CredentialsFile
from kosine.loading.storage.errors import Kind, StoreError
from kosine.loading.storage.stores import Stores
from kosine.settings import StoresSettings
from kosine.source_uri import COMMAND_LINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = "[default]\naws_access_key_id = reader\naws_secret_access_key = secret/+%=1\n"


def test_keys_of_the_default_profile_are_taken(tmp_path: Path) -> None:
    """With a session token where there is one; nothing else of the file, nor of another profile, counts."""
    path = tmp_path / "team"
    path.write_text(f"[other]\naws_access_key_id = no\n{KEYS}role_arn = arn:aws:iam::1:role/r\n")
    assert {"key": "reader", "secret": "secret/+%=1", "token": None} == CredentialsFile(path).s3_keys()
    path.write_text(f"{KEYS}aws_session_token = t==\n")
    assert "t==" == CredentialsFile(path).s3_keys()["token"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "[other]\naws_access_key_id = a\naws_secret_access_key = secret\n",
        "[default]\naws_access_key_id = a\n",
        "[default]\ncredential_process = /bin/secret\n",
        "[default]\nrole_arn = secret\nsource_profile = default\n",
        "secret" * 20_000,
    ],
)
def test_a_file_without_keys_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """What was expected, and the name of the file; never what is in it, nor where it lies."""
    (tmp_path / "team").write_text(text)
    readings: tuple[Callable[[], object], ...] = (
        CredentialsFile(tmp_path / "team").s3_keys,
        lambda: google(tmp_path / "team"),
    )
    for read in readings:
        with pytest.raises(StoreError) as refused:
            read()
        assert Kind.FORBIDDEN is refused.value.kind
        assert "credentials team" in refused.value.detail
        assert not {"secret", str(tmp_path)} & set(refused.value.detail.split())
        assert "/bin/secret" not in refused.value.detail


def google(path: Path) -> object:
    return CredentialsFile(path).google_account("read_only")


def test_a_google_account_is_taken_and_nothing_that_asks_somebody_else(tmp_path: Path) -> None:
    """Of the forms of Application Default Credentials, the one that is a key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"client_email": "a@b.iam.gserviceaccount.com", "token_uri": "https://x", "private_key": pem}
    (tmp_path / "team").write_text(json.dumps({"type": "service_account", **account}))
    assert "a@b.iam.gserviceaccount.com" == getattr(google(tmp_path / "team"), "service_account_email", None)
    (tmp_path / "team").write_text(json.dumps({"type": "external_account", "credential_source": {}}))
    with pytest.raises(StoreError, match="the JSON key of a Google service account"):
        google(tmp_path / "team")


def test_credentials_without_a_folder_fail_their_index_alone() -> None:
    """A load error that says what to set, since the configuration may be right for the next process."""
    with (
        contextlib.closing(Stores(StoresSettings(), policy=COMMAND_LINE)) as stores,
        pytest.raises(LoadError, match=r"service\.stores\.credentials_dir") as refused,
    ):
        stores.using("team").fingerprint("s3://bucket/items.npy")
    assert LoadCode.SOURCE_FORBIDDEN is refused.value.code


@pytest.mark.parametrize(
    "name", ["../team", "a/b", ".hidden", "..data", "", "a" * 254, "team\n", "/etc/passwd"]
)
def test_only_names_of_files_are_names_of_credentials(tmp_path: Path, name: str) -> None:
    """Nothing leads out of the folder, nor to what a kubelet keeps beside the files."""
    refusal = refused(tmp_path, {"uri": "s3://bucket/items.npy", "credentials": name})
    assert "expected credentials as the name of a file" in refusal


def test_files_of_this_machine_have_no_credentials(tmp_path: Path) -> None:
    """They are read as the user of the process."""
    assert "expected no credentials" in refused(tmp_path, {"uri": "./items.npy", "credentials": "team"})


def refused(folder: Path, index: dict[str, str]) -> str:
    path = folder / "kosine.yaml"
    path.write_text(json.dumps({"indexes": {"items": index}}))
    with pytest.raises(ConfigurationError) as error:
        configuration.load(path)
    return str(error.value)
