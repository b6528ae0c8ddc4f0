"""What prometheus-adapter is to a cluster: a metric of pods as the custom metrics API, for autoscalers.

Each request scrapes the pods that its selector means and adds up the series of a pod, whatever their labels:
as the adapter's rule `sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)` does.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx

from tests.kit.control_plane.namespaces import NODE_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.control_plane.control_plane import ControlPlane

__all__ = ("metrics_adapter",)

_GROUP, _VERSION = "custom.metrics.k8s.io", "v1beta2"
_PATH = f"/apis/{_GROUP}/{_VERSION}"
_ASKED = re.compile(rf"{_PATH}/namespaces/([^/]+)/pods/\*/(\w+)")
_NAME = "metrics-adapter"


@contextlib.contextmanager
def metrics_adapter(namespace: Namespace) -> Iterator[None]:
    """The API, there for the whole cluster during the block; its Service is in `namespace`."""
    files = namespace.plane.files
    server = ThreadingHTTPServer((NODE_ADDRESS, 0), partial(_Handler, namespace.plane))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.authority, files.certificate_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        namespace.apply(*_manifests(namespace.name, server.server_address[1]))
        namespace.kubectl("wait", "--for=condition=Available", f"apiservice/{_VERSION}.{_GROUP}")
        yield
    finally:
        # A group that nobody serves keeps namespaces from being deleted.
        namespace.kubectl("delete", "--ignore-not-found", "apiservice", f"{_VERSION}.{_GROUP}")
        server.shutdown()
        thread.join()
        server.server_close()


def _manifests(namespace: str, port: int) -> Iterator[dict[str, Any]]:
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME},
        "spec": {"ports": [{"port": 443, "targetPort": port}]},
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": _NAME, "labels": {"kubernetes.io/service-name": _NAME}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    }
    yield {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{_VERSION}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "version": _VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": namespace, "name": _NAME},
        },
    }


class _Handler(BaseHTTPRequestHandler):
    """One connection of the API server."""

    protocol_version = "HTTP/1.1"

    def __init__(self, plane: ControlPlane, *connection: Any) -> None:
        self._plane = plane
        super().__init__(*connection)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if (asked := _ASKED.fullmatch(unquote(url.path))) is not None:
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            values = [*self._values(asked, selector)]
            self._answer({"kind": "MetricValueList", "metadata": {}, "items": values})
        elif url.path == _PATH:
            self._answer({"kind": "APIResourceList", "groupVersion": f"{_GROUP}/{_VERSION}", "resources": []})
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name above
        """The API server asks all the time."""

    def _values(self, asked: re.Match[str], selector: str) -> Iterator[dict[str, Any]]:
        namespace, metric = asked.groups()
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={quote(selector)}"
        for pod in self._plane.admin.request("GET", path).body["items"]:
            value = _scraped(pod["status"].get("podIP"), metric)
            if value is not None:
                name = pod["metadata"]["name"]
                yield {
                    "describedObject": {
                        "kind": "Pod",
                        "apiVersion": "/v1",
                        "namespace": namespace,
                        "name": name,
                    },
                    "metric": {"name": metric},
                    "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "value": str(value),
                }

    def _answer(self, body: dict[str, Any]) -> None:
        api_version = "v1" if body["kind"] == "APIResourceList" else f"{_GROUP}/{_VERSION}"
        content = json.dumps({"apiVersion": api_version, **body}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _scraped(address: str | None, metric: str) -> int | None:
    if address is None:
        return None
    try:
        text = httpx.get(f"http://{address}:8080/metrics", timeout=5, trust_env=False).text
    except httpx.HTTPError:
        return None
    found = re.findall(rf"(?m)^{metric}(?:\{{[^}}]*\}})? (\S+)$", text)
    return round(sum(map(float, found))) if found else None
