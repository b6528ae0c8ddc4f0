"""Where a source may be, decided from the text alone, before anything is opened.

A library that opens whatever text it is given reads any file of this machine through a name that looks remote
(`simplecache::file://...`, `reference://...`) and leaves filtering to its caller. So there is a parser of our
own, and three forms pass it:

    ./items.npy   /folder/items.npy   file:///folder/items.npy
    s3://bucket/key
    gs://bucket/key

What is accepted has one spelling: `str` of the source, which parses to the same source. Whatever a URL
library could read in two ways (escapes, queries, dot segments, look-alike characters) is refused, never
repaired.
Pure: no file, network or environment is looked at; `loading` proves where links lead.
"""

from __future__ import annotations

import os.path
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = (
    "COMMAND_LINE",
    "MAX_LENGTH",
    "SCHEMES",
    "BadUri",
    "FileSource",
    "ObjectSource",
    "SourceUri",
    "UriPolicy",
    "is_below",
    "local_path",
    "parse_source",
    "shown",
)

MAX_LENGTH = 1024
"""Characters; also the longest key of S3 and GCS."""
SCHEMES = frozenset({"file", "s3", "gs"})

_EXPECTED = "expected a path, file:///folder/file, s3://bucket/key or gs://bucket/key"
_SHOWN_CHARACTERS = 80
_SPECIAL = {
    **dict.fromkeys("*[]{}", "globs are"),
    "?": "a query or glob is",
    "#": "a fragment is",
    "%": "a percent escape is",
    "\\": "a backslash is",
}
_LABELS = {
    "s3": re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
    "gs": re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"),
}
"""What stands between the dots of a bucket's name."""
_BUCKET_LENGTHS = {"s3": range(3, 64), "gs": range(3, 223)}
_IP_ADDRESS = re.compile(r"\d+(\.\d+){3}")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]+")
_AFTER_USER = ("@", "%40", "\uff20")
_KEY = re.compile(r"[A-Za-z0-9!_.'()=+,@:~/-]+")


