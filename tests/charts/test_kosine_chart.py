"""The chart `kosine`: values become what the service reads, and what stands around it fits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kosine import configuration
from tests.kit.chart_cases import Case, cases
from tests.kit.chart_files import CHARTS
from tests.kit.helm import Helm, Refused, by_kind

if TYPE_CHECKING:
    from pathlib import Path

    from kosine.settings import Settings
    from tests.kit.helm import Manifest

CHART = CHARTS / "kosine"
CASES = [pytest.param(case, id=case.path.stem) for case in cases("kosine")]


def rendered(helm: Helm, values: dict[str, Any] | None = None) -> dict[str, list[Manifest]]:
    return by_kind(helm.template(CHART, values))


def container_of(manifests: dict[str, list[Manifest]]) -> dict[str, Any]:
    [deployment] = manifests["Deployment"]
    return dict(deployment["spec"]["template"]["spec"]["containers"][0])


def configured(manifests: dict[str, list[Manifest]], folder: Path) -> Settings:
    """The settings that the pod's command would run with."""
    path = folder / "kosine.yaml"
    path.write_text(next(each["data"]["kosine.yaml"] for each in manifests["ConfigMap"]), encoding="utf-8")
    options = [option for option in container_of(manifests)["args"] if option.startswith("--set=")]
    return configuration.load(path, overrides=[option.removeprefix("--set=") for option in options])


@pytest.mark.parametrize("case", CASES)
def test_the_service_reads_what_the_values_say(helm: Helm, case: Case, tmp_path: Path) -> None:
    """Indexes, defaults and process settings mean in the pod what they mean in the values."""
    values = case.values
    said = {
        "service": {
            "host": "0.0.0.0",
            "drain_delay": "5s",
            "grace": "30s",
            "file_roots": "/data",
            **({"device": "gpu"} if values.get("gpu", {}).get("enabled") else {}),
            **({"cache_dir": "/var/cache/kosine"} if "cacheSizeLimit" in values else {}),
            **values.get("process", {}),
        },
        "defaults": values.get("defaults", {}),
        "indexes": values.get("indexes", {}),
        "default_index": values.get("defaultIndex") or None,
    }
    expected = configuration.parse(yaml.safe_dump(said), folder=tmp_path)
    assert expected == configured(by_kind(case.render(helm)), tmp_path)


def test_a_change_of_indexes_leaves_pods_alone(helm: Helm) -> None:
    """Indexes are followed live: the Deployment does not change with them, only the ConfigMap."""
    one = rendered(helm, {"indexes": {"items": {"uri": "s3://bucket/items.npy"}}})
    two = rendered(
        helm, {"indexes": {"items": {"uri": "s3://bucket/other.npy", "k": 3}}, "defaults": {"k": 2}}
    )
    assert one["Deployment"] == two["Deployment"]
    assert one["ConfigMap"] != two["ConfigMap"]


def test_a_change_of_the_process_rolls_pods(helm: Helm) -> None:
    """What a process reads once is an option of its command, so a new value is a new pod."""
    one, two = rendered(helm), rendered(helm, {"process": {"stores": {"parallel": 4}}})
    assert one["Deployment"] != two["Deployment"]
    assert one["ConfigMap"] == two["ConfigMap"]


def test_the_configuration_is_mounted_as_a_folder(helm: Helm) -> None:
    """A subPath would never change; a folder has the link that kubelet flips."""
    mounts = {mount["name"]: mount for mount in container_of(rendered(helm))["volumeMounts"]}
    assert {"name": "configuration", "mountPath": "/etc/kosine", "readOnly": True} == mounts["configuration"]


