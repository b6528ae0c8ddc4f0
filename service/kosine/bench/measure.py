"""One load: warm-up, the load itself with what goes on around it, and the point of the report it makes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kosine.bench.arrivals import poisson_arrivals
from kosine.bench.load_job import Job
from kosine.bench.observation import Observation, cpu_report
from kosine.bench.percentiles import Percentiles, percentiles
from kosine.bench.reloads import plan_windows, reload_report
from kosine.bench.report import PointReport
from kosine.bench.rewriter import Rewriter
from kosine.bench.samples import judge, read_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kosine.bench.counters import ServerCounters
    from kosine.bench.load_job import Finished, Progress
    from kosine.bench.plan import Load
    from kosine.bench.reloads import Reload, ReloadReport
    from kosine.bench.report import CpuReport
    from kosine.bench.samples import Judgement, Samples
    from kosine.bench.session import Session
    from kosine.bench.wrk import Wrk

__all__ = ("Measured", "measure")

BUSY_CORES = 0.9
"""Of a core: past it the client may be what was measured."""

_MOST_CHECKERS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A point of the report, and the single requests behind it where our own client sent them."""

    load: Load
    report: PointReport
    samples: Samples | None


def measure(session: Session, load: Load) -> Measured:
    """Run `load`: by wrk where that is asked for, or where our own client turns out to be the bottleneck."""
    if session.plan.warm_up:
        session.process.run(_job(session, load, seconds=session.plan.warm_up))
    wrk = session.wrk(load) if load.mode == "closed" else None
    if wrk is not None and session.plan.generator == "wrk":
        return _by_wrk(session, load, wrk)
    measured = _by_ourselves(session, load)
    if wrk is not None and measured.report.client_cpu.cores > BUSY_CORES:
        return _by_wrk(session, load, wrk)
    return measured


def _by_ourselves(session: Session, load: Load) -> Measured:
    plan = session.plan
    observation = _observe(session)
    finished, reloads = _run(session, load, observation)
    samples = read_samples(finished, start=observation.start)
    judgement = judge(samples.answers, samples.times_given, session.subjects, queries=plan.queries)
    counters = observation.counters()
    answered = int(np.count_nonzero(samples.ok))
    client = cpu_report(finished.cpu_seconds, finished.stopped - observation.start, answered)
    in_time = int(np.count_nonzero(samples.ok & (samples.done <= plan.seconds)))
    is_open = load.mode == "open"
    reload = _reload_report(session, samples, reloads)
    report = PointReport(
        mode=load.mode,
        connections=load.connections,
        rate=load.rate,
        filtered=load.filtered,
        generator="own",
        seconds=plan.seconds,
        requests=len(samples.ok),
        answered=answered,
        failures=samples.failures,
        throughput=round(in_time / plan.seconds, 2),
        total=percentiles(samples.latency),
        queue=_stated(samples.queue),
        engine=_stated(samples.engine),
        send_delay=percentiles(samples.sent - samples.intended) if is_open else None,
        backlog=finished.backlog if is_open else None,
        checked=judgement.answers if judgement else 0,
        recall=judgement.recall if judgement else None,
        score_error=_score_error(judgement),
        server_cpu=observation.server_cpu(answered),
        client_cpu=client,
        server=counters,
        reload=reload,
        warnings=[
            *_about_answers(answered, judgement),
            *_about_client(client, finished.backlog),
            *_about_counters(counters, len(samples.ok)),
            *_about_reloads(reload),
        ],
    )
    return Measured(load, report, samples)


def _by_wrk(session: Session, load: Load, wrk: Wrk) -> Measured:
    """Without reloads. wrk checks nothing, so every query is asked once before and once after."""
    plan = session.plan
    session.narrator.step(f"{load.title}: every query once, then wrk, then every query once")
    checks = [_asked_once(session, load)]
    observation = _observe(session)
    result = wrk.run(
        session.endpoint.url,
        connections=load.connections,
        seconds=plan.seconds,
        timeout=plan.timeout,
        started=observation.begin,
    )
    observation.end()
    counters = observation.counters()
    checks.append(_asked_once(session, load))
    judgement, failures = _checked(session, checks)
    client = cpu_report(result.cpu_seconds, result.seconds, result.answered)
    report = PointReport(
        mode=load.mode,
        connections=load.connections,
        rate=None,
        filtered=load.filtered,
        generator="wrk",
        seconds=round(result.seconds, 3),
        requests=result.answered + sum(result.failures.values()),
        answered=result.answered,
        failures=result.failures | failures,
        throughput=round(result.answered / result.seconds, 2),
        total=result.total,
        queue=result.queue,
        engine=result.engine,
        send_delay=None,
        backlog=None,
        checked=judgement.answers if judgement else 0,
        recall=judgement.recall if judgement else None,
        score_error=_score_error(judgement),
        server_cpu=observation.server_cpu(result.answered),
        client_cpu=client,
        server=counters,
        reload=None,
        warnings=[*_about_answers(result.answered, judgement), *_about_client(client, 0)],
    )
    return Measured(load, report, None)


