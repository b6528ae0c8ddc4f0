"""What the load process saw, and the judgement of the answers."""

from __future__ import annotations

import math
from array import array

import msgspec
import numpy as np
import pytest

from kosine.bench.load_job import Finished
from kosine.bench.records import Records
from kosine.bench.samples import Subject, judge, read_samples
from kosine.bench.truth import Truth
from tests.kit.oracle import best_first, true_scores

K, QUERY_COUNT = 3, 4
MATRIX = np.random.default_rng(0).standard_normal((50, 6))
QUERIES = np.random.default_rng(1).standard_normal((QUERY_COUNT, 6))
SCORES = true_scores(MATRIX, QUERIES)
TRUTH = Truth(MATRIX, QUERIES, k=K)
SUBJECT = Subject("items", TRUTH, {"v1": 0})


class Asked:
    """Implements Exchange."""

    def __init__(self, request: int, intended: float, sent: float) -> None:
        self.request, self.intended, self.sent = request, intended, sent


def body(query: int, *, version: str = "v1", from_rank: int = 0) -> bytes:
    ids = best_first(SCORES, from_rank + K)[query, from_rank:]
    result = [[int(row), float(SCORES[query, row])] for row in ids]
    return msgspec.json.encode({"result": result, "version": version})


def test_what_was_recorded_is_what_is_read() -> None:
    """Through the message that crosses the pipe; times count from the start of the load."""
    records = Records()
    records.ok(Asked(2, 100.0, 100.1), 100.5, b"{}", b"queue;dur=1.5, engine;dur=20")
    records.ok(Asked(2, 101.0, 101.0), 101.25, b"{}", b"")
    records.failure(Asked(3, 102.0, 102.0), 103.0, "503 engine_error")
    message = msgspec.msgpack.decode(
        msgspec.msgpack.encode(records.finished(cpu_seconds=0.5, stopped=103.0, backlog=7)), type=Finished
    )
    samples = read_samples(message, start=100.0)
    assert [0.0, 1.0, 2.0] == samples.intended.tolist()
    assert [0.5, 0.25] == pytest.approx(samples.latency.tolist())
    assert [2, 2, 3] == samples.request.tolist()
    assert [0.0015, 0.02] == pytest.approx([samples.queue[0], samples.engine[0]])
    assert math.isnan(samples.queue[1])
    assert {"503 engine_error": 1} == samples.failures
    assert ([(2, b"{}")], [2]) == (samples.answers, samples.times_given.tolist())


def test_a_load_without_requests_can_be_read() -> None:
    """A rate so low that nothing was due."""
    samples = read_samples(Records().finished(cpu_seconds=0, stopped=1, backlog=0), start=0.0)
    assert (0, {}, []) == (len(samples.ok), samples.failures, samples.answers)
    assert judge(samples.answers, samples.times_given, [SUBJECT], queries=QUERY_COUNT) is None


def test_an_answer_counts_as_often_as_it_was_given() -> None:
    """Recall is over answers, not over distinct answers."""
    answers = [(0, body(0)), (1, body(1, from_rank=1))]
    found = judge(answers, array("q", [9, 1]), [SUBJECT], queries=QUERY_COUNT)
    assert found is not None
    assert (10, 10 * K - 1) == (found.answers, round(found.recall * 10 * K))
    assert ["index items: query 1: 2 of 3 rows are right"] == found.complaints


def test_the_version_in_the_answer_chooses_what_it_is_judged_by() -> None:
    """With reloads the same query has another right answer in each version."""
    shift = 25
    subject = Subject("items", TRUTH, {"v1": 0, "v2": shift})
    moved = msgspec.json.decode(body(0, version="v2"))
    moved["result"] = [[(row + shift) % len(MATRIX), score] for row, score in moved["result"]]
    right = (0, msgspec.json.encode(moved))
    stale = (0, msgspec.json.encode({**moved, "version": "v1"}))
    for answer, recall in ((right, 1.0), (stale, 0.0)):
        found = judge([answer], [1], [subject], queries=QUERY_COUNT)
        assert found is not None
        assert recall == found.recall


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (body(0, version="v9"), "index items: version v9 is of another file"),
        (b"<html>", "index items: an answer is not what docs/http.md says"),
        (b'{"result": [["a", 1.0], ["b", 1.0], ["c", 1.0]], "version": "v1"}', "ids are text"),
        (b'{"result": [], "version": "v1"}', "query 0: 0 of 3 rows are right"),
    ],
)
def test_what_cannot_be_right_is_wrong_and_says_why(answer: bytes, said: str) -> None:
    """Recall 0, never a crash at the end of a long run."""
    found = judge([(0, answer)], [1], [SUBJECT], queries=QUERY_COUNT)
    assert found is not None
    assert 0.0 == found.recall
    assert said in found.complaints[0]


def test_only_indexes_whose_file_is_known_are_judged() -> None:
    """Requests of the second index come after those of the first."""
    answers = [(QUERY_COUNT + 1, body(1)), (1, b"nobody looks")]
    found = judge(answers, [1, 1], [None, SUBJECT], queries=QUERY_COUNT)
    assert found is not None
    assert (1, 1.0) == (found.answers, found.recall)
    assert judge(answers, [1, 1], [None, None], queries=QUERY_COUNT) is None
