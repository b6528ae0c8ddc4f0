"""Everything that is the same for all loads of a run: the service, its indexes, the requests, the truth."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kosine.bench.arrivals import request_order
from kosine.bench.endpoint import Endpoint
from kosine.bench.facts import index_facts, questions
from kosine.bench.files import alternating, make_file, make_mask, read_file
from kosine.bench.load_job import Target
from kosine.bench.load_process import LoadProcess
from kosine.bench.service_process import ServiceProcess
from kosine.bench.wrk import Wrk
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from kosine.bench.bodies import Question
    from kosine.bench.facts import IndexFacts
    from kosine.bench.files import Alternating
    from kosine.bench.load_job import Progress
    from kosine.bench.plan import BenchPlan, Load
    from kosine.bench.samples import Subject

__all__ = ("Narrator", "Session", "open_session")

_MAX_K = 1000
"""What a service answers unless it is told otherwise."""

_MASK_SHARE = 0.5
"""Of the rows, true in a mask that is made."""


class Narrator(Protocol):
    """Is told what goes on, for whoever waits."""

    def step(self, text: str) -> None:
        """Something new begins."""

    def progress(self, load: Load, so_far: Progress) -> None:
        """The load is under way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """A service that is up, and a load process that is ready to ask it."""

    plan: BenchPlan
    endpoint: Endpoint
    pid: int | None
    indexes: tuple[IndexFacts, ...]
    kinds: tuple[bool, ...]
    """Whether queries are filtered; requests of one kind follow those of the other."""
    order: NDArray[np.uint32]
    """Of the requests of one kind."""
    process: LoadProcess
    wrks: tuple[Wrk, ...]
    """One of each kind; none where it is not installed, or not wanted."""
    files: Alternating | None
    """Of the first index, where reloads are wanted."""
    narrator: Narrator

    @property
    def subjects(self) -> list[Subject | None]:
        """In the order of the indexes, for each kind."""
        return [index.subjects[kind] for kind in range(len(self.kinds)) for index in self.indexes]

    def first_request(self, load: Load) -> int:
        """Number of the first request of its kind."""
        return self.kinds.index(load.filtered) * len(self.indexes) * self.plan.queries

    def wrk(self, load: Load) -> Wrk | None:
        """With the requests of its kind."""
        return self.wrks[self.kinds.index(load.filtered)] if self.wrks else None


