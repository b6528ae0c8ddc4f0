"""A service that writes no file needs no disk: nothing to fill, nothing to clean up, nothing to leak."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

LOAD = """
import asyncio, json, os, sys
from pathlib import Path

written, watching = [], False

def hook(event, arguments):
    if watching and event == "open":
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(str(path))

sys.addaudithook(hook)
from kosine.settings import IndexSettings
from tests.kit.loads import index_settings, rig

async def load(path):
    global watching
    async with rig() as service:
        watching = True
        await service.apply(items=index_settings(Path(path)))
        await service.registry.until(lambda: service.serves() is not None)
        await service.catalog.force("items")
        watching = False

asyncio.run(load(sys.argv[1]))
print(json.dumps(written))
"""


def test_a_load_opens_no_file_for_writing(tmp_path: Path) -> None:
    """N15: no temporary copy, no cache: a full or read-only disk cannot fail a load."""
    path = tmp_path / "items.npy"
    np.save(path, np.eye(8, dtype=np.float32))

    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True, timeout=60
    )

    assert [] == json.loads(done.stdout.splitlines()[-1])