TYPOS: list[tuple[dict[str, Any], str]] = [
    ({"replcas": 2}, "replcas"),
    ({"replicaCount": 2}, "replicaCount"),
    ({"replicas": "two"}, "/replicas"),
    ({"image": {"repo": "x"}}, "repo"),
    ({"image": {"digest": "sha256:12"}}, "/image/digest"),
    ({"image": {"repository": "kosine:1"}}, "/image/repository"),
    ({"indexes": {"items": {"url": "s3://b/k"}}}, "url"),
    ({"indexes": {"items": {"k": 3}}}, "uri"),
    ({"indexes": {"Items": {"uri": "s3://b/k"}}}, "Items"),
    ({"indexes": {"items": {"uri": "s3://b/k", "layuot": "rows"}}}, "layuot"),
    ({"indexes": {"items": {"uri": "s3://b/k", "layout": "row"}}}, "/indexes/items/layout"),
    ({"indexes": {"items": {"uri": "s3://b/k", "batch": {"maxRows": 5}}}}, "maxRows"),
    ({"indexes": {"items": {"uri": "s3://b/k", "refresh": {"interval": "5 minutes"}}}}, "interval"),
    ({"indexes": {"items": {"uri": "s3://b/k", "k": 0}}}, "/indexes/items/k"),
    ({"defaults": {"uri": "s3://b/k"}}, "uri"),
    ({"defaults": {"max_k": 10**6}}, "/defaults/max_k"),
    ({"defaultIndexes": "items"}, "defaultIndexes"),
    ({"process": {"port": 9000}}, "port"),
    ({"process": {"drainDelay": "5s"}}, "drainDelay"),
    ({"process": {"memory_limit": "2Gi"}}, "/process/memory_limit"),
    ({"process": {"stores": {"s3": {"endpoint": "http://x"}}}}, "endpoint"),
    ({"gpu": {"enable": True}}, "enable"),
    ({"gpu": True}, "/gpu"),
    ({"resources": {"limit": {"memory": "1Gi"}}}, "limit"),
    ({"persistence": {"a": {"claim": "x"}}}, "claim"),
    ({"persistence": {"a": {}}}, "/persistence/a"),
    ({"persistence": {"a": {"size": "1Gi", "existingClaim": "b"}}}, "/persistence/a"),
    ({"stores": {"s3": {"secret": "x"}}}, "secret"),
    ({"service": {"type": "External"}}, "/service/type"),
    ({"ingress": {"host": "x"}}, "host"),
    ({"ingress": {"paths": ["cos"]}}, "/ingress/paths"),
    ({"httpRoute": {"enabled": True}}, "parentRefs"),
    ({"autoscaling": {"enabled": True}}, "enabled"),
    ({"autoscaling": {"mode": "vpa"}}, "/autoscaling/mode"),
    ({"networkPolicy": {"enabled": "yes"}}, "/networkPolicy/enabled"),
    ({"metrics": {"serviceMonitor": {"intervall": "5s"}}}, "intervall"),
    ({"probes": {"readiness": {"httpGet": {"path": "/"}}}}, "httpGet"),
    ({"commonLabels": {"app.kubernetes.io/name": "other"}}, "app.kubernetes.io/name"),
    ({"podLabels": {"app.kubernetes.io/instance": "other"}}, "app.kubernetes.io/instance"),
    ({"nodeSelector": {"gpu": True}}, "/nodeSelector/gpu"),
    ({"affinity": {"nodeafinity": {}}}, "nodeafinity"),
    ({"extraEnv": [{"nme": "A"}]}, "nme"),
    ({"fullnameOverride": "Not a name"}, "/fullnameOverride"),
]


@pytest.mark.parametrize(("values", "named"), TYPOS, ids=lambda part: part if isinstance(part, str) else "")
def test_a_typo_is_an_error_that_names_it(helm: Helm, values: dict[str, Any], named: str) -> None:
    """Nothing that is not understood is silently ignored."""
    with pytest.raises(Refused, match=rf"{re.escape(named)}\b"):
        helm.template(CHART, values)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 40),
        ({"process": {"drain_delay": "0s", "grace": "1m"}}, 65),
        ({"process": {"drain_delay": "1500ms", "grace": 2}}, 9),
        ({"terminationGracePeriodSeconds": 41}, 41),
    ],
)
def test_a_pod_is_not_killed_while_it_answers(helm: Helm, values: dict[str, Any], seconds: int) -> None:
    """SIGKILL comes after `drain_delay` and `grace`, and some time to free what is loaded."""
    [deployment] = rendered(helm, values)["Deployment"]
    assert seconds == deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {"cpu": "1", "memory": "2Gi"}),
        ({"limits": {"memory": "24Gi"}}, {"cpu": "1", "memory": "24Gi"}),
        ({"requests": {"memory": "4Gi"}}, {"cpu": "1", "memory": "4Gi"}),
        ({"limits": {"memory": None}}, {"cpu": "1"}),
        ({"limits": None, "requests": None}, None),
    ],
)
def test_the_memory_limit_is_requested(
    helm: Helm, resources: dict[str, Any], expected: dict[str, str] | None
) -> None:
    """Unless something else is: a matrix is there all the time, and nobody should be promised its room."""
    assert expected == container_of(rendered(helm, {"resources": resources}))["resources"].get("requests")


