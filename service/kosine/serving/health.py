"""Started, ready and alive are three answers.

Ready: every required index has been tried, and one of them has a version. So one broken source holds back no
pod that serves others too, and a pod of that index alone waits. It stays ready through failed reloads, and
turns unready first when the process stops. Alive: the device thread is not stuck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosine.serving.dispatcher import Dispatcher
    from kosine.serving.registry import Registry

__all__ = ("Health",)

STUCK_SECONDS = 60.0
"""An engine call takes milliseconds; one that runs this long never comes back."""


class Health:
    """Reads registry and dispatcher; holds only whether the process is stopping."""

    def __init__(self, *, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._was_ready = False
        self.draining = False

    def ready(self) -> list[str]:
        """Reasons not to send traffic here; empty when ready."""
        if self.draining:
            return ["shutting_down"]
        if not self._was_ready:
            waiting = self._awaited()
            if waiting:
                return waiting
            self._was_ready = True
        return self._failing()

    def live(self) -> list[str]:
        """Reasons to restart the process; empty when alive."""
        stuck = self._dispatcher.busy_seconds()
        return [f"device: one engine call has run for {stuck:.0f} s"] if stuck > STUCK_SECONDS else []

    def _awaited(self) -> list[str]:
        """What the first traffic waits for: first tries, or a first success where none was good."""
        registry = self._registry
        required = [name for name in registry.names() if registry.required(name)]
        missing = [name for name in required if registry.current(name) is None]
        untried = [name for name in missing if registry.load_status(name).last_error is None]
        awaited = missing if missing == required else untried
        return [f"{name}: {registry.state(name).value}" for name in awaited]

    def _failing(self) -> list[str]:
        """The engines of all indexes failing together means that the device is gone."""
        versions = [version for name in self._registry.names() if (version := self._registry.current(name))]
        if versions and all(version.batcher.breaker.is_open for version in versions):
            return ["device: the engine fails on every query"]
        return []
