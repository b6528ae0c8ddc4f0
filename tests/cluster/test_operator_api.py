"""What the operator's way to the API server guarantees, against a real one and its real RBAC."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from kosine_operator.api_errors import Conflict, Forbidden, NotFound, Refused, Unreachable
from kosine_operator.cluster import Cluster, open_cluster
from kosine_operator.inventory import Inventory
from kosine_operator.kinds import BY_NAME, LEASE, OPTIONAL, SERVED, Kind, Ref
from kosine_operator.leader import Lease, LeaseLost
from kosine_operator.watch import Watch
from tests.kit.control_plane.manifests import config_map, role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.kit.control_plane.cluster import Namespace

CONFIG_MAP, SERVICE, DEPLOYMENT = (BY_NAME[name] for name in ("ConfigMap", "Service", "Deployment"))
OURS = {"app.kubernetes.io/managed-by": "kosine-operator"}


@pytest.fixture
async def cluster(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """As the admin."""
    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))
    async with open_cluster(within=10.0) as opened:
        yield opened


def manifest(namespace: Namespace, name: str = "items", **data: str) -> dict[str, Any]:
    """A ConfigMap of ours."""
    made = config_map(name, **data)
    made["metadata"] |= {"namespace": namespace.name, "labels": dict(OURS)}
    return made


def ref(namespace: Namespace, name: str = "items", kind: Kind = CONFIG_MAP) -> Ref:
    """Which."""
    return Ref(kind, namespace.name, name)


async def test_applying_the_same_twice_changes_nothing(cluster: Cluster, namespace: Namespace) -> None:
    """A server-side apply of what is there already is not even a new resource version."""
    first = await cluster.apply(ref(namespace), manifest(namespace, a="1"), uid=None)
    again = await cluster.apply(ref(namespace), manifest(namespace, a="1"), uid=first["metadata"]["uid"])

    assert first == again


async def test_what_is_no_longer_applied_is_removed_and_what_others_added_stays(
    cluster: Cluster, namespace: Namespace
) -> None:
    """One field manager: ours goes with us, theirs does not."""
    await cluster.apply(ref(namespace), manifest(namespace, a="1", b="2"), uid=None)
    namespace.kubectl("annotate", "configmap", "items", "team=search")

    after = await cluster.apply(ref(namespace), manifest(namespace, a="1"), uid=None)

    assert ({"a": "1"}, {"team": "search"}) == (after["data"], after["metadata"]["annotations"])


async def test_an_object_of_that_name_that_is_another_one_is_not_touched(
    cluster: Cluster, namespace: Namespace
) -> None:
    """Deleted and created again by somebody else, between our look and our write."""
    first = await cluster.apply(ref(namespace), manifest(namespace, a="1"), uid=None)
    namespace.kubectl("delete", "configmap", "items")
    with pytest.raises(Conflict):
        await cluster.apply(ref(namespace), manifest(namespace, a="2"), uid=first["metadata"]["uid"])
    namespace.apply(config_map("items", theirs="yes"))

    with pytest.raises(Conflict):
        await cluster.apply(ref(namespace), manifest(namespace, a="2"), uid=first["metadata"]["uid"])
    await cluster.delete(ref(namespace), uid=first["metadata"]["uid"])

    found = await cluster.get(ref(namespace))
    assert found is not None
    assert {"theirs": "yes"} == found["data"]


async def test_a_field_that_the_schema_lacks_is_refused_and_not_a_blip(
    cluster: Cluster, namespace: Namespace
) -> None:
    """The API server answers 500; waiting would not help."""
    with pytest.raises(Refused, match="field not declared in schema"):
        await cluster.apply(ref(namespace), manifest(namespace) | {"dta": {}}, uid=None)


async def test_what_can_never_be_is_refused(cluster: Cluster, namespace: Namespace) -> None:
    """422 with the field's path, also when only tried."""
    with pytest.raises(Refused, match=r"metadata\.name"):
        await cluster.validate(ref(namespace, "No_Name"), manifest(namespace, "No_Name"))
    with pytest.raises(Refused, match=r"metadata\.name"):
        await cluster.apply(ref(namespace, "No_Name"), manifest(namespace, "No_Name"), uid=None)


async def test_trying_writes_nothing(cluster: Cluster, namespace: Namespace) -> None:
    """A dry run goes through every check and is not stored."""
    await cluster.validate(ref(namespace), manifest(namespace))

    assert await cluster.get(ref(namespace)) is None


