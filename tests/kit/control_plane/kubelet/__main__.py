"""`python -m tests.kit.control_plane.kubelet SETTINGS.json`: until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.kit.control_plane.kubelet.kubelet import Kubelet
from tests.kit.control_plane.kubelet.settings import KubeletSettings


async def main(settings: KubeletSettings) -> None:
    """Run that kubelet."""
    running = asyncio.create_task(Kubelet(settings).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=KubeletSettings)))
