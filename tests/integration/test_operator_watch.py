"""What a watch may meet, scripted by kmock: a real API server shows none of it on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import kmock as mock
import pytest

from kosine_operator.kinds import BY_NAME, Kind
from kosine_operator.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

SERVICE = BY_NAME["Service"]
CRDS = mock.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def service(version: int) -> dict[str, Any]:
    return {"metadata": {"name": "items", "namespace": "shop", "resourceVersion": str(version)}}


def event(kind: str, obj: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


async def silent(_: Any) -> AsyncIterator[bytes]:
    """A connection that was open once and of which nobody told us."""
    yield b""
    await asyncio.Event().wait()


SURVIVED: dict[str, Any] = {
    "gone by event": event("ERROR", GONE),
    "too many requests": mock.KubernetesError(status=429, reason="TooManyRequests", message="later"),
    "closed at once": b"",
    "silence": silent,
}
FATAL: dict[str, Any] = {
    "gone by status": mock.KubernetesError(status=410, reason="Expired", message="too old"),
    "an error by event": event("ERROR", {"kind": "Status", "code": 500, "message": "etcd"}),
    "garbage": b"<html>bad gateway</html>\n",
    "a line that is cut": b'{"type": "MODIFIED", "object": {"metad',
    "an event without an object": b'{"type": "MODIFIED"}\n',
}
"""What kopf ends with."""


class Script:
    """An API server with one Service: watched, it errs once, and meanwhile the Service has changed."""

    def __init__(self, fault: Any) -> None:
        self.version = 5
        self.watched = 0
        self._fault = fault

    async def list(self, _: Any) -> dict[str, Any]:
        """As of now."""
        return {"metadata": {"resourceVersion": str(self.version)}, "items": [service(self.version)]}

    async def watch(self, _: Any) -> Any:
        """The fault, then what happened since."""
        self.watched += 1
        if self.watched == 1:
            self.version = 7
            return self._fault
        return self._told

    async def _told(self, _: Any) -> AsyncIterator[bytes]:
        yield event("MODIFIED", service(self.version))
        await asyncio.Event().wait()


def serve(kmock: mock.KubernetesScaffold, script: Script) -> None:
    """What kopf looks for before it watches, and Services by the script."""
    services = mock.resource("", "v1", "services")
    known = (services, mock.resource("", "v1", "namespaces"), CRDS)
    for resource in known:
        told = mock.ResourceInfo(verbs={"list", "watch"}, namespaced=resource is services)
        kmock.resources[resource] = told
    kmock["list", services] << script.list
    kmock["watch", services] << script.watch


@contextlib.asynccontextmanager
async def watching(told: Callable[[Kind, Mapping[str, Any], bool], None]) -> AsyncIterator[None]:
    """A watch of Services for the time of the block."""
    watch = Watch(selectors={SERVICE: None}, namespaces=("shop",), deliver=told, longest_silence=1.0)
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def told_after(fault: Any, kmock: mock.KubernetesScaffold) -> Script:
    """Come back once the change behind the fault was told."""
    script, newest = Script(fault), asyncio.Event()
    serve(kmock, script)

    def told(_: Kind, obj: Mapping[str, Any], deleted: bool) -> None:
        if obj["metadata"]["resourceVersion"] == "7" and not deleted:
            newest.set()

    async with watching(told), asyncio.timeout(60):
        await newest.wait()
    return script


@pytest.fixture(autouse=True)
def _kubeconfig(kmock: mock.KubernetesScaffold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig_for(str(kmock.url))), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))


@pytest.mark.parametrize("fault", (SURVIVED | FATAL).values(), ids=(SURVIVED | FATAL).keys())
async def test_whatever_ends_a_watch_what_came_since_is_told(
    kmock: mock.KubernetesScaffold, fault: Any
) -> None:
    """By another list or another watch; nobody has to restart anything."""
    script = await told_after(fault, kmock)

    assert script.watched > 0


async def test_kopf_waits_for_nothing_when_it_ends_of_itself(
    kmock: mock.KubernetesScaffold, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it takes 5 s to end, for which nobody watches; these are its words for either."""
    caplog.set_level("DEBUG", logger="kopf")
    await told_after(FATAL["garbage"], kmock)

    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Hung tasks")]
    assert {"Hung tasks stopping is skipped: no tasks given."} == set(said)


def kubeconfig_for(server: str) -> dict[str, Any]:
    """Of an API server that asks nobody who they are."""
    name = "scripted"
    return {
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {"token": "none"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