class BadUri(ValueError):
    """What was expected and what came, capped, escaped and without secrets."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of this machine."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """An object of a store."""

    scheme: Literal["s3", "gs"]
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"


SourceUri: TypeAlias = FileSource | ObjectSource


@dataclass(frozen=True, slots=True, kw_only=True)
class UriPolicy:
    """Which sources this process may open."""

    file_roots: tuple[str, ...] | None = ()
    """Absolute and normal. A file must lie below one of them, links included; a file that is one of them was
    named by whoever started the process and may be a link to anywhere. None: every file was named so."""
    allowed_schemes: frozenset[str] = SCHEMES

    def admit(self, uri: str) -> SourceUri:
        """The source that `uri` names. Raises BadUri; where links lead is not known yet."""
        source = self._parse(uri)
        scheme = "file" if isinstance(source, FileSource) else source.scheme
        if scheme not in self.allowed_schemes:
            raise BadUri(f"{scheme} sources are switched off here, got {shown(uri)}")
        if not isinstance(source, FileSource) or not self.confines(source):
            return source
        if not any(is_below(source.path, root) for root in self.file_roots or ()):
            raise BadUri(
                "a file that the command line does not name must lie in service.file_roots "
                f"(default: the folder of the configuration file); add its folder there, got {shown(uri)}"
            )
        return source

    def _parse(self, uri: str) -> SourceUri:
        if self.file_roots is None:
            return parse_source(uri, typed=True)
        if uri in self.file_roots:
            return FileSource(uri)
        for root in self.file_roots:
            if is_below(uri, root):
                # Only what is below was written by whoever wrote the URI.
                return parse_source(f".{uri[len(root.rstrip('/')) :]}", folder=root)
        return parse_source(uri)

    def confines(self, source: FileSource) -> bool:
        """Whether links of its path must stay below the roots."""
        return self.file_roots is not None and source.path not in self.file_roots


COMMAND_LINE = UriPolicy(file_roots=None)
"""Of a person who could open the file with any other program, too."""


def parse_source(text: str, *, folder: str = "", typed: bool = False) -> SourceUri:
    """The source that `text` names; a relative path starts at `folder`. Raises BadUri.

    `typed` is for paths of the command line: any name that a shell can produce, `..` and doubled slashes
    included, taken literally.

    >>> parse_source("s3://bucket/items.npy")
    ObjectSource(scheme='s3', bucket='bucket', key='items.npy')
    >>> str(parse_source("./items.npy", folder="/data")), str(parse_source("file:///data/items.npy"))
    ('/data/items.npy', '/data/items.npy')
    """
    try:
        return _parse(text, folder, typed=typed)
    except BadUri as error:
        raise BadUri(f"{error}, got {shown(text)}") from None


def local_path(uri: str) -> str | None:
    """The path of a source that was accepted; None for an object.

    >>> local_path("/data/items.npy"), local_path("s3://bucket/items.npy")
    ('/data/items.npy', None)
    """
    return None if uri.startswith(("s3://", "gs://")) else uri


def is_below(path: str, root: str) -> bool:
    """Whether `path` lies in the folder `root`; both absolute and normal.

    >>> is_below("/data/a.npy", "/data"), is_below("/data-2/a.npy", "/data"), is_below("/data", "/data")
    (True, False, False)
    """
    return path.startswith(f"{root.rstrip('/')}/") and path != root


def shown(text: str) -> str:
    """`text` for a message: escaped, capped, without what may be a password.

    >>> shown("s3://AKIA:se/cret@bucket/key?X-Amz-Signature=5f")
    "'s3://***@bucket/key?***'"
    """
    if text[:5].lower() == "data:":
        return "'data:***'"
    scheme, mark, rest = text.partition("://")
    if not mark or _without_user(scheme) != scheme:
        scheme, mark, rest = "", "", text
    plain = re.split(r"[?#]|%3[fF]|%23", rest, maxsplit=1)
    rest = _without_user(plain[0])
    host, colon, _ = rest.partition("/")[0].partition(":")
    if mark and colon and host != "***@":
        rest = f"{host}:***{''.join(rest.partition('/')[1:])}"
    safe = ascii(f"{scheme}{mark}{rest}{'?***' if len(plain) > 1 else ''}")
    return safe if len(safe) <= _SHOWN_CHARACTERS else f"{safe[:_SHOWN_CHARACTERS]}..."


def _without_user(text: str) -> str:
    at = max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in _AFTER_USER)
    return f"***@{text[at:]}" if at else text


def _parse(text: str, folder: str, *, typed: bool) -> SourceUri:
    if not 1 <= len(text) <= MAX_LENGTH:
        raise BadUri(f"expected 1 to {MAX_LENGTH} characters, {len(text)} came")
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in text):
        raise BadUri("control characters are refused")
    if "::" in text:
        raise BadUri("chains (`::`) are refused")
    first, _, _ = text.partition("/")
    scheme, colon, _ = first.partition(":")
    if not colon or (typed and _SCHEME.fullmatch(scheme) is None):
        return FileSource(_typed_path(text, folder) if typed else _strict_path(text, folder))
    after = text[len(scheme) + 1 :]
    if scheme == "s3" and after.startswith("//"):
        return _object("s3", after[2:])
    if scheme == "gs" and after.startswith("//"):
        return _object("gs", after[2:])
    if scheme == "file" and after.startswith("///"):
        return FileSource(_strict_path(after[2:], ""))
    raise BadUri(f"{_EXPECTED}{_hint(scheme, after)}")


def _hint(scheme: str, after: str) -> str:
    if scheme.lower() in SCHEMES and scheme not in SCHEMES:
        return f"; write `{scheme.lower()}` in lower case"
    if scheme == "file":
        return "; a file URL names no host"
    if not after.startswith("//"):
        return "; a file whose name has a colon is written ./name:1.npy"
    return ""


def _typed_path(text: str, folder: str) -> str:
    if text.startswith("~"):
        raise BadUri("`~` is not expanded here; write the folder out")
    path = os.path.join(folder, text)  # noqa: PTH118  pathlib would drop what must be seen
    # What `..` means depends on links, which only the system knows.
    return path if ".." in path.split("/") else re.sub("^//", "/", os.path.normpath(path))


def _strict_path(text: str, folder: str) -> str:
    if text.startswith("~"):
        raise BadUri("`~` is not expanded here; write the folder out")
    if not all(map(_unmistakable, text)):
        raise BadUri("characters that look like others, or like nothing, are refused")
    name = text.removeprefix("./") if not text.startswith("/") else text[1:]
    _require_plain(name)
    return os.path.join(folder, name) if not text.startswith("/") else text  # noqa: PTH118  text in, text out


def _object(scheme: Literal["s3", "gs"], text: str) -> ObjectSource:
    bucket, _, key = text.partition("/")
    if "@" in bucket:
        raise BadUri("user names and keys are refused in a URL; credentials come from the environment")
    if ":" in bucket:
        raise BadUri("hosts and ports are refused in a URL; an endpoint is a setting of the service")
    if not text.isascii():
        raise BadUri("expected a bucket and key of ASCII characters")
    _require_bucket(scheme, bucket)
    if not key:
        raise BadUri(f"expected a key after the bucket: {scheme}://bucket/key")
    _require_plain(key)
    if _KEY.fullmatch(key) is None:
        raise BadUri("expected a key of letters, digits and !-_.'()=+,@:~/ without spaces")
    return ObjectSource(scheme, bucket, key)


def _require_bucket(scheme: Literal["s3", "gs"], bucket: str) -> None:
    labels_fit = all(_LABELS[scheme].fullmatch(label) for label in bucket.split("."))
    if not labels_fit or len(bucket) not in _BUCKET_LENGTHS[scheme] or _IP_ADDRESS.fullmatch(bucket):
        marks = "hyphens and dots" if scheme == "s3" else "hyphens, underscores and dots"
        raise BadUri(f"expected a bucket after {scheme}://, 3 to 63 of a-z, 0-9, {marks}, and no IP address")


def _require_plain(path: str) -> None:
    """No character and no segment that means something else than itself to anybody."""
    for character in path:
        if character in _SPECIAL:
            raise BadUri(f"{_SPECIAL[character]} refused (`{character}`); name one file or object")
    segments = path.split("/")
    if "." in segments or ".." in segments:
        raise BadUri("`.` and `..` between slashes are refused; write the path out")
    if "" in segments:
        raise BadUri("expected a name between slashes and after the last one")


def _unmistakable(character: str) -> bool:
    """ASCII, or a letter, mark or digit of its own: no full-width colon, division slash or hidden joiner."""
    if character.isascii():
        return True
    twin = unicodedata.normalize("NFKC", character)
    return unicodedata.category(character)[0] in "LMN" and not any(map(str.isascii, twin))
