"""What the reloaders of all indexes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from kosine.loading.attempt import Loaded
    from kosine.loading.copies import Copies
    from kosine.loading.job import LoadJob, Sources, Unchanged
    from kosine.loading.pipeline import LoadedIndex
    from kosine.loading.threads import LoaderThreads
    from kosine.metrics import Metrics
    from kosine.serving.registry import Registry
    from kosine.serving.version import Version
    from kosine.settings import IndexSettings

__all__ = ("Loader", "ReloaderParts")


class Loader(Protocol):
    """What blocks: `Pipeline`. Raises LoadError."""

    def look(self, settings: IndexSettings) -> Sources:
        """Fingerprints now."""

    def load(self, job: LoadJob) -> Loaded | Unchanged:
        """Run every step."""

    def recall(self, name: str, settings: IndexSettings) -> Sources | None:
        """What a local copy was made of; raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloaderParts:
    """One of each."""

    registry: Registry
    loader: Loader
    threads: LoaderThreads
    open_version: Callable[[LoadedIndex, IndexSettings], Version]
    metrics: Metrics
    rng: random.Random
    copies: Copies | None = None
