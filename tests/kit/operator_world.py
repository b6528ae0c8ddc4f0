"""A namespace with an operator and an S3 store that its pods reach, in the words of a user of both."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import yaml

from tests.kit.control_plane.cluster import until
from tests.kit.control_plane.namespaces import NODE_ADDRESS
from tests.kit.npy_files import npy_bytes
from tests.kit.object_stores import BUCKET, ObjectServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.control_plane.cluster import Namespace

__all__ = ("S3_KEYS", "Callers", "World", "callers", "s3_for_pods", "unit_vectors")

_PORT = 9000
_CREDENTIALS = "store"
_OURS = "app.kubernetes.io/managed-by=kosine-operator"
_CHILDREN = "configmaps,services,deployments,poddisruptionbudgets,networkpolicies"
_API = "kosine.dev/v1alpha1"
S3_KEYS = "[default]\naws_access_key_id = reader\naws_secret_access_key = secret\n"
"""A credentials file of the store, which asks for some and checks none."""


@contextlib.contextmanager
def s3_for_pods(port: int = _PORT) -> Iterator[ObjectServer]:
    """S3 by moto at the node's address: pods have networks of their own and reach no loopback."""
    endpoint = f"http://{NODE_ADDRESS}:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", NODE_ADDRESS, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(
            lambda: httpx.put(f"{endpoint}/{BUCKET}", timeout=60, trust_env=False).is_success,
            what="an S3 server",
            despite=httpx.TransportError,
        )
        yield ObjectServer("s3", endpoint)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class World:
    """Indexes are of 4 rows: row number `first` answers a query along axis 0."""

    namespace: Namespace
    store: ObjectServer

    def publish(self, name: str, *, first: int = 0, dim: int = 4) -> None:
        """Write the index's file: the `unit_vectors`."""
        self.store.put(self._key(name), unit_vectors(first=first, dim=dim))

    def publish_garbage(self, name: str) -> None:
        """Write a file that is none."""
        self.store.put(self._key(name), b"<html>not found</html>")

    def withdraw(self, name: str) -> None:
        """Delete the index's file."""
        self.store.delete(self._key(name))

    def index(self, name: str, *, server: dict[str, Any] | str | None = None, **spec: Any) -> dict[str, Any]:
        """A CosineIndex of its own, or served by the CosineServer `server`."""
        where: dict[str, Any] = (
            {"serverRef": {"name": server}}
            if isinstance(server, str)
            else {"server": self.pods(**(server or {}))}
        )
        return {
            "apiVersion": _API,
            "kind": "CosineIndex",
            "metadata": {"name": name},
            "spec": {
                "source": {"uri": self.store.uri(self._key(name))},
                "refresh": {"interval": "1s"},
                **where,
                **spec,
            },
        }

    def podless(self, name: str, **spec: Any) -> dict[str, Any]:
        """A CosineIndex of its own with everything but pods."""
        return self.index(name, server={"replicas": 0}, **spec)

    def server(self, name: str, **spec: Any) -> dict[str, Any]:
        """A CosineServer."""
        return {
            "apiVersion": _API,
            "kind": "CosineServer",
            "metadata": {"name": name},
            "spec": self.pods(**spec),
        }

    def pods(self, **spec: Any) -> dict[str, Any]:
        """What is pod-shaped: they find the store, and may read it."""
        return {
            "stores": {"s3": {"endpointUrl": self.store.endpoint, "region": "us-east-1"}},
            "credentials": {"s3": {"name": _CREDENTIALS}},
            "process": {"drainDelay": "1s", "grace": "5s", "threads": 1},
            **spec,
        }

    def allow(self) -> None:
        """Write the Secret that pods read the store with."""
        self.secret(_CREDENTIALS, {"credentials": S3_KEYS})

    def secret(self, name: str, files: dict[str, str]) -> None:
        """Write a Secret."""
        metadata = {"name": name}
        self.namespace.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files}
        )

    def ready(self, *names: str, within: float = 120.0) -> None:
        """Wait until the status says so of this very generation."""
        for name in names:
            until(lambda name=name: self.is_ready(name), what=f"{name} ready", within=within)  # type: ignore[misc]

    def is_ready(self, name: str) -> bool:
        """Whether `Ready` is true of the newest generation."""
        found = self.namespace.get("cosineindex", name)
        condition = condition_of(found, "Ready")
        generation = (found or {"metadata": {}})["metadata"].get("generation")
        return (condition.get("status"), condition.get("observedGeneration")) == ("True", generation)

    def is_settled(self, name: str) -> bool:
        """Whether the status of an index is of its newest generation, and its children are there."""
        found = self.namespace.get("cosineindex", name) or {"metadata": {}}
        condition = condition_of(found, "Ready")
        observed = condition.get("observedGeneration") == found["metadata"].get("generation")
        return observed and self.children(name) == ["ConfigMap", "Deployment", "Service"]

    def children(self, name: str | None = None) -> list[str]:
        """Kinds of the objects of one name, or kind/name of all that the operator made."""
        found = self.namespace.list(_CHILDREN, _OURS)
        mine = [each for each in found if name in (None, each["metadata"]["name"])]
        return sorted(each["kind"] if name else f"{each['kind']}/{each['metadata']['name']}" for each in mine)

    def indexes_of(self, pool: str) -> set[str]:
        """The indexes that the pods of a pool are told to serve."""
        found = self.namespace.get("configmap", pool) or {"data": {}}
        document = yaml.safe_load(found["data"].get("kosine.yaml", "")) or {"indexes": {}}
        return set(document["indexes"])

    def condition(self, name: str, kind: str, status: str, *, within: float = 60.0) -> dict[str, Any]:
        """Wait for a condition of an index; the condition."""

        def find() -> dict[str, Any] | None:
            found = condition_of(self.namespace.get("cosineindex", name), kind)
            return found if found.get("status") == status else None

        return until(find, what=f"{name}: {kind}={status}", within=within)

    def status(self, name: str) -> dict[str, Any]:
        """Of an index."""
        found = self.namespace.get("cosineindex", name) or {}
        return dict(found.get("status", {}))

    def pod_names(self) -> set[str]:
        """Pods that are not on their way out."""
        return {
            pod["metadata"]["name"]
            for pod in self.namespace.list("pods")
            if "deletionTimestamp" not in pod["metadata"]
        }

    def ask(self, name: str, *, k: int | None = None, dim: int = 4) -> dict[str, Any]:
        """The Service's answer to a query along axis 0. Raises HTTPError."""
        url = f"http://{self.namespace.cluster_address(name)}/indexes/{name}/cos"
        query = {"embedding": [1.0, *[0.0] * (dim - 1)]} | ({} if k is None else {"k": k})
        answer = httpx.post(url, json=query, timeout=10, trust_env=False)
        answer.raise_for_status()
        return dict(answer.json())

    def first(self, name: str) -> int:
        """The row that answers a query along axis 0."""
        return int(self.ask(name)["result"][0][0])

    def _key(self, name: str) -> str:
        return f"{self.namespace.name}/{name}.npy"


