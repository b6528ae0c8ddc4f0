"""What the operator writes is what the service reads: the file, and the arguments of its container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine import configuration
from kosine.cli import main
from kosine.units import Size
from kosine_operator.quantities import bytes_of
from tests.kit.operator_pools import (
    EXAMPLES,
    a_server,
    an_index,
    configuration_text,
    example_pools,
    manifest,
    pool_for,
    rendered,
)

if TYPE_CHECKING:
    from kosine.settings import Settings
    from kosine_operator.render import Rendered

MOUNTED = Path("/etc/kosine")


def settings_of(found: Rendered) -> Settings:
    """As `kosine serve` would load them in the pod."""
    arguments = manifest(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    context = main.make_context("kosine", list(arguments[:1]), resilient_parsing=True)
    command = main.get_command(context, arguments[0])
    assert command is not None
    options = command.make_context(arguments[0], list(arguments[1:]), parent=context).params
    assert MOUNTED / "kosine.yaml" == options["config_path"]
    return configuration.parse(configuration_text(found), overrides=options["edits"], folder=MOUNTED)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_service_takes_what_an_example_becomes(path: Path) -> None:
    """Every index under its name, and nothing the service does not know."""
    for pool in example_pools(path):
        loaded = settings_of(rendered(pool))
        assert [index.metadata.name for index in pool.indexes] == [*loaded.indexes]
        assert ("0.0.0.0", 8080) == (loaded.service.host, loaded.service.port)


def test_every_value_arrives() -> None:
    """The settings of the process are those of the resource, and so are those of the index."""
    process = {"threads": 3, "memoryLimit": "7Gi", "loadSlots": 1, "maxTimeout": "10s", "bodyLimit": "256Ki"}
    s3 = {"endpointUrl": "http://minio:9000", "region": "eu-central-1", "anon": True}
    stores = {"s3": s3, "parallel": 3, "idleTimeout": "5s", "requestTimeout": "1m"}
    limits = {"maxConnections": 9, "drainDelay": "7s", "grace": "11s"}
    server = {"process": {**process, **limits}, "stores": stores, "gpu": {}}
    spec = {
        "k": 3,
        "maxK": 9,
        "batch": {"queueBytes": "1Mi"},
        "refresh": {"interval": "1m"},
        "server": server,
    }
    loaded = settings_of(rendered(pool_for(an_index("items", spec))))
    service, index = loaded.service, loaded.indexes["items"]
    assert (3, Size(7 * 2**30), 1, 10.0, Size(2**18), 9, 7.0, 11.0, "gpu") == (
        service.threads,
        service.memory_limit,
        service.load_slots,
        service.max_timeout,
        service.body_limit,
        service.max_connections,
        service.drain_delay,
        service.grace,
        service.device,
    )
    found = service.stores
    assert ("http://minio:9000", "eu-central-1", True) == (
        found.s3.endpoint_url,
        found.s3.region,
        found.s3.anon,
    )
    assert (3, 5.0, 60.0) == (found.parallel, found.idle_timeout, found.request_timeout)
    assert (3, 9, Size(2**20), 60.0) == (
        index.k,
        index.max_k,
        index.batch.queue_bytes,
        index.refresh.interval,
    )


@pytest.mark.parametrize(
    ("folder", "server", "source", "volume"),
    [
        (
            "/var/cache/kosine",
            {"cache": {"sizeLimit": "2Gi"}},
            {},
            {"name": "cache", "emptyDir": {"sizeLimit": "2Gi"}},
        ),
        (
            "/var/cache/kosine",
            {"cache": {"claimName": "copies"}},
            {},
            {"name": "cache", "persistentVolumeClaim": {"claimName": "copies"}},
        ),
        (
            "/var/run/kosine/credentials/indexes",
            {"credentials": {"indexes": {"name": "teams"}}},
            {"credentials": "team-a"},
            {"name": "credentials-indexes", "secret": {"secretName": "teams", "optional": True}},
        ),
    ],
    ids=["emptyDir", "claim", "credentials"],
)
def test_a_folder_that_the_service_is_told_of_is_mounted(
    folder: str, server: dict[str, Any], source: dict[str, Any], volume: dict[str, Any]
) -> None:
    """Under the same path; copies can be written, and an index finds its key."""
    spec = {"server": server, "source": {"uri": "s3://bucket/items.npy", **source}}
    found = rendered(pool_for(an_index("items", spec)))
    loaded = settings_of(found)
    assert folder in {loaded.service.cache_dir, loaded.service.stores.credentials_dir}
    assert source.get("credentials") == loaded.indexes["items"].credentials
    pod = manifest(found, "Deployment")["spec"]["template"]["spec"]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["mountPath"] == folder]
    assert volume in pod["volumes"]
    assert (volume["name"], "cache" not in server) == (mount["name"], mount.get("readOnly", False))


def test_a_pod_has_time_to_drain_before_it_is_killed() -> None:
    """`terminationGracePeriodSeconds` is longer than `drain_delay` and `grace` together."""
    for process in ({}, {"drainDelay": "250ms", "grace": "1h"}):
        found = rendered(pool_for(an_index("items", {"server": {"process": process}})))
        service = settings_of(found).service
        pod = manifest(found, "Deployment")["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > service.drain_delay + service.grace
        assert service.drain_delay > 0


def test_the_default_index_arrives() -> None:
    """With one index it is that one; with several the one that the server names."""
    ref = {"serverRef": {"name": "shared"}}
    one, two = an_index("a", ref), an_index("b", ref)
    for spec, default in (({}, None), ({"defaultIndex": "b"}, "b")):
        found = pool_for(one, a_server("shared", spec), others=[two])
        assert default == settings_of(rendered(found)).default_index
    assert "a" == settings_of(rendered(pool_for(one, a_server("shared")))).default_index


def _drops_what_it_compares_with(spec: dict[str, Any]) -> bool:
    """A rule of the CRD refuses it."""
    asked = spec.get("canary", {}).keys() & {"golden", "minOverlapPercent"}
    return spec.get("policy") == "resource_preserving" and bool(asked)


@settings(max_examples=50, deadline=None)
@given(
    spec=st.fixed_dictionaries(
        {},
        optional={
            "metric": st.sampled_from(["cosine", "dot"]),
            "k": st.integers(1, 10),
            "maxK": st.integers(10, 16384),
            "maxQueryRows": st.integers(1, 4096),
            "history": st.integers(0, 32),
            "timeout": st.sampled_from(["1ms", "250ms", "60s", "1m"]),
            "policy": st.sampled_from(["availability_preserving", "resource_preserving"]),
            "required": st.booleans(),
            "dim": st.integers(1, 65536),
            "batch": st.fixed_dictionaries(
                {},
                optional={
                    "maxRows": st.integers(1, 4096),
                    "queueRows": st.integers(4096, 1_000_000),
                    "linger": st.sampled_from(["0s", "500us", "1ms"]),
                    "queueBytes": st.sampled_from(["256Ki", "1Gi", "64Gi"]),
                },
            ),
            "guard": st.fixed_dictionaries(
                {},
                optional={
                    "dimChange": st.sampled_from(["refuse", "allow"]),
                    "minRows": st.integers(1, 2**31 - 1),
                    "maxShrinkPercent": st.integers(0, 100),
                },
            ),
            "canary": st.fixed_dictionaries(
                {},
                optional={
                    "maxRowDriftPercent": st.integers(0, 10_000),
                    "golden": st.sampled_from(["s3://bucket/golden.json", "pvc://claim/golden.json"]),
                    "minOverlapPercent": st.integers(0, 100),
                    "overlapK": st.integers(1, 100),
                    "overlapSample": st.integers(1, 1000),
                },
            ),
        },
    ).filter(lambda spec: not _drops_what_it_compares_with(spec)),
    name=st.sampled_from(["items", "on", "null", "e1", "true", "y", "a-1"]),
)
def test_whatever_the_crd_admits_the_service_takes(spec: dict[str, Any], name: str) -> None:
    """No value, and no name that YAML could read as something else, is lost or refused on the way."""
    loaded = settings_of(rendered(pool_for(an_index(name, spec)))).indexes[name]
    for field in ("metric", "k", "policy", "required", "dim"):
        assert field not in spec or getattr(loaded, field) == spec[field]
    batch = spec.get("batch", {})
    assert "queueBytes" not in batch or bytes_of(batch["queueBytes"]) == loaded.batch.queue_bytes
    assert "maxShrinkPercent" not in spec.get("guard", {}) or (
        loaded.guard.max_shrink_percent == spec["guard"]["maxShrinkPercent"]
    )
    golden = spec.get("canary", {}).get("golden")
    assert golden is None or (loaded.canary.golden or "").endswith("/golden.json")
