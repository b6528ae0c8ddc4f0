"""The seam between serving and whatever scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kosine.engines.filters import RowFilter
    from kosine.engines.matrix import ItemMatrix, Order
    from kosine.engines.pages import Page, PageQuery

__all__ = ("Engine", "EngineFactory", "OpenedDevice")


class Engine(Protocol):
    """Exact top-k over one immutable matrix. Used from one device thread at a time."""

    rows: int
    dim: int
    max_k: int
    device: str
    nbytes: int
    """Bytes the engine holds for its matrix, on its device, copies of its own included."""

    @property
    def single_query(self) -> str:
        """The way that a query by itself takes: `graph` as all others, `blas`, or an engine's own."""

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Row numbers and scores of the best `min(k, rows)` rows of each query, best first.

        `queries` is [B, dim] float32, C order, finite, non-zero rows whose squared norm is a normal float32;
        `1 <= k <= max_k`. Returns ([B, k'], [B, k']). Ties go to the lower row.
        """

    def search_filtered(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """As `search`, for each query among the rows that its filter lets pass; None: all.

        Where fewer than k' pass, the score -inf ends what was found.
        """

    def search_after(self, queries: NDArray[np.float32], asked: Sequence[PageQuery]) -> list[Page]:
        """For each query the page of its own order that is asked for; see `kosine.engines.pages`.

        `k` is bounded by nothing here. Scores may differ from those of `search` in the last bits.
        """

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores [n] of `query` [dim] and the rows with these numbers, in their order.

        As `search_after` scores them; NaN where one may not fit a float32.
        """

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Copies [n, dim] of stored rows: for cosine unit rows, whatever the source held."""

    def warm_up(self, batch_sizes: tuple[int, ...], progress: Callable[[str], None]) -> None:
        """Make the calls that no caller should be the first to make; `progress` is called after each."""

    def close(self) -> None:
        """Let go of the matrix; the engine answers nothing afterwards."""


class EngineFactory(Protocol):
    """Builds the engine of a version; owns the device."""

    @property
    def device(self) -> str:
        """What TensorFlow calls it: `/CPU:0`, `/GPU:0`."""

    def order(self, metric: str, *, rows: int, dim: int) -> Order:
        """How items of an index should lie in its matrix to be searched fastest; any order is served.

        `dim_major` takes no more memory than any other.
        """

    def build(self, matrix: ItemMatrix, *, metric: str, max_k: int, max_rows: int) -> Engine:
        """Take the matrix over: no copy on a CPU."""

    def scratch_bytes(self, order: Order, *, rows: int, dim: int, max_rows: int, max_k: int) -> int:
        """Upper bound of what an engine over items in this order, and its calls, need beside the matrix."""


class OpenedDevice(EngineFactory, Protocol):
    """What the composition root opens once."""

    def prepare(self) -> None:
        """Make what engines share. Takes a while; `build` makes what it needs, or waits for whoever does."""

    def describe(self) -> Mapping[str, str | int]:
        """What the log should say of it."""
