"""Everything that is the same for all loads of a run: the service, its indexes, the requests, the truth."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kosine.bench.arrivals import request_order
from kosine.bench.bodies import question
from kosine.bench.endpoint import Endpoint
from kosine.bench.files import alternating, make_file, make_queries, read_file
from kosine.bench.load_job import Target
from kosine.bench.load_process import LoadProcess
from kosine.bench.samples import Subject
from kosine.bench.service_process import ServiceProcess
from kosine.bench.truth import Truth
from kosine.bench.wrk import Wrk
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from kosine.bench.bodies import Question
    from kosine.bench.endpoint import IndexStatus
    from kosine.bench.files import Alternating
    from kosine.bench.load_job import Progress
    from kosine.bench.plan import BenchPlan, IndexPlan, Load

__all__ = ("IndexFacts", "Narrator", "Session", "open_session")

_MAX_K = 1000
"""What a service answers unless it is told otherwise."""


class Narrator(Protocol):
    """Is told what goes on, for whoever waits."""

    def step(self, text: str) -> None:
        """Something new begins."""

    def progress(self, load: Load, so_far: Progress) -> None:
        """The load is under way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexFacts:
    """What is known of one index."""

    plan: IndexPlan
    dim: int
    rows: int | None
    metric: str
    version: str | None
    subject: Subject | None
    """None where the file is not known, so that answers cannot be judged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """A service that is up, and a load process that is ready to ask it."""

    plan: BenchPlan
    endpoint: Endpoint
    pid: int | None
    indexes: tuple[IndexFacts, ...]
    order: NDArray[np.uint32]
    process: LoadProcess
    wrk: Wrk | None
    """None where it is not installed, or not wanted."""
    files: Alternating | None
    """Of the first index, where reloads are wanted."""
    narrator: Narrator

    @property
    def subjects(self) -> list[Subject | None]:
        """In the order of the indexes."""
        return [index.subject for index in self.indexes]


@contextmanager
def open_session(plan: BenchPlan, narrator: Narrator) -> Iterator[Session]:
    """Prepare files, start or reach the service, work out the right answers. Raises StartupError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kosine-bench-")))
        if plan.generator == "wrk" and Wrk.find() is None:
            raise StartupError("--generator wrk: it is not installed (Debian: apt-get install wrk)")
        files = _files(plan, folder, narrator)
        endpoint, pid = _service(plan, files, stack, narrator)
        narrator.step("working out the exact answers")
        indexes = tuple(_facts(plan, number, files, endpoint) for number in range(len(plan.indexes)))
        rng = np.random.default_rng(plan.seed)
        order = request_order([index.weight for index in plan.indexes], plan.queries, rng)
        asked = [(index.plan.name, each) for index in indexes for each in _questions(plan, index.dim)]
        requests = [endpoint.request(name, each) for name, each in asked]
        target = Target(host=endpoint.host, port=endpoint.port, requests=requests)
        yield Session(
            plan=plan,
            endpoint=endpoint,
            pid=pid,
            indexes=indexes,
            order=order,
            process=stack.enter_context(LoadProcess(target)),
            wrk=_wrk(plan, folder, endpoint, asked, order),
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
    plan: BenchPlan, files: Mapping[str, Path], stack: ExitStack, narrator: Narrator
) -> tuple[Endpoint, int | None]:
    if plan.url is not None:
        return Endpoint.parse(plan.url), plan.pid
    narrator.step("starting a service")
    wider = [f"defaults.max_k={plan.k}"] if plan.k > _MAX_K else []
    service = stack.enter_context(ServiceProcess(files, edits=[*wider, *plan.edits]))
    return service.wait_ready(), service.pid


def _facts(plan: BenchPlan, number: int, files: Mapping[str, Path], endpoint: Endpoint) -> IndexFacts:
    index = plan.indexes[number]
    file = files.get(index.name)
    status = endpoint.index(index.name)
    if status is not None and status.state != "available":
        raise StartupError(f"index {index.name} is {status.state}: expected it to be available")
    vectors = None if file is None else read_file(file)
    dim = _dim(index.name, endpoint, vectors, status)
    metric = (status.metric if status else None) or "cosine"
    version = status.version if status else None
    subject = None
    if vectors is not None:
        queries = make_queries(plan.queries, dim, seed=plan.seed)
        truth = Truth(vectors, queries, k=plan.k, metric=metric)
        subject = Subject(index.name, truth, {version: 0})
    rows = len(vectors) if vectors is not None else (status.rows if status else None)
    return IndexFacts(plan=index, dim=dim, rows=rows, metric=metric, version=version, subject=subject)


def _dim(
    name: str, endpoint: Endpoint, vectors: NDArray[np.floating] | None, status: IndexStatus | None
) -> int:
    if vectors is None:
        if status is None or status.dim is None:
            raise StartupError(
                f"{endpoint.url} has no index {name}, or does not tell its dimension: expected the name of "
                "one in --index, or its --file"
            )
        return status.dim
    found: tuple[int, int] = vectors.shape
    if status is not None and status.dim is not None and found != (status.rows, status.dim):
        raise StartupError(
            f"index {name} has {status.rows} rows of dim {status.dim}, its --file {found[0]} of {found[1]}: "
            "expected the file that the service reads"
        )
    return found[1]


def _questions(plan: BenchPlan, dim: int) -> list[Question]:
    queries = make_queries(plan.queries, dim, seed=plan.seed)
    return [question(query, k=plan.k, body=plan.body) for query in queries]


def _wrk(
    plan: BenchPlan,
    folder: Path,
    endpoint: Endpoint,
    asked: list[tuple[str, Question]],
    order: NDArray[np.uint32],
) -> Wrk | None:
    if plan.generator == "own" or plan.reload_every is not None or plan.keeps_samples or not plan.is_text:
        return None
    path = Wrk.find()
    if path is None:
        return None
    requests = [(endpoint.path(name), each.body) for name, each in asked]
    return Wrk(path, folder, requests=requests, order=order.tolist())


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
