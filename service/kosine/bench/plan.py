"""What a run is to do: the command line, checked, before anything is started."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kosine.errors import StartupError
from kosine.settings import INDEX_NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kosine.bench.bodies import BodyFormat
    from kosine.bench.filters import FilterPlan
    from kosine.bench.report import Mode

__all__ = (
    "DEFAULT_INDEX",
    "BenchPlan",
    "GeneratorChoice",
    "IndexPlan",
    "Load",
    "filtered_loads",
    "plan_indexes",
    "plan_loads",
)

DEFAULT_INDEX = "items"
_CLOSED = (1, 16, 64, 256)

GeneratorChoice = Literal["auto", "own", "wrk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """One index of the mix; a file of None is unknown, or still to be made."""

    name: str
    weight: float
    file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One point of the table."""

    mode: Mode
    connections: int
    rate: float | None = None
    filtered: bool = False
    """Whether its queries carry the filter of the plan."""

    @property
    def title(self) -> str:
        """For people.

        >>> Load(mode="closed", connections=16).title, Load(mode="open", connections=256, rate=900.0).title
        ('closed c=16', 'open 900/s')
        """
        load = f"closed c={self.connections}" if self.rate is None else f"open {self.rate:g}/s"
        return f"{load} filtered" if self.filtered else load


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """A run."""

    url: str | None
    """None: start a service."""
    indexes: tuple[IndexPlan, ...]
    loads: tuple[Load, ...]
    rows: int = 100_000
    dim: int = 100
    k: int = 10
    queries: int = 2000
    seconds: float = 3.0
    warm_up: float = 0.5
    timeout: float = 10.0
    seed: int = 0
    reload_every: float | None = None
    allow_rewrite: bool = False
    body: BodyFormat = "json"
    generator: GeneratorChoice = "auto"
    keeps_samples: bool = False
    """Single requests are wanted afterwards, for a plot."""
    filter: FilterPlan | None = None
    rounds: int = 0
    """Each load runs so often plain and so often filtered, in turn; 0: once, as it is."""
    edits: tuple[str, ...] = ()
    pid: int | None = None

    @property
    def is_text(self) -> bool:
        """Whether queries are JSON, base64 within it included."""
        return self.body in {"json", "base64"}

    def __post_init__(self) -> None:
        """Raises StartupError where the parts do not go together."""
        self._check_service()
        self._check_reloads()
        self._check_filter()
        if self.generator == "wrk" and not self.is_text:
            raise StartupError(f"wrk sends text only: use --generator own with --body {self.body}")
        if self.generator == "wrk" and (self.reload_every or self.keeps_samples):
            raise StartupError(
                "wrk keeps no single requests, which --reload-every and --plot need: use --generator own"
            )
        if self.generator == "wrk" and all(load.mode == "open" for load in self.loads):
            raise StartupError("wrk has no open loop: use --generator own with --rate")

    def _check_service(self) -> None:
        if self.url is None and self.pid is not None:
            raise StartupError("--pid is for a service that runs already: give its --url too")
        if self.url is not None and self.edits:
            raise StartupError(
                "--set is for a service that the bench starts: configure the one at --url itself"
            )

    def _check_filter(self) -> None:
        asked = self.filter
        if asked is None:
            if self.rounds:
                raise StartupError("--rounds compares with what filters cost: give --exclude or --mask, too")
            return
        if not self.is_text:
            raise StartupError(
                f"--exclude and --mask are fields of JSON: use --body json or base64, not {self.body}"
            )
        if self.reload_every is not None:
            raise StartupError(
                "--reload-every moves rows, so that ids and masks would mean others: leave --exclude and "
                "--mask away"
            )
        if asked.mask_name is not None and len(self.indexes) > 1:
            raise StartupError("--mask is of one index: expected one --index, or --exclude alone")
        if asked.mask_share is not None and self.url is not None:
            raise StartupError(
                "--mask-share is for a service that the bench starts: with --url give its --mask-file"
            )

    def _check_reloads(self) -> None:
        if self.reload_every is None or self.url is None:
            return
        if self.indexes[0].file is None:
            raise StartupError("--reload-every with --url needs --file: the .npy that the service reads")
        if not self.allow_rewrite:
            raise StartupError(
                f"--reload-every would replace {self.indexes[0].file} of a service that is not its own; "
                "add --allow-rewrite to let it (the original is put back at the end)"
            )


def plan_indexes(weights: Sequence[str], files: Sequence[str]) -> tuple[IndexPlan, ...]:
    """From `NAME[=WEIGHT]` and `[NAME=]FILE`; one index without a name is `items`.

    >>> plan_indexes(["items=3", "users"], ["users=u.npy"])[1]
    IndexPlan(name='users', weight=1.0, file=PosixPath('u.npy'))
    """
    shares = dict(_weight(text) for text in weights)
    if len(shares) < len(weights):
        raise StartupError("--index: expected each name once")
    known: dict[str, Path] = {}
    for text in files:
        name, file = _file(text, names=[*shares] or [DEFAULT_INDEX])
        if name in known:
            raise StartupError(f"--file: expected one file for index {name}, got two")
        known[name] = file
    if not shares:
        shares = dict.fromkeys(known or [DEFAULT_INDEX], 1.0)
    unknown = known.keys() - shares.keys()
    if unknown:
        raise StartupError(f"--file: no --index {min(unknown)}; expected one of {', '.join(shares)}")
    return tuple(IndexPlan(name=name, weight=weight, file=known.get(name)) for name, weight in shares.items())


def _weight(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    _check_name("--index", name)
    try:
        weight = float(share) if share else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise StartupError(
            f"--index {text!r}: expected NAME or NAME=WEIGHT with a number above 0, such as items=3"
        )
    return name, weight


def _file(text: str, *, names: Sequence[str]) -> tuple[str, Path]:
    name, given, path = text.partition("=")
    if given and re.fullmatch(INDEX_NAME_PATTERN, name):
        return name, Path(path)
    if len(names) > 1:
        raise StartupError(f"--file {text!r}: expected NAME=FILE, because there are {len(names)} indexes")
    return names[0], Path(text)


def _check_name(option: str, name: str) -> None:
    if not re.fullmatch(INDEX_NAME_PATTERN, name):
        raise StartupError(f"{option}: expected a name of small letters, digits and dashes, got {name!r}")


def plan_loads(concurrency: Sequence[int], rates: Sequence[float], *, connections: int) -> tuple[Load, ...]:
    """Closed loops, then open loops over `connections`; rates alone mean no closed loop.

    >>> [load.title for load in plan_loads([], [], connections=256)]
    ['closed c=1', 'closed c=16', 'closed c=64', 'closed c=256']
    """
    closed = tuple(concurrency) or (() if rates else _CLOSED)
    return (
        *(Load(mode="closed", connections=count) for count in closed),
        *(Load(mode="open", connections=connections, rate=rate) for rate in rates),
    )


def filtered_loads(loads: Sequence[Load], *, rounds: int) -> tuple[Load, ...]:
    """All of `loads` filtered; with `rounds` each of them so often, plain and filtered in turn.

    Which comes first changes, so that what drifts hits both alike.

    >>> [load.filtered for load in filtered_loads([Load(mode="closed", connections=1)], rounds=2)]
    [False, True, True, False]
    """
    if not rounds:
        return tuple(replace(load, filtered=True) for load in loads)
    turns = [turn % 2 == 1 for turn in range(rounds)]
    return tuple(
        replace(load, filtered=filtered) for load in loads for turn in turns for filtered in (turn, not turn)
    )
