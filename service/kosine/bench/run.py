"""A whole run: a session, its loads in turn, and the report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import kosine
from kosine.bench.comparison import compare
from kosine.bench.machine import describe_machine
from kosine.bench.measure import measure
from kosine.bench.report import BenchReport, FilterReport, IndexReport
from kosine.bench.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kosine.bench.facts import IndexFacts
    from kosine.bench.machine import Machine
    from kosine.bench.measure import Measured
    from kosine.bench.plan import BenchPlan
    from kosine.bench.session import Narrator, Session

__all__ = ("run_bench",)


def run_bench(plan: BenchPlan, narrator: Narrator) -> tuple[BenchReport, list[Measured]]:
    """Do what `plan` says; blocks. Raises StartupError where it cannot be done."""
    machine = describe_machine()
    started_at = datetime.now(UTC)
    with open_session(plan, narrator) as session:
        measured = []
        for load in plan.loads:
            narrator.step(load.title)
            measured.append(measure(session, load))
        return _report(session, machine, started_at, measured), measured


def _report(
    session: Session, machine: Machine, started_at: datetime, measured: Sequence[Measured]
) -> BenchReport:
    plan, points = session.plan, [each.report for each in measured]
    recalls = [point.recall for point in points if point.recall is not None]
    recall = min(recalls, default=None)
    failed = sum(sum(point.failures.values()) for point in points)
    answered = all(point.answered for point in points)
    return BenchReport(
        kosine=kosine.__version__,
        started_at=started_at,
        machine=machine,
        url=session.endpoint.url,
        started_service=plan.url is None,
        settings=list(plan.edits),
        indexes=[_index(index) for index in session.indexes],
        k=plan.k,
        body=plan.body,
        queries=plan.queries,
        seed=plan.seed,
        filter=_filter(session),
        points=points,
        comparisons=compare(points, rounds=plan.rounds) if plan.rounds else [],
        recall=recall,
        failed=failed,
        good=answered and not failed and (recall is None or recall == 1),
        warnings=list(_warnings(session, machine)),
    )


def _filter(session: Session) -> FilterReport | None:
    asked = session.plan.filter
    if asked is None:
        return None
    mask_rows = session.indexes[0].mask_rows
    return FilterReport(exclude=asked.exclude, mask=asked.mask, not_mask=asked.not_mask, mask_rows=mask_rows)


def _index(index: IndexFacts) -> IndexReport:
    return IndexReport(
        name=index.plan.name,
        weight=index.plan.weight,
        rows=index.rows,
        dim=index.dim,
        metric=index.metric,
        version=index.version,
        checked=None not in index.subjects,
    )


def _warnings(session: Session, machine: Machine) -> Iterator[str]:
    if machine.load_average > machine.cores / 2:
        yield (
            f"the machine was busy before the run (load average {machine.load_average:g} on {machine.cores} "
            "cores): compare only what was measured in one run"
        )
    unchecked = [index.plan.name for index in session.indexes if None in index.subjects]
    if unchecked and session.plan.filter is not None and session.plan.filter.mask_name is not None:
        yield f"answers of {', '.join(unchecked)} were not checked: see --file and --mask-file"
    elif unchecked:
        yield f"answers of {', '.join(unchecked)} were not checked: their file is not known, see --file"
    if session.pid is None:
        yield "the service's CPU is not known: give its process with --pid"
