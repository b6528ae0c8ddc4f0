"""What stores answer, in five kinds; what a load is told, in the codes everybody knows.

The rule behind the table: only a plain 404 says that an object is gone. Anything else that is not an answer
(403, 5xx, a timeout) says nothing about the object, so it is never taken for deleted.
"""

from __future__ import annotations

import errno
import ssl
from enum import StrEnum
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Kind", "StoreError", "from_network", "from_status", "to_load_error")

_RETRIED = frozenset({408, 425, 429})
_EXPIRED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"})
"""Answered with 400 by S3, though they are about who asks."""


class Kind(StrEnum):
    """What an answer of a store means."""

    MISSING = "missing"
    FORBIDDEN = "forbidden"
    """Also: a reason to look for new credentials."""
    CHANGED = "changed"
    """Not the generation that was asked for."""
    REFUSED = "refused"
    """The same request would get the same answer."""
    TRANSIENT = "transient"
    """Worth asking again."""


class StoreError(Exception):
    """One request failed. `after`: seconds the store asked to be left alone for."""

    def __init__(self, kind: Kind, detail: str, *, status: int = 0, after: float | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = status
        self.after = after


def from_status(status: int, *, reason: str = "", after: float | None = None) -> StoreError:
    """The meaning of an HTTP status; `reason` is the store's own error code.

    >>> [from_status(status).kind.value for status in (401, 404, 412, 429, 503, 301, 400)]
    ['forbidden', 'missing', 'changed', 'transient', 'transient', 'refused', 'refused']
    >>> from_status(400, reason="ExpiredToken").kind.value
    'forbidden'
    """
    named = f"{status} {reason}" if reason and reason != str(status) else f"{status}"
    if status in (401, 403, 407) or reason in _EXPIRED:
        return StoreError(Kind.FORBIDDEN, f"the store answered {named}", status=status)
    if status in (404, 410):
        return StoreError(Kind.MISSING, f"the store answered {named}", status=status)
    if status in (304, 409, 412, 416):
        return StoreError(Kind.CHANGED, "it was replaced", status=status)
    if status in _RETRIED or status >= 500:  # noqa: PLR2004  server errors
        return StoreError(Kind.TRANSIENT, f"the store answered {named}", status=status, after=after)
    if 300 <= status < 400:  # noqa: PLR2004  redirects
        return StoreError(
            Kind.REFUSED,
            f"the store answered {named}, a redirect, which is not followed; set the endpoint and the region "
            "of the bucket under service.stores",
            status=status,
        )
    return StoreError(Kind.REFUSED, f"the store answered {named}", status=status)


def from_network(error: BaseException) -> StoreError:
    """No answer at all. Names the failure only: a library's own text may show addresses or headers.

    A certificate that is not trusted now is not trusted in a second either: REFUSED.
    """
    untrusted = next((why for one in _causes(error) if (why := _distrust(one))), "")
    if untrusted:
        return StoreError(
            Kind.REFUSED,
            f"the store's certificate is not trusted: {untrusted}; renew it, or name the file of its "
            "authority in REQUESTS_CA_BUNDLE",
        )
    numbers = (one.errno for one in _causes(error) if isinstance(one, OSError) and one.errno)
    number = next(numbers, 0)
    name = errno.errorcode.get(number, type(error).__name__)
    return StoreError(Kind.TRANSIENT, f"the store did not answer ({name})")


def _distrust(error: BaseException) -> str:
    """What is wrong with a certificate; nothing where the error is about something else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    # What urllib3 raises where it compares names itself, as it does for botocore.
    return "certificate is not valid for this host" if type(error).__name__ == "CertificateError" else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it was made of, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def to_load_error(error: StoreError, *, uri: str, stage: Stage) -> LoadError:
    """What the load of `uri` is told at `stage`; once opened, an object that is gone has changed."""
    opened = stage is not Stage.FINGERPRINT
    if error.kind is Kind.CHANGED or (opened and error.kind is Kind.MISSING):
        how = error.detail if error.kind is Kind.CHANGED else "it was removed"
        return LoadError(
            LoadCode.CHANGED_WHILE_READING,
            f"{uri} changed while it was read: {how}; it is read again",
            stage=stage,
        )
    code, advice = _TOLD[error.kind]
    facts = {"status": error.status} if error.status else {}
    return LoadError(code, f"{uri} {advice}: {error.detail}", stage=stage, **facts)


_TOLD = {
    Kind.MISSING: (LoadCode.SOURCE_MISSING, "does not exist; it is looked for again"),
    Kind.FORBIDDEN: (
        LoadCode.SOURCE_FORBIDDEN,
        "may not be read with its credentials, which are looked up again; grant read access",
    ),
    Kind.REFUSED: (LoadCode.SOURCE_UNREADABLE, "could not be read"),
    Kind.TRANSIENT: (LoadCode.SOURCE_UNREADABLE, "could not be read now, it is tried again"),
}
