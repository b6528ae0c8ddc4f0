"""What it costs to follow many objects that nobody changes.

    python -m tests.bench.store_polling [--indexes 20] [--interval 1] [--seconds 30]

Counts the requests of a service over real sockets, and the processor time of its process. The time of one
look times the looks of an interval of 30 s, the default, is the share of a core that is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections import Counter
from multiprocessing import get_context
from typing import TYPE_CHECKING

from kosine.loading.storage.stores import Stores
from kosine.settings import S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.fault_proxy import fault_proxy
from tests.kit.loads import index_settings, rig
from tests.kit.object_stores import moto_server
from tests.kit.store_service import generation

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_DEFAULT_INTERVAL = 30.0


async def _follow(endpoint: str, indexes: int, interval: float, control: Connection) -> None:
    """Serve, say so, and tell the processor time of what follows until the other side says stop."""
    stores = Stores(
        StoresSettings(s3=S3Settings(endpoint_url=endpoint, region="us-east-1")), policy=COMMAND_LINE
    )
    async with rig(storage=stores) as running:
        uris = {f"items-{number}": f"s3://vectors/items-{number}.npy" for number in range(indexes)}
        await running.apply(**{name: index_settings(uri, interval=interval) for name, uri in uris.items()})
        await running.registry.until(lambda: len(running.registry.published) == indexes, within=60)
        control.send(None)
        began = time.process_time()
        await asyncio.to_thread(control.recv)
        control.send(time.process_time() - began)
    stores.close()


def _process(endpoint: str, indexes: int, interval: float, control: Connection) -> None:
    with contextlib.redirect_stdout(None):
        asyncio.run(_follow(endpoint, indexes, interval, control))


def main() -> None:
    """Print requests and processor time."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--indexes", type=int, default=20)
    options.add_argument("--interval", type=float, default=1.0)
    options.add_argument("--seconds", type=float, default=30.0)
    chosen = options.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with moto_server() as store, fault_proxy(store.endpoint) as proxy:
        for number in range(chosen.indexes):
            store.put(f"items-{number}.npy", generation(0).content)
        spawning = get_context("spawn")
        here, there = spawning.Pipe()
        arguments = (proxy.endpoint, chosen.indexes, chosen.interval, there)
        service = spawning.Process(target=_process, args=arguments)
        service.start()
        here.recv()
        proxy.seen()
        time.sleep(chosen.seconds)
        here.send(None)
        cpu, requests = here.recv(), proxy.seen()
        service.join()
    methods = Counter(request.method for request in requests)
    most = max(Counter(request.target for request in requests).values())
    share = cpu / len(requests) * chosen.indexes / _DEFAULT_INTERVAL
    print(  # noqa: T201
        f"{dict(methods)} in {chosen.seconds / chosen.interval:.0f} intervals of {chosen.indexes} indexes, "
        f"at most {most} of one; {1000 * cpu / len(requests):.2f} ms a look, which is {100 * share:.2f} % "
        f"of a core with an interval of {_DEFAULT_INTERVAL:g} s"
    )


if __name__ == "__main__":
    main()
