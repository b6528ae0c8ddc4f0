"""The chart `kosine-operator`: where it works, what it may do, and what becomes of its CRDs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kosine_operator.cli import main
from kosine_operator.kinds import CHILDREN, EVENT, LEASE, POD, RESOURCES
from kosine_operator.resources import parse_index
from tests.kit.chart_cases import Case, cases
from tests.kit.chart_files import CHARTS
from tests.kit.helm import NAMESPACE, Helm, Refused, by_kind

if TYPE_CHECKING:
    from tests.kit.helm import Manifest

CHART = CHARTS / "kosine-operator"
CASES = [pytest.param(case, id=case.path.stem) for case in cases("kosine-operator")]
RULES: dict[str, list[dict[str, list[str]]]] = yaml.safe_load(
    (CHART / "files" / "rbac-rules.yaml").read_text(encoding="utf-8")
)


def rendered(helm: Helm, values: dict[str, Any] | None = None) -> dict[str, list[Manifest]]:
    return by_kind(helm.template(CHART, values))


def arguments(manifests: dict[str, list[Manifest]]) -> dict[str, Any]:
    """What the operator's command line makes of the pod's arguments."""
    [deployment] = manifests["Deployment"]
    name, *options = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    command = main.get_command(main.make_context("kosine-operator", [], resilient_parsing=True), name)
    assert command is not None
    return command.make_context(name, options).params


@pytest.mark.parametrize("case", CASES)
def test_the_operator_understands_its_arguments(helm: Helm, case: Case) -> None:
    """Every option of the pod exists, and says where to work in one way only."""
    told = arguments(by_kind(case.render(helm)))
    values = case.values
    wide = values.get("clusterWide", False)
    expected = set() if wide else set(values.get("watchNamespaces", [NAMESPACE]))
    assert (wide, expected) == (told["cluster_wide"], set(told["namespaces"]))
    assert set(values.get("allowServiceAccounts", [])) == set(told["service_accounts"])


@pytest.mark.parametrize("case", CASES)
def test_the_operator_gets_the_roles_of_the_file_where_it_works(helm: Helm, case: Case) -> None:
    """A Role in each namespace or one ClusterRole, and a Role for the Lease where there are several pods."""
    manifests, values = by_kind(case.render(helm)), case.values
    work = [role for role in manifests.get("Role", []) if not role["metadata"]["name"].endswith("-lease")]
    lease = [role for role in manifests.get("Role", []) if role not in work]
    wide = manifests.get("ClusterRole", [])
    assert values.get("clusterWide", False) == bool(wide)
    made = values.get("rbac", {}).get("create", True)
    namespaces = sorted(values.get("watchNamespaces", [NAMESPACE])) if made and not wide else []
    assert namespaces == [role["metadata"]["namespace"] for role in work]
    rules = [*RULES["rules"], *RULES["optional"]]
    assert all(rules == role["rules"] for role in [*work, *wide])
    assert [RULES["lease"]] * (values.get("replicas", 1) > 1) == [role["rules"] for role in lease]
    bound = {
        each["roleRef"]["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for each in manifests.get(kind, [])
    }
    assert {role["metadata"]["name"] for role in [*work, *lease, *wide]} == bound


def test_the_rules_are_for_the_kinds_that_the_operator_knows() -> None:
    """No wildcard, no Secret, nothing that it does not touch; events and leases as far as needed."""
    told = {
        (group, resource): set(rule["verbs"])
        for part in RULES.values()
        for rule in part
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    known = {(kind.group, kind.plural) for kind in (*RESOURCES, *CHILDREN, POD, EVENT, LEASE)}
    status = {(kind.group, f"{kind.plural}/status") for kind in RESOURCES}
    assert known | status == told.keys()
    assert not any("*" in verbs for verbs in told.values())
    assert {"create"} == told[EVENT.group, EVENT.plural]


def crds(manifests: dict[str, list[Manifest]]) -> list[Manifest]:
    return sorted(manifests.get("CustomResourceDefinition", []), key=lambda crd: str(crd["metadata"]["name"]))


def test_the_file_for_gitops_is_what_is_rendered(helm: Helm) -> None:
    """`kubectl apply --filename crds.yaml` gives the CRDs of the templates, number by number."""
    text = (CHART / "crds.yaml").read_text(encoding="utf-8")
    plain = sorted(yaml.safe_load_all(text), key=lambda crd: str(crd["metadata"]["name"]))
    shown = crds(rendered(helm, {"crds": {"keep": False}}))
    assert 2 == len(plain)
    for expected, actual in zip(plain, shown, strict=True):
        actual["metadata"].pop("annotations", None)
        expected["metadata"].pop("annotations", None)
        assert json.dumps(expected, sort_keys=True) == json.dumps(actual, sort_keys=True)


def test_crds_stay_unless_told_otherwise(helm: Helm) -> None:
    """Uninstalling must not delete every index of a cluster by surprise."""
    policies = [crd["metadata"]["annotations"].get("helm.sh/resource-policy") for crd in crds(rendered(helm))]
    assert ["keep", "keep"] == policies
    gone = crds(rendered(helm, {"crds": {"keep": False}}))
    assert all("helm.sh/resource-policy" not in crd["metadata"].get("annotations", {}) for crd in gone)
    assert [] == crds(rendered(helm, {"crds": {"enabled": False}}))


@pytest.mark.parametrize(
    ("replicas", "strategy", "lease"),
    [(1, "Recreate", None), (2, "RollingUpdate", "shop/search-kosine-operator")],
)
def test_two_operators_never_work_at_once(
    helm: Helm, replicas: int, strategy: str, lease: str | None
) -> None:
    """One pod is replaced, not overlapped; of several a Lease lets one work."""
    manifests = rendered(helm, {"replicas": replicas})
    [deployment] = manifests["Deployment"]
    assert strategy == deployment["spec"]["strategy"]["type"]
    assert lease == arguments(manifests)["lease"]
    assert (replicas > 1) == ("PodDisruptionBudget" in manifests)


def test_an_upgrade_of_the_operator_alone_leaves_the_image_of_pods_alone(helm: Helm) -> None:
    """What pods run is one value, pinned by the chart's version unless it is set."""
    assert "kosine:0.1.0" == arguments(rendered(helm))["image"]
    assert (
        "kosine:7"
        == arguments(rendered(helm, {"image": {"tag": "9"}, "serviceImage": {"tag": "7"}}))["image"]
    )


