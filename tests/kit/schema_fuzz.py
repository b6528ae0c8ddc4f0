"""Requests that schemathesis makes of the schema a service serves, right ones and wrong ones.

Needs schemathesis. Every answer is held against the schema: its status, media type, headers and body. What is
generated is rarely the name of an index, its version, or as long as its rows: most requests are made to fit.
"""

from __future__ import annotations

import io
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Fuzzed", "Fuzzer")

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass(slots=True)
class Fuzzed:
    """What came of a run."""

    requests: int = 0
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By operation and status."""
    complaints: dict[str, str] = field(default_factory=dict)
    """The first of each kind, by operation and title."""

    @property
    def server_errors(self) -> int:
        """Answers of 500 and more."""
        return sum(count for (_, status), count in self.statuses.items() if status >= 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzer:
    """Asks the service at `url`, whose `index` of `dim` dimensions has `version` and will keep it."""

    url: str
    index: str
    version: str
    dim: int
    item: int | str
    """The id of one."""
    mask: str
    """The name of one."""
    accepted: Sequence[str] = ("*/*",)
    found: Fuzzed = field(default_factory=Fuzzed)

    def run(self, *, cases: int, number: int = 0) -> Fuzzed:
        """Up to `cases` of every operation by its schema, as many against it; `number` is the seed.

        Each is sent three times: as it was made, and twice as it fits.
        """
        _register_formats()
        schema = schemathesis.openapi.from_dict(httpx.get(f"{self.url}/schema").json())
        with requests.Session() as session:
            for each in schema.get_all_operations():
                for mode in schemathesis.GenerationMode:
                    # Where nothing can be sent, nothing wrong can.
                    with suppress(Unsatisfiable):
                        self._ask(each.ok(), mode, session, cases=cases, number=number)
        return self.found

    def _ask(self, operation: Any, mode: Any, session: Any, *, cases: int, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            case=operation.as_strategy(generation_mode=mode),
            accepted=st.tuples(st.sampled_from(self.accepted), st.sampled_from(self.accepted)),
        )
        def ask(case: Any, accepted: tuple[str, str]) -> None:
            _give_time(case)
            # Making a case takes ten times as long as sending it.
            self._send(case, session, "*/*")
            self._make_fit(case)
            for accept in accepted:
                self._send(case, session, accept)

        ask()

    def _send(self, case: Any, session: Any, accept: str) -> None:
        self._check(case, case.call(base_url=self.url, session=session, headers={"Accept": accept}))

    def _make_fit(self, case: Any) -> None:
        fitting = {"name": self.index, "version": self.version, "item": str(self.item)}
        path = case.path_parameters or {}
        path.update({name: value for name, value in fitting.items() if name in path})
        if "Kosine-Expect-Version" in (case.headers or {}):
            case.headers["Kosine-Expect-Version"] = self.version
        self._make_parameters_fit(case.query or {})
        if isinstance(case.body, dict):
            self._make_json_fit(case.body)
        elif case.media_type == "application/octet-stream" and isinstance(case.body, bytes):
            case.body = np.arange(1.0, self.dim + 1, dtype="<f4").tobytes()
        elif case.media_type == "application/x-npy":
            np.save(file := io.BytesIO(), np.arange(1.0, self.dim + 1))
            case.body = file.getvalue()

    def _make_parameters_fit(self, query: dict[str, Any]) -> None:
        """What stands beside a body of bytes."""
        fitting = {
            "k": "2",
            "mask": self.mask,
            "not_mask": self.mask,
            "min_score": "-0.5",
            "with_embeddings": "true",
            "after": "",
            "exclude": [str(self.item)],
            "include": [str(self.item), "gone"],
        }
        query.update({name: value for name, value in fitting.items() if name in query})

    def _make_json_fit(self, body: dict[str, Any]) -> None:
        body.update({name: self.mask for name in ("mask", "not_mask") if name in body})
        if "after" in body:
            body["after"] = None
        match body:
            case {"embedding": list(numbers)}:
                body["embedding"] = self._as_long(numbers)
            case {"embeddings": list(rows)}:
                body["embeddings"] = [self._as_long(row) if isinstance(row, list) else row for row in rows]
            case {"id": _}:
                body["id"] = self.item
            case {"inputs": list()}:
                tensor = {"name": "embedding", "shape": [1, self.dim], "datatype": "FP32"}
                body["inputs"] = [{**tensor, "data": self._as_long([])}]

    def _as_long(self, numbers: list[Any]) -> list[Any]:
        return [*numbers, *range(1, self.dim + 1)][: self.dim]

    def _check(self, case: Any, response: Any) -> None:
        label = case.operation.label
        self.found.requests += 1
        self.found.statuses[label, response.status_code] += 1
        try:
            case.validate_response(response, checks=_CHECKS)
        except (Failure, FailureGroup) as failure:
            for each in getattr(failure, "exceptions", [failure]):
                told = f"{each}\n{case.as_curl_command()}\n{response.status_code} {response.text[:500]}"
                self.found.complaints.setdefault(f"{label}: {each.title}", told)


def _give_time(case: Any) -> None:
    """Who asks for an answer within a millisecond is told 504, and rightly."""
    if str((case.headers or {}).get("X-Request-Timeout-Ms", "")).isdigit():
        case.headers["X-Request-Timeout-Ms"] = "60000"


def _register_formats() -> None:
    """Media types that schemathesis does not know."""
    schemathesis.serializer("application/x-npy")(_as_bytes)
    schemathesis.deserializer("application/msgpack", "application/vnd.msgpack")(_of_msgpack)


def _as_bytes(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _of_msgpack(_context: Any, response: Any) -> Any:
    return msgspec.msgpack.decode(response.content)