def _checked(session: Session, checks: Sequence[Samples]) -> tuple[Judgement | None, dict[str, int]]:
    """The judgement of what was asked around a load, and what failed there, told apart from the load."""
    answers = [answer for check in checks for answer in check.answers]
    times = np.concatenate([check.times_given for check in checks])
    failures: Counter[str] = Counter()
    for check in checks:
        failures.update({f"check: {name}": count for name, count in check.failures.items()})
    return judge(answers, times, session.subjects, queries=session.plan.queries), dict(failures)


def _asked_once(session: Session, load: Load) -> Samples:
    """Every query of every index, a few at a time."""
    first, count = session.first_request(load), len(session.indexes) * session.plan.queries
    started: list[float] = []
    job = Job(
        connections=min(load.connections, _MOST_CHECKERS),
        seconds=math.inf,
        timeout=session.plan.timeout,
        order=np.arange(first, first + count, dtype=np.uint32).tobytes(),
        limit=count,
    )
    finished = session.process.run(job, started=started.append)
    return read_samples(finished, start=started[0])


def _observe(session: Session) -> Observation:
    return Observation(session.endpoint, session.pid, {index.plan.name for index in session.indexes})


def _job(session: Session, load: Load, *, seconds: float) -> Job:
    arrivals = None
    if load.rate is not None:
        rng = np.random.default_rng(session.plan.seed)
        arrivals = poisson_arrivals(load.rate, seconds, rng).tobytes()
    return Job(
        connections=load.connections,
        seconds=seconds,
        timeout=session.plan.timeout,
        order=(session.order + np.uint32(session.first_request(load))).tobytes(),
        arrivals=arrivals,
    )


def _run(session: Session, load: Load, observation: Observation) -> tuple[Finished, list[Reload]]:
    """The load, and the reloads that went on in it."""
    job = _job(session, load, seconds=session.plan.seconds)

    def run(started: Callable[[float], None]) -> Finished:
        def progress(so_far: Progress) -> None:
            session.narrator.progress(load, so_far)

        finished = session.process.run(job, started=started, progress=progress)
        observation.end()
        return finished

    index, every = session.indexes[0], session.plan.reload_every
    subject = index.subjects[0]
    if session.files is None or every is None or subject is None:
        return run(observation.begin), []
    windows = plan_windows(job.seconds, every)
    with session.endpoint.follow(index.plan.name) as follower:
        rewriter = Rewriter(session.files, version=follower.version, rolled=subject.rolled, windows=windows)

        def begin(at: float) -> None:
            observation.begin(at)
            rewriter.start(at)

        try:
            finished = run(begin)
        finally:
            reloads = rewriter.finish()
    return finished, reloads


def _reload_report(session: Session, samples: Samples, reloads: list[Reload]) -> ReloadReport | None:
    every = session.plan.reload_every
    if every is None:
        return None
    return reload_report(
        samples.intended[samples.ok],
        samples.done[samples.ok],
        windows=plan_windows(session.plan.seconds, every),
        reloads=reloads,
        every=every,
    )


def _stated(seconds: NDArray[np.float64]) -> Percentiles | None:
    return percentiles(seconds[~np.isnan(seconds)])


def _score_error(judgement: Judgement | None) -> float | None:
    return judgement.score_error if judgement and math.isfinite(judgement.score_error) else None


def _about_answers(answered: int, judgement: Judgement | None) -> Iterator[str]:
    if not answered:
        yield "no request was answered: give the load a longer --duration, or look at what failed"
    if judgement is not None and judgement.recall < 1:
        yield from judgement.complaints


def _about_client(client: CpuReport, backlog: int) -> Iterator[str]:
    if client.cores > BUSY_CORES:
        yield f"the client took {client.cores:.0%} of a core: it, not the service, may be what was measured"
    if backlog:
        yield (
            f"up to {backlog} requests that were due waited for a free connection: the service is too slow "
            "for this rate, or --connections too few"
        )


def _about_counters(counters: ServerCounters | None, sent: int) -> Iterator[str]:
    if counters is None:
        return
    counted = sum(counters.requests.values())
    if counted > sent:
        yield f"the service counted {counted} requests, this client sent {sent}: somebody else asks it too"


def _about_reloads(found: ReloadReport | None) -> Iterator[str]:
    if found is None:
        return
    if len(found.reloads) < found.planned:
        yield (
            f"{len(found.reloads)} of {found.planned} reloads were begun, because each took "
            f"{found.mean_reload_seconds} s: a longer --reload-every leaves them room"
        )
    if found.p99_ratio is None:
        yield "no request was answered during, or without a reload: give the load a longer --duration"
