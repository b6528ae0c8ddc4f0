"""Sources and folders as somebody wrote them, made absolute and held against the policy. Opens nothing."""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING

from kosine.source_uri import BadUri, FileSource, UriPolicy, parse_source, shown

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("named_by_hand", "roots_of", "to_root", "to_source")

_NO_FILES = frozenset({"proc", "sys"})
"""Top folders whose files are the kernel's, secrets of this process among them."""


def to_source(text: str, *, folder: Path, policy: UriPolicy | None) -> str:
    """What the configuration file names, in its one spelling. Raises BadUri.

    Without a policy nobody knows yet which file the text is from; then only the text is checked.
    """
    # An absolute path is looked at below its root: a root may have any name.
    uri = text if policy is not None and text.startswith("/") else str(parse_source(text, folder=str(folder)))
    return uri if policy is None else str(policy.admit(uri))


def named_by_hand(text: str, *, folder: Path) -> str:
    """What the command line names: any file of this machine, or an object. Raises BadUri."""
    source = parse_source(text, folder=str(folder), typed=True)
    if not isinstance(source, FileSource) or ".." not in source.path.split("/"):
        return str(source)
    above, name = os.path.split(source.path)
    return os.path.realpath(source.path) if name == ".." else f"{os.path.realpath(above)}/{name}"


def roots_of(uri: str) -> tuple[str, ...]:
    """What may be opened because the command line names `uri`: a manifest vouches for what lies beside it.

    >>> roots_of("/data/items.npy"), roots_of("/data/items.json"), roots_of("s3://bucket/items.npy")
    (('/data/items.npy',), ('/data/items.json', '/data'), ())
    """
    if not uri.startswith("/"):
        return ()
    folder = os.path.dirname(uri)  # noqa: PTH120  text in, text out
    return (uri, folder) if uri.endswith(".json") and folder != "/" else (uri,)


def to_root(text: str, *, folder: Path) -> str:
    """A folder that a setting names, absolute. Raises BadUri where it is too much of the machine."""
    source = parse_source(text, folder=str(folder), typed=True)
    if not isinstance(source, FileSource):
        raise BadUri(f"expected a folder of this machine, got {shown(text)}")
    path = os.path.realpath(source.path) if ".." in source.path.split("/") else source.path
    if path == "/" or path.split("/")[1] in _NO_FILES:
        raise BadUri(f"expected a folder below /, and none of /proc or /sys, got {shown(text)}")
    return path
