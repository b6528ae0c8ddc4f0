"""Versions over a NumPy engine, and a device whose calls take virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.loading.masks import MaskArtifact, named_masks
from kosine.metrics import Metrics
from kosine.serving.batcher import Batcher
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.item_ids import ItemIds
from kosine.serving.masks import FileRows
from kosine.serving.status import VersionInfo
from kosine.serving.version import Version, open_version
from kosine.settings import BatchSettings, IndexSettings
from tests.kit.engines import NumpyEngine, matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from kosine.engines.engine import Engine
    from kosine.serving.batch import Batch
    from kosine.serving.masks import Masks
    from kosine.settings import Metric

__all__ = ("VirtualDevice", "batcher_of", "info_of", "masks_of", "never", "unit", "version_of")


@dataclass(slots=True, eq=False)
class VirtualDevice:
    """Implements `Device` on the loop itself: a call takes `seconds` of the loop's (virtual) time."""

    seconds: float = 0.0
    batches: list[tuple[float, int]] = field(default_factory=list)
    """(start in loop time, rows) of every batch."""
    closed: bool = False

    def submit(self, batch: Batch, done: Callable[[Batch], None]) -> None:
        """See `Device.submit`."""
        loop = asyncio.get_running_loop()
        self.batches.append((round(loop.time(), 6), len(batch.waiting)))

        def finish() -> None:
            try:
                batch.run()
            except Exception as error:  # noqa: BLE001  as the real device thread does
                batch.fail_all(error)
            done(batch)

        loop.call_later(self.seconds, finish)

    async def close(self) -> None:
        """See `Device.close`."""
        self.closed = True


def never() -> bool:
    """A client that stays."""
    return False


def unit(dim: int, axis: int) -> NDArray[np.float32]:
    """The unit vector along one axis."""
    row = np.zeros(dim, np.float32)
    row[axis] = 1.0
    return row


def batcher_of(
    device: VirtualDevice,
    *,
    engine: NumpyEngine | None = None,
    ids: NDArray[np.generic] | None = None,
    **batch: Any,
) -> Batcher:
    """A batcher over the 4 axes of a 4-dimensional space, on its own dispatcher."""
    return Batcher(
        engine=engine or NumpyEngine(matrix=matrix_of(np.eye(4))),
        ids=ItemIds(ids, 4 if engine is None else engine.rows),
        settings=BatchSettings(**batch),
        dispatcher=Dispatcher(device),
        metrics=Metrics().of("items"),
    )


def masks_of(flags: Mapping[str, ArrayLike], *, rows: int = 4) -> Masks:
    """Masks by name, one flag a row."""
    arrays = {name: np.array(each, np.bool_) for name, each in flags.items()}
    read = {
        name: MaskArtifact(flags=each, digest=sha256(each.tobytes()).digest())
        for name, each in arrays.items()
    }
    return named_masks(read, FileRows(count=rows))


def info_of(
    name: str = "items", *, version: str = "v1", rows: int = 4, dim: int = 4, metric: Metric = "cosine"
) -> VersionInfo:
    """Facts of a version that was loaded from nowhere."""
    return VersionInfo(
        name=name,
        version=version,
        digest=version * 4,
        fingerprint=f"fingerprint of {version}",
        source="items.npy",
        rows=rows,
        dim=dim,
        dtype="<f4",
        metric=metric,
        bytes=4 * rows * dim,
        device="/CPU:0",
        norm_min=1.0,
        norm_max=1.0,
        loaded_at=datetime(2026, 1, 1, tzinfo=UTC),
        load_seconds=0.5,
    )


def version_of(
    dispatcher: Dispatcher,
    *,
    name: str = "items",
    version: str = "v1",
    engine: Engine | None = None,
    metrics: Metrics | None = None,
    settings: IndexSettings | None = None,
    ids: NDArray[np.generic] | None = None,
    masks: Mapping[str, ArrayLike] | None = None,
) -> Version:
    """A version ready to publish."""
    engine = engine or NumpyEngine(matrix=matrix_of(np.eye(4)))
    settings = settings or IndexSettings(uri="items.npy")
    return open_version(
        info=info_of(name, version=version, rows=engine.rows, dim=engine.dim, metric=settings.metric),
        settings=settings,
        engine=engine,
        ids=ItemIds(ids, engine.rows),
        masks=masks_of(masks or {}, rows=engine.rows),
        dispatcher=dispatcher,
        metrics=metrics or Metrics(),
    )
