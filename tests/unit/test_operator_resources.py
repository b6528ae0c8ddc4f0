"""Stored objects as typed values: newer fields are ignored, wrong ones are named by their path."""

from __future__ import annotations

from typing import Any

import pytest

from kosine_operator.quantities import seconds_of
from kosine_operator.resources import InvalidResource, parse_index, parse_server

METADATA = {"name": "items", "namespace": "search", "uid": "u", "managedFields": []}


def test_fields_of_a_newer_crd_are_ignored() -> None:
    """An operator that is older than the CRDs goes on with what it knows."""
    spec = {"source": {"uri": "s3://bucket/items.npy", "format": "parquet"}, "tier": "gold"}
    assert "s3://bucket/items.npy" == parse_index({"metadata": METADATA, "spec": spec}).spec.source.uri


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({}, "spec"),
        ({"source": {"uri": 3}}, "spec.source.uri"),
        ({"source": {"uri": "s3://b/a"}, "k": "ten"}, "spec.k"),
        ({"source": {"uri": "s3://b/a"}, "refresh": {"interval": "1 minute"}}, "spec.refresh.interval"),
        (
            {"source": {"uri": "s3://b/a"}, "server": {"tolerations": [{"operator": "Is"}]}},
            "spec.server.tolerations",
        ),
    ],
)
def test_what_cannot_be_read_is_named(spec: dict[str, Any], path: str) -> None:
    """Another CRD let it in: the path of the field, and what was expected."""
    with pytest.raises(InvalidResource) as raised:
        parse_index({"metadata": METADATA, "spec": spec})
    assert raised.value.path.startswith(path)
    assert raised.value.reason
    assert str(raised.value).startswith(path)


def test_a_server_has_only_defaults() -> None:
    """An empty spec is a server of one pod."""
    spec = parse_server({"metadata": METADATA, "spec": {}}).spec
    assert (None, False) == (spec.replicas, spec.paused)


def test_a_duration_that_is_none_is_refused() -> None:
    """The notation of the service, one unit at a time."""
    with pytest.raises(ValueError, match="expected a duration such as"):
        seconds_of("1h30m")
