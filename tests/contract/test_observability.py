"""Dashboard, alerts and autoscaling ask for metrics that the service has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from kosine.errors import RequestError
from tests.kit.chart_files import CHARTS
from tests.kit.metric_names import (
    names_in,
    operator_labels,
    operator_samples,
    service_labels,
    service_samples,
)
from tests.kit.operator_pools import a_server, an_index, manifest, pool_for, rendered

FILES = CHARTS / "kosine" / "files"
GROUPS = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
OPERATOR_FILES = CHARTS / "kosine-operator" / "files"
OPERATOR_GROUPS = yaml.safe_load((OPERATOR_FILES / "operator-alerts.yaml").read_text(encoding="utf-8"))[
    "groups"
]
ALERTS = [pytest.param(rule, id=rule["alert"]) for group in GROUPS for rule in group["rules"]]
OPERATOR_ALERTS = [
    pytest.param(rule, id=rule["alert"]) for group in OPERATOR_GROUPS for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [pytest.param(panel, id=panel["title"]) for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
_SELECTED = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")


def labels_in(expression: str) -> set[str]:
    """Labels that an expression groups or selects by."""
    grouped = {label.strip() for found in _GROUPED.findall(expression) for label in found.split(",")}
    return grouped | set(_SELECTED.findall(expression))


def outcomes_in(expression: str) -> set[str]:
    """Outcomes that an expression selects."""
    return {each for found in re.findall(r'outcome=~?"([^"]+)"', expression) for each in found.split("|")}


def codes(kind: type[RequestError] = RequestError) -> set[str]:
    """Every code of an error that a caller can see."""
    return {each.code for each in kind.__subclasses__()}.union(*map(codes, kind.__subclasses__()))


def assert_known(expression: str) -> None:
    """Names, labels and outcomes exist."""
    assert names_in(expression), expression
    assert set() == names_in(expression) - service_samples()
    assert set() == labels_in(expression) - service_labels()
    assert set() == outcomes_in(expression) - codes() - {
        "ok",
        "abandoned",
        "published",
        "unchanged",
        "failed",
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_asks_for_what_the_service_serves(alert: dict[str, Any]) -> None:
    """Every metric, label and outcome of its expression exists."""
    assert_known(alert["expr"])


@pytest.mark.parametrize("alert", OPERATOR_ALERTS)
def test_an_alert_of_the_operator_asks_for_what_the_operator_serves(alert: dict[str, Any]) -> None:
    """Every metric and label of its expression exists."""
    assert names_in(alert["expr"])
    assert set() == names_in(alert["expr"]) - operator_samples()
    assert set() == labels_in(alert["expr"]) - operator_labels()


@pytest.mark.parametrize("alert", [*ALERTS, *OPERATOR_ALERTS])
def test_an_alert_says_what_happened_and_what_to_do(alert: dict[str, Any]) -> None:
    """A severity, a time, a summary; its texts use only labels that its expression keeps."""
    assert {"alert", "expr", "for", "labels", "annotations"} == alert.keys()
    assert alert["labels"]["severity"] in {"critical", "warning"}
    text = " ".join(alert["annotations"].values())
    used = set(re.findall(r"\$labels\.([a-z_]+)", text))
    assert used <= labels_in(alert["expr"])
    assert {"summary", "description"} == alert["annotations"].keys()


def test_every_alert_can_be_switched_off() -> None:
    """`metrics.rules.disabled` knows the alerts there are, and refuses others."""
    schema = json.loads((CHARTS / "kosine" / "values.schema.json").read_text(encoding="utf-8"))
    rules = schema["properties"]["metrics"]["properties"]["rules"]["properties"]
    assert [rule["alert"] for group in GROUPS for rule in group["rules"]] == rules["disabled"]["items"][
        "enum"
    ]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_what_the_service_serves(panel: dict[str, Any]) -> None:
    """Every metric and label of its queries exists, and it says what it shows."""
    assert panel["description"]
    for target in panel["targets"]:
        assert_known(target["expr"])
        shown = set(re.findall(r"{{([a-z_]+)}}", target["legendFormat"]))
        assert shown <= labels_in(target["expr"]) | {"pod"}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_does_not_mix_indexes_of_one_name(panel: dict[str, Any]) -> None:
    """With all services chosen: what is told of an index or a configuration is told of one service."""
    for target in panel["targets"]:
        for grouped in _GROUPED.findall(target["expr"]):
            labels = {label.strip() for label in grouped.split(",")}
            assert {"namespace", "job"} <= labels or not {"index", "hash"} & labels


def test_the_dashboard_asks_the_chosen_prometheus_for_the_chosen_services() -> None:
    """No data source of somebody's Grafana is built in, and every query honours the variables."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            assert "${datasource}" == target["datasource"]["uid"]
            assert 'namespace=~"$namespace", job=~"$job"' in target["expr"]
    for variable in VARIABLES:
        assert_known(variable["query"]["query"])


