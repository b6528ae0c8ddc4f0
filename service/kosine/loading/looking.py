"""One look at a source, in a thread and under a time limit of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.threads import Overdue

if TYPE_CHECKING:
    from kosine.loading.job import Sources
    from kosine.loading.reloader_parts import ReloaderParts
    from kosine.settings import IndexSettings

__all__ = ("LOOK_WITHIN", "look")

LOOK_WITHIN = 30.0
_MOST_LEFT_BEHIND = 4
"""Threads of one index that may hang at once; past it the source is not touched until one returns."""


async def look(parts: ReloaderParts, name: str, settings: IndexSettings) -> Sources:
    """Fingerprints now. LoadError: what the store says, and `timed_out` where it says nothing."""
    threads, within = parts.threads, min(LOOK_WITHIN, settings.refresh.timeout)
    hanging = threads.left_behind(name)
    if hanging >= _MOST_LEFT_BEHIND:
        raise _timed_out(f"{hanging} earlier reads of the source still hang")
    try:
        return await threads.run(partial(parts.loader.look, settings), name=name, within=within)
    except Overdue:
        raise _timed_out(f"looking at the source took more than {within:g} s") from None


def _timed_out(detail: str) -> LoadError:
    return LoadError(LoadCode.TIMED_OUT, f"{detail}; the old version serves on", stage=Stage.FINGERPRINT)
