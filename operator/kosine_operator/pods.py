"""Asks pods what is in force there: the only way to know that a changed ConfigMap has arrived.

A pod is asked where it runs and has an address, ready or not: why it is not ready is the first thing a person
wants to know. Answers come from other people's images, so they are bounded in time and size and decoded
strictly; whatever is wrong with one becomes the `error` of its report and nothing more.
"""

from __future__ import annotations

import asyncio
from datetime import datetime  # noqa: TC003  msgspec reads the annotations
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from kosine_operator.status import IndexReport, LoadFailure, PodReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ("Pods",)

_MOST_BYTES = 4 * 1024 * 1024
"""Of an answer: thousands of indexes."""


class _Refusal(Struct):
    detail: str


class _Configuration(Struct):
    hash: str | None = None
    refused: _Refusal | None = None


class _LastError(Struct):
    code: str
    detail: str
    at: datetime


class _Index(Struct):
    name: str
    state: str
    version: str | None = None
    rows: int | None = None
    dim: int | None = None
    bytes: int | None = None
    loaded_at: datetime | None = None
    outdated: bool = False
    last_error: _LastError | None = None


class _Indexes(Struct):
    indexes: list[_Index]


_Answer = TypeVar("_Answer", _Configuration, _Indexes)


class _Unanswered(Exception):
    """The message says why."""


class Pods:
    """Asks at most `at_once` pods at a time, each for `within` seconds at most."""

    def __init__(
        self, session: aiohttp.ClientSession, *, port: int, within: float, at_once: int = 16
    ) -> None:
        self._session = session
        self._port = port
        self._within = within
        self._turns = asyncio.Semaphore(at_once)

    async def ask(self, pods: Iterable[Mapping[str, Any]]) -> tuple[PodReport, ...]:
        """A report of each pod that is not on its way out, by name."""
        present = [pod for pod in pods if not _is_leaving(pod)]
        reports = await asyncio.gather(*(self._ask(pod) for pod in present))
        return tuple(sorted(reports, key=lambda report: report.pod))

    async def _ask(self, pod: Mapping[str, Any]) -> PodReport:
        name, ready, status = pod["metadata"]["name"], _is_ready(pod), pod["status"]
        address = status.get("podIP")
        if status.get("phase") != "Running" or not address:
            return PodReport(pod=name, ready=ready, error="not running", waiting=_waiting(status))
        try:
            async with self._turns, asyncio.timeout(self._within):
                configuration = await self._get(address, "/configuration", _Configuration)
                indexes = await self._get(address, "/indexes", _Indexes)
        except (_Unanswered, aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or f"no answer within {self._within:g} s"
            return PodReport(pod=name, ready=ready, error=reason, waiting=_waiting(status))
        return PodReport(
            pod=name,
            ready=ready,
            configuration_hash=configuration.hash,
            refused=None if configuration.refused is None else configuration.refused.detail,
            indexes={index.name: _report(index) for index in indexes.indexes},
            waiting=_waiting(status),
        )

    async def _get(self, address: str, path: str, kind: type[_Answer]) -> _Answer:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}{path}"
        async with self._session.get(url, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise _Unanswered(f"{path}: more than {_MOST_BYTES} bytes")
        if response.status != 200:  # noqa: PLR2004
            raise _Unanswered(f"{path}: HTTP {response.status}")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise _Unanswered(f"{path}: not what kosine answers: {error}") from error


def _report(index: _Index) -> IndexReport:
    failure = index.last_error
    return IndexReport(
        state=index.state,
        version=index.version,
        rows=index.rows,
        dim=index.dim,
        bytes=index.bytes,
        loaded_at=index.loaded_at,
        outdated=index.outdated,
        last_error=None
        if failure is None
        else LoadFailure(code=failure.code, detail=failure.detail, at=failure.at),
    )


def _is_leaving(pod: Mapping[str, Any]) -> bool:
    # An evicted pod stays around as failed.
    return "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in ("Failed", "Succeeded")


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _waiting(status: Mapping[str, Any]) -> str | None:
    """Why a container does not run: what `kubectl get pods` shows, and what the scheduler said."""
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return _told(waiting)
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _told(condition)
    return None


def _told(what: Mapping[str, Any]) -> str:
    reason, message = what.get("reason", ""), what.get("message", "")
    return f"{reason}: {message}" if message else str(reason)