async def test_a_list_is_complete_over_pages(
    cluster: Cluster, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object of one moment, and only those that the selector means."""
    monkeypatch.setattr("kosine_operator.cluster._PAGE", 2)
    for number in range(5):
        await cluster.apply(ref(namespace, f"m{number}"), manifest(namespace, f"m{number}"), uid=None)

    listing = await cluster.list(
        CONFIG_MAP, namespace.name, selector="app.kubernetes.io/managed-by=kosine-operator"
    )

    assert [f"m{number}" for number in range(5)] == [obj["metadata"]["name"] for obj in listing.objects]
    assert listing.version >= max(int(obj["metadata"]["resourceVersion"]) for obj in listing.objects)


async def test_kinds_are_discovered(cluster: Cluster) -> None:
    """What the cluster has, told from what it may have."""
    assert frozenset(SERVED) == await cluster.served((*SERVED, *OPTIONAL))


async def test_what_rbac_denies_is_told_with_verb_and_resource(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's message says who may not do what."""
    monkeypatch.setenv("KUBECONFIG", str(namespace.seen_by("default").kubeconfig))
    async with open_cluster(within=10.0) as cluster:
        with pytest.raises(Forbidden, match=r'cannot list resource "configmaps"'):
            await cluster.list(CONFIG_MAP, namespace.name, selector=None)


async def test_a_kind_without_its_crd_is_not_found(cluster: Cluster, namespace: Namespace) -> None:
    """Told apart from every other trouble."""
    with pytest.raises(NotFound):
        await cluster.list(OPTIONAL[0], namespace.name, selector=None)


async def test_a_server_that_is_away_is_unreachable(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is an error like the others, and nothing is kept from it."""
    kubeconfig = namespace.kubeconfig.read_text(encoding="utf-8")
    away = namespace.kubeconfig.with_name("away.kubeconfig")
    away.write_text(kubeconfig.replace(str(namespace.plane.port), "1"), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(away))
    async with open_cluster(within=10.0) as elsewhere:
        with pytest.raises(Unreachable):
            await elsewhere.get(ref(namespace))


def candidate(cluster: Cluster, namespace: Namespace, identity: str) -> Lease:
    """One of several replicas."""
    return Lease(
        cluster,
        namespace=namespace.name,
        name="kosine-operator",
        identity=identity,
        duration=3.0,
        rng=random.Random(0),
    )


async def test_a_lease_has_one_holder_and_is_handed_over(cluster: Cluster, namespace: Namespace) -> None:
    """The second waits while the first renews, and takes over at once when it is released."""
    first, second = (candidate(cluster, namespace, name) for name in ("first", "second"))
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire())
    renewed = await until_renewed(cluster, namespace, times=3)
    assert ("first", False) == (renewed["holderIdentity"], waiting.done())

    keeping.cancel()
    await first.release()
    async with asyncio.timeout(30):
        await waiting

    lease = await cluster.get(ref(namespace, "kosine-operator", LEASE))
    assert lease is not None
    assert ("second", 2) == (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"])


async def until_renewed(cluster: Cluster, namespace: Namespace, *, times: int) -> Mapping[str, Any]:
    """The lease's spec after so many renewals."""
    seen: set[str] = set()
    async with asyncio.timeout(60):
        while True:
            lease = await cluster.get(ref(namespace, "kosine-operator", LEASE))
            assert lease is not None
            seen.add(lease["spec"]["renewTime"])
            if len(seen) > times:
                return dict(lease["spec"])
            await asyncio.sleep(0.1)


async def test_a_holder_that_went_without_a_word_is_succeeded_and_then_stops(
    cluster: Cluster, namespace: Namespace
) -> None:
    """What was paused and comes back finds the lease in other hands."""
    first, second = (candidate(cluster, namespace, name) for name in ("first", "second"))
    await first.acquire()
    async with asyncio.timeout(60):
        await second.acquire()

    assert (False, True) == (first.valid, second.valid)
    async with asyncio.timeout(60):
        with pytest.raises(LeaseLost):
            await first.keep()


RULES = (
    {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["list", "watch"]},
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "watch"]},
)


async def test_the_watch_starts_at_once_under_a_namespaced_role(
    cluster: Cluster, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the whole cluster is asked for, so nothing is denied; only what is selected comes."""
    namespace.apply(*role("watch", "default", RULES))
    monkeypatch.setenv("KUBECONFIG", str(namespace.seen_by("default").kubeconfig))
    inventory, told = Inventory(now=lambda: 0.0), asyncio.Event()

    def deliver(kind: Kind, obj: Mapping[str, Any], deleted: bool) -> None:
        if inventory.hear(kind, obj, deleted=deleted):
            told.set()

    kinds = (CONFIG_MAP, SERVICE, DEPLOYMENT)
    watch = Watch(
        selectors=dict.fromkeys(kinds, "app.kubernetes.io/managed-by=kosine-operator"),
        namespaces=(namespace.name,),
        deliver=deliver,
    )
    watching = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(30):
            await cluster.apply(ref(namespace), manifest(namespace, a="1"), uid=None)
            await told.wait()
            assert inventory.get(ref(namespace)) is not None
            told.clear()
            namespace.kubectl("label", "configmap", "items", "app.kubernetes.io/managed-by-")
            await told.wait()
            assert inventory.get(ref(namespace)) is None
    finally:
        watching.cancel()
        await asyncio.wait({watching})

    user = f"system:serviceaccount:{namespace.name}:default"
    mine = [asked for asked in namespace.plane.requests() if asked.user == user]
    assert {"list", "watch", "get"} >= {asked.verb for asked in mine}
    assert [] == [asked for asked in mine if asked.status == 403]
