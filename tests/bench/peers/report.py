"""The tables of docs/benchmarks.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kosine.bench.machine import Machine
    from tests.bench.peers.peer import Peer, Shape
    from tests.bench.peers.rounds import Line

__all__ = ("head", "section")


def head(machine: Machine, *, at: datetime, command: str, versions: dict[str, str], generator: str) -> str:
    """What the figures depend on."""
    packages = ", ".join(f"{name} {version}" for name, version in {**machine.packages, **versions}.items())
    where = (
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_bytes / 2**30:.0f} GiB, {machine.system}"
    )
    return (
        f"Measured {at:%Y-%m-%d} by `{command}` on {where}, Python {machine.python}; load average before the "
        f"run {machine.load_average:g}. {packages}. Over HTTP the load is sent by {generator}."
    )


def section(
    shape: Shape,
    peers: Sequence[Peer],
    lines: dict[tuple[str, int], Line],
    *,
    k: int,
    rounds: int,
    seconds: float,
) -> str:
    """One shape: a row a peer, a column a number of connections."""
    connections = sorted({asked for _, asked in lines})
    legend = (
        f"Medians of {rounds} alternating windows of {seconds:g} s: answers a second (p50 / p99 ms), and "
        f"**how many times as many {peers[0].name} gives** in the same round."
    )
    rows = [
        f"### {shape}, k={k}",
        "",
        legend,
        "",
        f"| | recall | {' | '.join(f'c={asked}' for asked in connections)} |",
        f"|---|---|{'---|' * len(connections)}",
    ]
    for peer in peers:
        recall = min(lines[peer.name, asked].recall for asked in connections)
        cells = [_cell(lines[peer.name, asked]) for asked in connections]
        rows.append(f"| {peer.name} | {recall:.3f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(line: Line) -> str:
    failed = f", {line.failed} failed" if line.failed else ""
    return f"{line.throughput:.0f} ({line.p50:.2f} / {line.p99:.1f}{failed}) **{line.ratio:.2f}**"
