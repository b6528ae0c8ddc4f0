"""What the load process saw of one load, as arrays, and the judgement of its answers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.bench.load_job import Finished
    from kosine.bench.truth import Truth

__all__ = ("Judgement", "Samples", "Subject", "judge", "read_samples")

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """One element per request. Times are seconds from the start of the load."""

    start: float
    """Of the load, on the monotonic clock."""
    intended: NDArray[np.float64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    request: NDArray[np.uint32]
    ok: NDArray[np.bool_]
    queue: NDArray[np.float64]
    engine: NDArray[np.float64]
    failures: dict[str, int]
    answers: list[tuple[int, bytes]]
    """Distinct (request, body)."""
    times_given: NDArray[np.int64]
    """How often each of `answers` was given."""

    @property
    def latency(self) -> NDArray[np.float64]:
        """Of answered requests, in seconds."""
        latency: NDArray[np.float64] = (self.done - self.intended)[self.ok]
        return latency


def read_samples(finished: Finished, *, start: float) -> Samples:
    """`start` is the beginning of the load on the monotonic clock."""
    intended, sent, done, queue, engine = (
        np.frombuffer(column, dtype=np.float64)
        for column in (finished.intended, finished.sent, finished.done, finished.queue, finished.engine)
    )
    outcome = np.frombuffer(finished.outcome, dtype=np.uint32)
    answer = np.frombuffer(finished.answer, dtype=np.uint32)
    ok = outcome == 0
    counts = np.bincount(outcome, minlength=len(finished.outcomes))
    return Samples(
        start=start,
        intended=intended - start,
        sent=sent - start,
        done=done - start,
        request=np.frombuffer(finished.request, dtype=np.uint32),
        ok=ok,
        queue=queue,
        engine=engine,
        failures={name: int(counts[number]) for number, name in enumerate(finished.outcomes) if number},
        answers=finished.answers,
        times_given=np.bincount(answer[ok], minlength=len(finished.answers)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One index: its truth, and by how far each version of its file is rolled."""

    name: str
    truth: Truth
    rolled: dict[str | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Of every answer of a load; an answer that was given n times counts n times."""

    answers: int
    recall: float
    score_error: float
    """Largest difference of a returned score and the row's own."""
    complaints: list[str]
    """The first few wrong answers, in words."""


class _Answer(msgspec.Struct):
    result: list[tuple[int | str, float]]
    version: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def judge(
    answers: Sequence[tuple[int, bytes]],
    times_given: Sequence[int] | NDArray[np.int64],
    subjects: Sequence[Subject | None],
    *,
    queries: int,
) -> Judgement | None:
    """Judge `answers` to requests numbered as `request_order` says; None where no file is known."""
    right = expected = judged = 0
    error = 0.0
    complaints: Counter[str] = Counter()
    for (request, body), times in zip(answers, map(int, times_given), strict=True):
        number, query = divmod(request, queries)
        subject = subjects[number]
        if subject is None:
            continue
        verdict_right, verdict_error, complaint = _verdict(subject, query, body)
        judged += times
        right += verdict_right * times
        expected += subject.truth.expected(query) * times
        error = max(error, verdict_error)
        if complaint:
            complaints[complaint] += times
    if not expected:
        return None
    return Judgement(
        answers=judged,
        recall=right / expected,
        score_error=error,
        complaints=[text for text, _ in complaints.most_common(_SHOWN)],
    )


def _verdict(subject: Subject, query: int, body: bytes) -> tuple[int, float, str]:
    """Right rows, largest error of a score, and what is wrong."""
    try:
        answer = _ANSWER.decode(body)
    except msgspec.DecodeError as error:
        return 0, math.inf, f"index {subject.name}: an answer is not what docs/http.md says: {error}"
    if answer.version not in subject.rolled:
        return 0, math.inf, f"index {subject.name}: version {answer.version} is of another file"
    columns: Any = zip(*answer.result, strict=True) if answer.result else ((), ())
    ids, scores = columns
    verdict = subject.truth.judge(query, ids, scores, rolled=subject.rolled[answer.version])
    if verdict.right == verdict.expected:
        return verdict.right, verdict.score_error, ""
    if any(isinstance(id_, str) for id_ in ids):
        detail = "ids are text, and only row numbers can be checked: leave --file away"
    else:
        detail = f"query {query}: {verdict.right} of {verdict.expected} rows are right"
    return verdict.right, verdict.score_error, f"index {subject.name}: {detail}"
