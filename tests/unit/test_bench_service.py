"""The service that a bench starts."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from kosine.bench.service_process import ServiceProcess


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_while_starting_a_service_leaves_none(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that comes when the process is there and nobody has heard of it is told once it has ended."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            signal.raise_signal(number)

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(SystemExit) as told, ServiceProcess({}, edits=[]):
            raise AssertionError("the block began")
    finally:
        signal.signal(number, before)
    assert 128 + number == told.value.code
    assert [True] == [each.returncode is not None for each in started]
    assert stop is not signal.getsignal(number)
