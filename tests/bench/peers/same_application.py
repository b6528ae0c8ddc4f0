"""A program: kosine's own application and batcher with another engine in the place of its own.

`python -m tests.bench.peers.same_application ENGINE FILE PORT [PATH=VALUE ...]`
"""

from __future__ import annotations

import sys
from functools import partial

from kosine import configuration, logs
from kosine.app import serve
from kosine.engines.cpus import available_cpus
from tests.bench.peers.engines import PEER_ENGINES, PeerDevice


def main(name: str, file: str, port: str, *edits: str) -> None:
    """Serve `file` as the index `items` until SIGTERM."""
    engine = next(engine for engine in PEER_ENGINES if engine == name)
    overrides = [*configuration.index_overrides([f"items={file}"]), f"service.port={port}", *edits]
    load = partial(configuration.load, None, overrides=overrides)
    logs.configure(form="json", level="warning")
    serve(
        load(),
        config_path=None,
        load_settings=load,
        started=lambda _url: None,
        open_device=lambda _device, threads, _screening: PeerDevice(engine, threads or available_cpus()),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