def unit_vectors(*, first: int = 0, dim: int = 4) -> bytes:
    """An index's file: them, turned so that row `first` is that of axis 0."""
    return npy_bytes(np.roll(np.eye(dim, dtype=np.float32), first, axis=0))


def condition_of(resource: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """A condition of a resource; empty where it has none."""
    conditions = (resource or {}).get("status", {}).get("conditions", ())
    return next((dict(each) for each in conditions if each["type"] == kind), {})


@dataclass(slots=True)
class Callers:
    """Somebody who asks all the time, each time over a connection of its own."""

    world: World
    name: str
    answers: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until told to stop."""
        url = f"http://{self.world.namespace.cluster_address(self.name)}/indexes/{self.name}/cos"
        while not self.stop.is_set():
            try:
                answer = httpx.post(
                    url, json={"embedding": [1.0, 0.0, 0.0, 0.0]}, timeout=10, trust_env=False
                )
                if answer.status_code == httpx.codes.OK:
                    self.answers.append(int(answer.json()["result"][0][0]))
                else:
                    self.failures.append(answer.text)
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            time.sleep(0.02)


@contextlib.contextmanager
def callers(world: World, name: str) -> Iterator[Callers]:
    """Ask the index's Service during the block."""
    asking = Callers(world, name)
    thread = threading.Thread(target=asking.run)
    thread.start()
    try:
        yield asking
    finally:
        asking.stop.set()
        thread.join()
