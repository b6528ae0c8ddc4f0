"""Keeps a library's banner out of a log that machines read, and nothing else.

TensorFlow greets on file descriptor 2 from its static initialisers, before any of its log settings count.
Lines are held back, not thrown away: what is no banner is written when the block ends, whichever way it ends.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

__all__ = ("without_lines",)

_STDERR = 2


@contextmanager
def without_lines(banner: re.Pattern[bytes]) -> Iterator[None]:
    """Hold standard error back, then write all of it except lines that `banner` is found in."""
    sys.stderr.flush()
    original = os.dup(_STDERR)
    with os.fdopen(os.memfd_create("stderr"), "rb") as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, _STDERR)
            os.close(original)
            held.seek(0)
            kept = b"".join(line for line in held if not banner.search(line))
            if kept:
                os.write(_STDERR, kept)