def test_copies_have_a_volume_of_their_own(helm: Helm, tmp_path: Path) -> None:
    """Where the service is told to keep them, writable, of the size that was said."""
    manifests = rendered(
        helm, {"cacheSizeLimit": "20Gi", "indexes": {"items": {"uri": "s3://vectors/items.npy"}}}
    )
    [mount] = [each for each in container_of(manifests)["volumeMounts"] if each["name"] == "cache"]
    assert {"name": "cache", "mountPath": str(configured(manifests, tmp_path).service.cache_dir)} == mount
    [deployment] = manifests["Deployment"]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "cache", "emptyDir": {"sizeLimit": "20Gi"}} in volumes


def test_two_places_for_copies_are_refused(helm: Helm) -> None:
    """One of them would be empty."""
    with pytest.raises(Refused, match="expected at most one"):
        helm.template(CHART, {"cacheSizeLimit": "20Gi", "process": {"cache_dir": "/copies"}})


def test_too_little_time_to_drain_is_refused(helm: Helm) -> None:
    """The message says how much is needed."""
    with pytest.raises(Refused, match="expected at least 40"):
        helm.template(CHART, {"terminationGracePeriodSeconds": 39})


def test_probes_ask_the_real_routes(helm: Helm) -> None:
    """Alive and ready are different questions; loading for long is no reason to restart."""
    container = container_of(rendered(helm))
    asked = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")
    }
    assert {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"} == asked


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, "kosine:0.1.0"),
        ({"gpu": {"enabled": True}}, "kosine:0.1.0-gpu"),
        ({"image": {"repository": "r.example.org/k", "tag": "next"}}, "r.example.org/k:next"),
        ({"image": {"digest": f"sha256:{'0' * 64}"}}, f"kosine@sha256:{'0' * 64}"),
    ],
)
def test_an_image_is_named_by_tag_or_digest(helm: Helm, values: dict[str, Any], image: str) -> None:
    """A digest is stronger than a tag."""
    manifests = rendered(helm, values)
    assert image == container_of(manifests)["image"]
    assert image == manifests["Pod"][0]["spec"]["containers"][0]["image"]


def test_a_gpu_pod_asks_for_one_and_refuses_to_start_without(helm: Helm) -> None:
    """The GPU is limited, tolerated and required; a rollout needs no spare one."""
    manifests = rendered(helm, {"gpu": {"enabled": True}})
    [deployment] = manifests["Deployment"]
    container = container_of(manifests)
    assert 1 == container["resources"]["limits"]["nvidia.com/gpu"]
    assert '--set=service.device="gpu"' in container["args"]
    assert ["nvidia.com/gpu"] == [
        each["key"] for each in deployment["spec"]["template"]["spec"]["tolerations"]
    ]
    assert {"maxSurge": 0, "maxUnavailable": 1} == deployment["spec"]["strategy"]["rollingUpdate"]


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, False),
        ({"replicas": 2}, True),
        ({"autoscaling": {"mode": "hpa", "minReplicas": 1}}, False),
        ({"autoscaling": {"mode": "hpa"}}, True),
    ],
)
def test_a_budget_is_made_where_it_helps(helm: Helm, values: dict[str, Any], made: bool) -> None:
    """With one pod a budget only keeps nodes from being drained."""
    assert made == ("PodDisruptionBudget" in rendered(helm, values))


@pytest.mark.parametrize("mode", ["hpa", "keda"])
def test_what_is_scaled_has_no_replicas_of_its_own(helm: Helm, mode: str) -> None:
    """Otherwise every upgrade would undo the autoscaler."""
    keda = {"serverAddress": "http://prometheus:9090"}
    [deployment] = rendered(helm, {"autoscaling": {"mode": mode, "keda": keda}})["Deployment"]
    assert "replicas" not in deployment["spec"]