def test_panels_do_not_lie_over_each_other() -> None:
    """Grafana's grid is 24 wide."""
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_what_was_asked_for_is_on_the_dashboard() -> None:
    """Every family that tells how a query or a version fares is shown somewhere."""
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
        for name in names_in(target["expr"])
    }
    not_shown = {
        "kosine_build_info",
        "kosine_index_dim",
        "kosine_index_load_seconds",
        "kosine_index_mask_rows",
        "kosine_index_reload_failures",
    }
    families = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in service_samples() if name.startswith("kosine_")
    }
    assert families - not_shown == {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in shown if name.startswith("kosine_")
    }


def test_the_queue_that_scales_pods_is_a_metric_of_the_service() -> None:
    """Both the HorizontalPodAutoscaler and KEDA's query name it."""
    for template in ("horizontalpodautoscaler.yaml", "_helpers.tpl"):
        text = (CHARTS / "kosine" / "templates" / template).read_text(encoding="utf-8")
        assert {"kosine_queue_rows"} == names_in(text) & {"kosine_queue_rows"} <= service_samples()


def test_the_runbook_has_every_alert_and_no_other() -> None:
    """docs/operations.md says of each what it means and what to do, with its severity and its patience."""
    text = (CHARTS.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    told = re.findall(r"(?m)^\| `(Kosine\w+)` \| (\w+) \| (\w+) \| [^|]+ \| [^|]+ \|$", text)
    rules = [rule for group in (*GROUPS, *OPERATOR_GROUPS) for rule in group["rules"]]
    assert [(rule["alert"], rule["labels"]["severity"], rule["for"]) for rule in rules] == told


def scaled_by(autoscaling: dict[str, Any], kind: str) -> dict[str, Any]:
    """The autoscaler of a server with two indexes, and the Service that Prometheus finds its pods by."""
    server = {"autoscaling": {"maxReplicas": 3, **autoscaling}, "monitoring": {"serviceMonitor": {}}}
    one, two = (an_index(name, {"serverRef": {"name": "shared"}}) for name in ("items", "users"))
    found = rendered(pool_for(one, a_server("shared", server), others=[two]))
    selected = manifest(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    services = [each["metadata"] for each in found.manifests if each["kind"] == "Service"]
    scraped = [each["name"] for each in services if selected.items() <= each["labels"].items()]
    assert ["shared"] == scraped, "each pod is scraped once, whatever Services lead to it"
    return dict(manifest(found, kind)["spec"])


def test_the_autoscaler_of_the_operator_asks_for_a_gauge_of_pods() -> None:
    """It is the adapter's to sum it over the indexes of a pod."""
    (metric,) = scaled_by({}, "HorizontalPodAutoscaler")["metrics"]
    assert metric["pods"]["metric"]["name"] in service_samples()
    assert "AverageValue" == metric["pods"]["target"]["type"]


def test_keda_asks_for_what_waits_in_all_pods_of_a_server() -> None:
    """All its indexes together, of the one Service that is scraped; KEDA divides by the replicas."""
    keda = {"keda": {"serverAddress": "http://prometheus:9090"}}
    (trigger,) = scaled_by(keda, "ScaledObject")["triggers"]
    query = trigger["metadata"]["query"]
    assert_known(query)
    assert 'namespace="search",service="shared"' in query
    assert "index" not in labels_in(query)
    assert ("AverageValue", "32") == (trigger["metricType"], trigger["metadata"]["threshold"])