@contextmanager
def open_session(plan: BenchPlan, narrator: Narrator) -> Iterator[Session]:
    """Prepare files, start or reach the service, work out the right answers. Raises StartupError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kosine-bench-")))
        if plan.generator == "wrk" and Wrk.find() is None:
            raise StartupError("--generator wrk: it is not installed (Debian: apt-get install wrk)")
        files = _files(plan, folder, narrator)
        mask = _mask_file(plan, files, folder)
        endpoint, pid = _service(plan, files, mask, stack, narrator)
        narrator.step("working out the exact answers")
        kinds = tuple(sorted({load.filtered for load in plan.loads}))
        indexes = tuple(
            index_facts(plan, index, endpoint, file=files.get(index.name), mask=mask, kinds=kinds)
            for index in plan.indexes
        )
        rng = np.random.default_rng(plan.seed)
        order = request_order([index.weight for index in plan.indexes], plan.queries, rng)
        asked = [_asked(plan, indexes, filtered=filtered) for filtered in kinds]
        requests = [endpoint.request(name, each) for of_kind in asked for name, each in of_kind]
        target = Target(host=endpoint.host, port=endpoint.port, requests=requests)
        yield Session(
            plan=plan,
            endpoint=endpoint,
            pid=pid,
            indexes=indexes,
            kinds=kinds,
            order=order,
            process=stack.enter_context(LoadProcess(target)),
            wrks=_wrks(plan, folder, endpoint, asked, order),
            files=_alternating(plan, files, folder, stack),
            narrator=narrator,
        )


def _files(plan: BenchPlan, folder: Path, narrator: Narrator) -> dict[str, Path]:
    """The known file of each index; where the bench starts the service, of every index."""
    files: dict[str, Path] = {}
    for number, index in enumerate(plan.indexes):
        own = folder / f"{index.name}.npy"
        if plan.url is not None:
            if index.file is not None:
                files[index.name] = index.file.resolve()
        elif index.file is None:
            narrator.step(f"making {plan.rows} x {plan.dim} vectors for index {index.name}")
            make_file(own, rows=plan.rows, dim=plan.dim, seed=plan.seed + number)
            files[index.name] = own
        elif plan.reload_every is not None and number == 0:
            # It is going to be replaced; what the user gave is not.
            read_file(index.file)
            files[index.name] = Path(shutil.copy(index.file, own))
        else:
            read_file(index.file)
            files[index.name] = index.file.resolve()
    return files


def _service(
    plan: BenchPlan,
    files: Mapping[str, Path],
    mask: Path | None,
    stack: ExitStack,
    narrator: Narrator,
) -> tuple[Endpoint, int | None]:
    if plan.url is not None:
        return Endpoint.parse(plan.url), plan.pid
    narrator.step("starting a service")
    wider = [f"defaults.max_k={plan.k}"] if plan.k > _MAX_K else []
    masks = [] if mask is None else [_mask_setting(plan, mask)]
    service = stack.enter_context(ServiceProcess(files, edits=[*wider, *masks, *plan.edits]))
    return service.wait_ready(), service.pid


def _mask_file(plan: BenchPlan, files: Mapping[str, Path], folder: Path) -> Path | None:
    """Of the filter; None where it has no mask, or that of a running service is not known."""
    asked = plan.filter
    if asked is None or asked.mask_name is None:
        return None
    if plan.url is not None or asked.mask_file is not None:
        return None if asked.mask_file is None else asked.mask_file.resolve()
    made = folder / "mask.npy"
    share = _MASK_SHARE if asked.mask_share is None else asked.mask_share
    rows = len(read_file(files[plan.indexes[0].name]))
    make_mask(made, rows=rows, share=share, seed=plan.seed)
    return made


def _mask_setting(plan: BenchPlan, mask: Path) -> str:
    """An edit that gives the only index the mask of the filter."""
    assert plan.filter is not None  # noqa: S101  the mask is of it
    return f"indexes.{plan.indexes[0].name}.masks.{plan.filter.mask_name}={json.dumps(str(mask))}"


def _asked(plan: BenchPlan, indexes: Sequence[IndexFacts], *, filtered: bool) -> list[tuple[str, Question]]:
    return [
        (index.plan.name, each) for index in indexes for each in questions(plan, index, filtered=filtered)
    ]


def _wrks(
    plan: BenchPlan,
    folder: Path,
    endpoint: Endpoint,
    asked: Sequence[Sequence[tuple[str, Question]]],
    order: NDArray[np.uint32],
) -> tuple[Wrk, ...]:
    """One of each kind of queries. Loads that are compared are run by one generator, so by choice alone."""
    unfit = plan.reload_every is not None or plan.keeps_samples or not plan.is_text
    path = Wrk.find()
    if plan.generator == "own" or unfit or path is None or (plan.rounds and plan.generator == "auto"):
        return ()
    wrks = []
    for kind, of_kind in enumerate(asked):
        (own := folder / f"wrk-{kind}").mkdir()
        requests = [(endpoint.path(name), each.body) for name, each in of_kind]
        wrks.append(Wrk(path, own, requests=requests, order=order.tolist()))
    return tuple(wrks)


def _alternating(
    plan: BenchPlan, files: Mapping[str, Path], folder: Path, stack: ExitStack
) -> Alternating | None:
    if plan.reload_every is None:
        return None
    served = files[plan.indexes[0].name]
    if plan.url is not None:
        # A rename works only within a file system.
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=".kosine-bench-", dir=served.parent))
        )
    return stack.enter_context(alternating(served, folder))