def test_scaling_by_queue_without_a_prometheus_is_refused(helm: Helm) -> None:
    """KEDA cannot guess where the numbers are."""
    with pytest.raises(Refused, match=r"autoscaling\.keda\.serverAddress"):
        helm.template(CHART, {"autoscaling": {"mode": "keda"}})


def test_the_queue_of_a_pod_is_the_sum_over_its_indexes(helm: Helm) -> None:
    """One device serves all indexes of a pod, so all their queues wait for it."""
    keda = {"serverAddress": "http://prometheus:9090"}
    [scaled] = rendered(helm, {"autoscaling": {"mode": "keda", "keda": keda}})["ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert (
        'sum(avg_over_time(kosine_queue_rows{namespace="shop", service="search-kosine"}[1m])) or vector(0)'
        == query
    )


@pytest.mark.parametrize(
    ("process", "ports"),
    [
        ({}, [443]),
        ({"stores": {"s3": {"endpoint_url": "http://minio:9000"}}}, [443, 9000]),
        ({"stores": {"s3": {"endpoint_url": "http://minio"}}}, [443, 80]),
        ({"stores": {"gcs": {"endpoint_url": "https://gcs.example/"}}}, [443]),
        ({"stores": {"s3": {"endpoint_url": "https://[fd00::1]:8443"}}}, [443, 8443]),
    ],
)
def test_pods_may_reach_their_stores_and_nothing_else(
    helm: Helm, process: dict[str, Any], ports: list[int]
) -> None:
    """Outwards are DNS and the ports of the stores; the metadata service of a cloud is not."""
    [policy] = rendered(helm, {"process": process})["NetworkPolicy"]
    dns, stores = policy["spec"]["egress"]
    assert [53, 53] == [port["port"] for port in dns["ports"]]
    assert ports == [port["port"] for port in stores["ports"]]
    assert ["169.254.0.0/16"] == stores["to"][0]["ipBlock"]["except"]


def test_claims_lie_below_what_files_may_be_read_from(helm: Helm) -> None:
    """Every claim is mounted read-only at /data/NAME; one that the chart made outlives the release."""
    made, found = {"size": "1Gi"}, {"existingClaim": "vectors"}
    manifests = rendered(helm, {"persistence": {"made": made, "found": found}})
    [claim] = manifests["PersistentVolumeClaim"]
    assert ("search-kosine-made", "keep") == (
        claim["metadata"]["name"],
        claim["metadata"]["annotations"]["helm.sh/resource-policy"],
    )
    mounts = {
        mount["mountPath"]: mount["readOnly"]
        for mount in container_of(manifests)["volumeMounts"]
        if mount["name"].startswith("data-")
    }
    assert {"/data/made": True, "/data/found": True} == mounts


def test_pods_get_no_token(helm: Helm) -> None:
    """The service asks the API server nothing."""
    manifests = rendered(helm)
    [deployment], [account], [test] = (manifests[kind] for kind in ("Deployment", "ServiceAccount", "Pod"))
    specs = [deployment["spec"]["template"]["spec"], account, test["spec"]]
    assert [False, False, False] == [spec["automountServiceAccountToken"] for spec in specs]


def test_the_network_policy_and_the_service_select_the_pods_and_not_the_test(helm: Helm) -> None:
    """Selectors are the labels of the pods; the pod of `helm test` is none of them."""
    manifests = rendered(helm, {"replicas": 2, "podLabels": {"team": "search"}})
    [deployment], [service], [policy], [budget], [test] = (
        manifests[kind] for kind in ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "Pod")
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
        budget["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels for selector in selectors)
    assert not any(selector.items() <= test["metadata"]["labels"].items() for selector in selectors)


def test_the_notes_have_a_line_to_paste(helm: Helm) -> None:
    """They name the index, the Service and who may call."""
    notes = helm.notes(CHART, {"indexes": {"items": {"uri": "s3://bucket/items.npy"}}})
    assert "curl -s localhost:8080/indexes/items/cos" in notes
    assert "http://search-kosine.shop.svc, for pods of the namespaces shop;" in notes


def test_the_notes_of_an_empty_release_say_how_to_fill_it(helm: Helm) -> None:
    """Without an index there is nothing to ask."""
    assert "--set indexes.items.uri=s3://bucket/items.npy" in helm.notes(CHART)
