"""Credentials of one index: a file that its settings name, in the form that the store's own tools read.

Of the forms that these files can have, the ones are taken that hold keys and nothing else. Others (a role to
assume, a program to run, a URL to ask) would have this process act for whoever wrote the file.
"""

from __future__ import annotations

import configparser
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosine.loading.storage.errors import Kind, StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("CredentialsFile",)

_MOST_BYTES = 64 * 2**10
_PROFILE = "default"
_SCOPE = "https://www.googleapis.com/auth/devstorage."


@dataclass(frozen=True, slots=True)
class CredentialsFile:
    """Read again for every client, since it is replaced when keys rotate. Errors never show what is in it."""

    path: Path

    def s3_keys(self) -> dict[str, str | None]:
        """The keys of the profile `default` of an AWS credentials file, as s3fs wants them."""
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(self._text())
            profile = parser[_PROFILE]
            key, secret = profile["aws_access_key_id"], profile["aws_secret_access_key"]
        except (configparser.Error, KeyError):
            raise self._refused(
                "an AWS credentials file with aws_access_key_id and aws_secret_access_key below [default]"
            ) from None
        return {"key": key, "secret": secret, "token": profile.get("aws_session_token")}

    def google_account(self, access: str) -> Any:
        """The service account of a Google key file, for `access` as in `read_only`."""
        from google.oauth2.service_account import Credentials  # noqa: PLC0415  an extra

        try:
            return Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                json.loads(self._text()), scopes=[f"{_SCOPE}{access}"]
            )
        except (ValueError, TypeError, AttributeError):
            raise self._refused("the JSON key of a Google service account") from None

    def _text(self) -> str:
        try:
            with self.path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise StoreError(
                Kind.FORBIDDEN,
                f"credentials {self.path.name} cannot be read from service.stores.credentials_dir "
                f"({type(error).__name__})",
            ) from None
        if len(content) > _MOST_BYTES:
            raise self._refused(f"at most {_MOST_BYTES} bytes")
        return content.decode(errors="replace")

    def _refused(self, expected: str) -> StoreError:
        return StoreError(Kind.FORBIDDEN, f"expected credentials {self.path.name} to be {expected}")