def test_somewhere_and_everywhere_is_refused(helm: Helm) -> None:
    """The message names both values."""
    with pytest.raises(Refused, match=r"watchNamespaces.*clusterWide"):
        helm.template(CHART, {"clusterWide": True, "watchNamespaces": ["shop"]})


def test_two_releases_of_one_name_do_not_share_what_belongs_to_no_namespace(helm: Helm) -> None:
    """Names of ClusterRoles tell the namespace of their release."""
    [role] = rendered(helm, {"clusterWide": True})["ClusterRole"]
    assert "shop:search-kosine-operator" == role["metadata"]["name"]


TYPOS: list[tuple[dict[str, Any], str]] = [
    ({"watchNamespace": "shop"}, "watchNamespace"),
    ({"watchNamespaces": "shop"}, "/watchNamespaces"),
    ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0"),
    ({"clusterwide": True}, "clusterwide"),
    ({"crds": {"install": True}}, "install"),
    ({"crds": {"keep": "yes"}}, "/crds/keep"),
    ({"image": {"name": "x"}}, "name"),
    ({"serviceImage": {"digest": "latest"}}, "/serviceImage/digest"),
    ({"rbac": {"clusterRole": True}}, "clusterRole"),
    ({"replicas": -1}, "/replicas"),
    ({"lease": {"seconds": 1}}, "/lease/seconds"),
    ({"metrics": {"rules": {"disabled": ["KosineVersionsOld"]}}}, "/metrics/rules/disabled/0"),
    ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts"),
    ({"logLevel": "verbose"}, "/logLevel"),
    ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "app.kubernetes.io/instance"),
]


@pytest.mark.parametrize(("values", "named"), TYPOS, ids=lambda part: part if isinstance(part, str) else "")
def test_a_typo_is_an_error_that_names_it(helm: Helm, values: dict[str, Any], named: str) -> None:
    """Nothing that is not understood is silently ignored."""
    with pytest.raises(Refused, match=rf"{re.escape(named)}\b"):
        helm.template(CHART, values)


def test_the_notes_have_an_index_to_paste(helm: Helm) -> None:
    """What they show is a CosineIndex that the operator reads, and the line that waits for it."""
    notes = helm.notes(CHART, {"watchNamespaces": ["search"]})
    found = re.search(r"<<'END'\n(.*?)\n  END", notes, re.DOTALL)
    assert found is not None
    resource = yaml.safe_load(found[1])
    resource["metadata"] |= {"namespace": "search", "uid": "1", "generation": 1}
    assert "s3://bucket/items.npy" == parse_index(resource).spec.source.uri
    assert "kubectl wait --namespace search --for=condition=Ready --timeout=5m cosineindex/items" in notes
