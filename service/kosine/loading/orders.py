"""What somebody asks of one index: reloads, which are shared, and orders, carried out one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kosine.errors import IndexPinned, LoadCode, ReloadFailed, ShuttingDown, VersionGone

if TYPE_CHECKING:
    import asyncio

    from kosine.errors import LoadError, RequestError
    from kosine.loading.history import Served
    from kosine.serving.status import ReloadOutcome

__all__ = ("Asked", "Command", "Order", "not_gone_back", "pinned_to", "stopping")

Command = Literal["rollback", "pin", "unpin"]


class Asked:
    """Those who wait for the end of a load."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[ReloadOutcome]] = []

    def __len__(self) -> int:
        """How many do."""
        return len(self._waiting)

    def add(self, answer: asyncio.Future[ReloadOutcome]) -> None:
        """One more, who gets the next load."""
        self._waiting.append(answer)

    def tell(self, outcome: ReloadOutcome | RequestError, *, first: int | None = None) -> None:
        """Answer the `first` of them, or all."""
        answered = self._waiting[:first]
        del self._waiting[:first]
        for one in answered:
            if one.done():
                continue
            if isinstance(outcome, Exception):
                one.set_exception(outcome)
            else:
                one.set_result(outcome)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """`version` None: the one before for a rollback, the one that serves for a pin."""

    command: Command
    version: str | None
    answer: asyncio.Future[ReloadOutcome]

    def done(self, outcome: ReloadOutcome) -> None:
        """It was carried out."""
        if not self.answer.done():
            self.answer.set_result(outcome)

    def refuse(self, error: Exception) -> None:
        """It was not."""
        if not self.answer.done():
            self.answer.set_exception(error)


def not_gone_back(error: LoadError, entry: Served, *, serving: str | None) -> RequestError:
    """Why `entry` could not be loaded again, for whoever asked; all numbers of the failure are told."""
    if error.code is LoadCode.VERSION_GONE:
        return VersionGone(error.detail, asked=entry.version, version=serving)
    if error.code is LoadCode.CANCELLED:
        detail = "the configuration changed meanwhile, or the index is being stopped; ask again"
    else:
        detail = error.detail
    facts = {"reason": error.code.value, "stage": error.stage.value}
    return ReloadFailed(detail, **(error.facts | facts), asked=entry.version, version=serving)


def pinned_to(entry: Served) -> IndexPinned:
    """A reload that was asked for would load nothing."""
    return IndexPinned(
        f"expected an index that follows its source, this one is pinned to {entry.version}; "
        "DELETE /indexes/{name}/pin follows it again",
        version=entry.version,
    )


def stopping() -> ShuttingDown:
    """Nobody is there any more to do it."""
    return ShuttingDown("the index is being stopped; ask another replica", retry_after=1)
