"""How the windows of a comparison become a table."""

from __future__ import annotations

from tests.bench.peers.http_peer import HttpPeer, kosine_ids, kosine_query, triton_ids, triton_query
from tests.bench.peers.peer import Shape, Window
from tests.bench.peers.report import section
from tests.bench.peers.rounds import Line, summarise


def window(throughput: float, *, recall: float = 1.0, failed: int = 0) -> Window:
    return Window(throughput=throughput, p50=1.0, p99=2.0, recall=recall, failed=failed)


def test_only_windows_of_one_round_are_compared() -> None:
    """A machine that was twice as slow in one round changes no ratio; the worst recall counts."""
    measured = {
        ("kosine", 16): [window(1000), window(500), window(1000)],
        ("other", 16): [window(500), window(250, recall=0.5), window(800, failed=2)],
    }
    assert {
        ("kosine", 16): Line(throughput=1000, p50=1.0, p99=2.0, recall=1.0, failed=0, ratio=1.0),
        ("other", 16): Line(throughput=500, p50=1.0, p99=2.0, recall=0.5, failed=2, ratio=2.0),
    } == summarise(measured, first="kosine")


def test_a_peer_that_answers_nothing_is_infinitely_slower() -> None:
    """Not a division by zero."""
    measured = {("kosine", 1): [window(10)], ("other", 1): [window(0)]}
    assert float("inf") == summarise(measured, first="kosine")["other", 1].ratio


def test_the_table_has_a_row_a_peer_and_a_column_a_load() -> None:
    """Failures are said where they were."""
    line = Line(throughput=512.4, p50=1.234, p99=9.87, recall=1.0, failed=0, ratio=1.0)
    failing = Line(throughput=256.2, p50=2.0, p99=20.0, recall=0.5, failed=3, ratio=2.0)
    peers = [HttpPeer(name="kosine"), HttpPeer(name="other")]
    text = section(
        Shape(1000, 8),
        peers,
        {("kosine", 1): line, ("kosine", 16): line, ("other", 1): failing, ("other", 16): line},
        k=10,
        rounds=3,
        seconds=2.0,
    )
    assert [
        "| | recall | c=1 | c=16 |",
        "|---|---|---|---|",
        "| kosine | 1.000 | 512 (1.23 / 9.9) **1.00** | 512 (1.23 / 9.9) **1.00** |",
        "| other | 0.500 | 256 (2.00 / 20.0, 3 failed) **2.00** | 512 (1.23 / 9.9) **1.00** |",
    ] == text.splitlines()[4:]


def test_each_protocol_reads_what_its_server_says() -> None:
    """Row numbers, best first."""
    assert b'{"embedding":[1.0,0.5],"k":2}' == kosine_query([1.0, 0.5], 2)
    assert [7, 3] == kosine_ids(b'{"result": [[7, 0.9], [3, 0.8]], "version": "x"}')
    assert b'"shape":[1,2],"datatype":"FP32","data":[1.0,0.5]' in triton_query([1.0, 0.5], 2)
    assert [7, 3] == triton_ids(
        b'{"outputs": [{"name": "scores", "data": [1, 2]}, {"name": "rows", "data": [7, 3]}]}'
    )
