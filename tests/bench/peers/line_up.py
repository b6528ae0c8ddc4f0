"""Who is measured, and why each is there."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from tests.bench.peers.engines import PeerEngine
from tests.bench.peers.http_peer import HttpPeer, triton_ids, triton_query
from tests.bench.peers.postgres import PgVector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.peers.peer import Data, Peer

__all__ = ("line_up", "running_server")

_LIMITS = ("defaults.max_k=1000", "service.memory_limit=16GiB")
_UNBATCHED = "defaults.batch.max_rows=1"


def line_up(folder: Path, *, triton_python: str | None, by_wrk: bool) -> dict[str, Peer]:
    """Every peer by name; kosine first. `by_wrk`: those of HTTP are asked by wrk."""
    peers: list[HttpPeer] = [
        HttpPeer(name="kosine", command=_kosine),
        HttpPeer(
            name="kosine unbatched",
            command=lambda *on: _kosine(*on, _UNBATCHED),
        ),
        *(_same(engine) for engine in get_args(PeerEngine)),
        HttpPeer(
            name="hnsw unbatched",
            command=lambda *on: _same_application("hnsw", *on, _UNBATCHED),
        ),
        HttpPeer(
            name="litserve",
            command=lambda *on: _program("tests.bench.peers.litserve_server", *on),
            path="/predict",
        ),
    ]
    if triton_python is not None:
        peers.append(
            HttpPeer(
                name="triton",
                command=lambda data, port: _program(
                    "tests.bench.peers.triton_server", data, port, python=triton_python
                ),
                path="/v2/models/items/infer",
                query=triton_query,
                ids=triton_ids,
            )
        )
    databases = [
        PgVector(name="pgvector", folder=folder),
        PgVector(name="pgvector-hnsw", folder=folder, hnsw=True),
    ]
    asked = [replace(peer, wrk=folder / "wrk" if by_wrk else None) for peer in peers]
    everyone: list[Peer] = [*asked, *databases]
    return {peer.name: peer for peer in everyone}


def running_server(name: str, port: int, path: str, *, wrk: Path | None) -> Peer:
    """Anything on loopback that answers as kosine does, for instance a system that is to be replaced."""
    return HttpPeer(name=name, port=port, path=path, wrk=wrk)


def _same(engine: PeerEngine) -> HttpPeer:
    return HttpPeer(
        name=engine,
        command=lambda *on: _same_application(engine, *on),
    )


def _kosine(data: Data, port: int, *edits: str) -> Sequence[str]:
    options = [f"--set={edit}" for edit in (*_LIMITS, *edits)]
    serve = [sys.executable, "-m", "kosine", "serve", f"--index=items={data.file}", f"--port={port}"]
    return [*serve, "--log-level=warning", *options]


def _same_application(engine: PeerEngine, data: Data, port: int, *edits: str) -> Sequence[str]:
    program = [sys.executable, "-m", "tests.bench.peers.same_application"]
    return [*program, engine, str(data.file), str(port), *_LIMITS, *edits]


def _program(module: str, data: Data, port: int, *, python: str = sys.executable) -> Sequence[str]:
    return [python, "-m", module, str(data.file), str(port), str(data.k)]
