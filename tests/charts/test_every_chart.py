"""What every chart promises: valid manifests, strict values, documented values, restricted pods."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest

import kosine
from tests.kit.chart_cases import Case, about, cases, golden_text, oldest
from tests.kit.chart_files import CHARTS, regenerated, value_rows
from tests.kit.helm import Helm, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.helm import Manifest

ALL = [pytest.param(path.parent, id=path.parent.name) for path in sorted(CHARTS.glob("*/Chart.yaml"))]
CASES = [pytest.param(case, id=case.path.stem) for case in cases()]
OURS = "kosine"
FOREIGN = {
    "CosineIndex": "kosine.dev/v1alpha1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}
"""Kinds whose schema is not Kubernetes' own."""


def pod_of(manifest: Manifest) -> dict[str, Any] | None:
    """The spec of the pod that a manifest makes."""
    match manifest["kind"]:
        case "Pod":
            return dict(manifest["spec"])
        case "Deployment":
            return dict(manifest["spec"]["template"]["spec"])
    return None


@pytest.mark.parametrize("chart", ALL)
def test_helm_lint_has_nothing_to_say(helm: Helm, chart: Path) -> None:
    """`helm lint --strict` with the values as they come."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", chart)


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_what_was_agreed(helm: Helm, case: Case) -> None:
    """A change of a template shows in tests/charts/golden; `python -m tests.kit.chart_cases` writes it."""
    assert case.golden.read_text(encoding="utf-8") == golden_text(case.render(helm))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_manifest_is_valid_where_the_chart_may_be_installed(helm: Helm, case: Case, which: str) -> None:
    """Strict schemas of the oldest and the newest Kubernetes accept every object; no field is misspelt."""
    version = oldest(case.chart) if which == "oldest" else kubernetes_validate.latest_version()
    for manifest in case.render(helm):
        if manifest["kind"] in FOREIGN:
            assert FOREIGN[manifest["kind"]] == manifest["apiVersion"]
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_names_are_given_once_and_everything_has_its_namespace(helm: Helm, case: Case) -> None:
    """No object overwrites another; what has a namespace says which."""
    manifests = case.render(helm)
    names = [
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in manifests
    ]
    assert sorted(set(names)) == sorted(names)
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for manifest in manifests:
        if manifest["kind"] not in cluster_wide and "helm.sh/chart" in manifest["metadata"].get("labels", {}):
            assert manifest["metadata"].get("namespace"), manifest["kind"]


@pytest.mark.parametrize("case", CASES)
def test_pods_satisfy_the_restricted_standard(helm: Helm, case: Case) -> None:
    """No root, no capability, no escalation, a seccomp profile, a read-only root."""
    for manifest in case.render(helm):
        pod = pod_of(manifest)
        if pod is None:
            continue
        assert True is pod["securityContext"]["runAsNonRoot"]
        assert "RuntimeDefault" == pod["securityContext"]["seccompProfile"]["type"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            if OURS not in container["image"]:
                continue  # somebody's own, by `extraContainers`
            context = container["securityContext"]
            assert ["ALL"] == context["capabilities"]["drop"]
            assert False is context["allowPrivilegeEscalation"]
            assert True is context["readOnlyRootFilesystem"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("case", CASES)
def test_selectors_do_not_depend_on_values_or_versions(helm: Helm, case: Case, tmp_path: Path) -> None:
    """An upgrade cannot change what is immutable, and a new chart version alone rolls no pod."""
    newer = tmp_path / case.chart.name
    shutil.copytree(case.chart, newer)
    text = (newer / "Chart.yaml").read_text(encoding="utf-8")
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*", "version: 9.9.9", text), encoding="utf-8")
    before = next(each for each in case.render(helm) if each["kind"] == "Deployment")
    after = next(each for each in helm.template(newer, case.values) if each["kind"] == "Deployment")
    minimal = next(each for each in helm.template(case.chart) if each["kind"] == "Deployment")
    assert minimal["spec"]["selector"] == before["spec"]["selector"] == after["spec"]["selector"]
    assert before["spec"]["template"] == after["spec"]["template"]
    assert before["metadata"]["labels"] != after["metadata"]["labels"]


@pytest.mark.parametrize("chart", ALL)
def test_generated_parts_of_a_chart_are_up_to_date(chart: Path) -> None:
    """`make docs` writes the table of values and what the schema knows of kosine's settings."""
    for path, text in regenerated(chart).items():
        assert text == path.read_text(encoding="utf-8"), path.name


def properties(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Paths of what the chart's own part of a schema knows."""
    if "$ref" in schema:
        return
    for name, below in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from properties(below, f"{prefix}{name}.")


@pytest.mark.parametrize("chart", ALL)
def test_the_schema_knows_the_values_that_are_documented_and_no_others(chart: Path) -> None:
    """Nothing in the schema is undocumented, nothing documented is refused."""
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    known = set(properties(schema))
    rows = value_rows((chart / "values.yaml").read_text(encoding="utf-8"))
    told = {path for path, *_ in rows if not path.startswith(("process.", "persistence."))}
    parents = {path.rsplit(".", depth)[0] for path in told for depth in range(1, path.count(".") + 1)}
    documented_whole = {path for path in known if any(path.startswith(f"{each}.") for each in told)}
    assert known - documented_whole == told | parents


def closed(schema: Any, path: str = "") -> Iterator[str]:
    """Paths of mappings with named keys that would let a misspelt one pass."""
    if isinstance(schema, list):
        for each in schema:
            yield from closed(each, path)
    elif isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object" and "additionalProperties" not in schema:
            yield path
        for key, below in schema.items():
            yield from closed(below, f"{path}/{key}")


@pytest.mark.parametrize("chart", ALL)
def test_no_mapping_with_known_keys_lets_a_misspelt_one_pass(chart: Path) -> None:
    """Every object of the schema says what happens to other keys."""
    assert [] == list(closed(json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("chart", ALL)
def test_a_chart_says_what_a_catalogue_asks_for(chart: Path) -> None:
    """Version, Kubernetes and catalogue annotations are there."""
    told = about(chart)
    assert kosine.__version__ == told["version"] == told["appVersion"]
    assert {"artifacthub.io/license", "artifacthub.io/category", "artifacthub.io/images"} <= set(
        told["annotations"]
    )


@pytest.mark.parametrize("chart", ALL)
def test_an_old_kubernetes_is_refused(helm: Helm, chart: Path) -> None:
    """`kubeVersion` is enforced."""
    major, minor = oldest(chart).split(".")
    with pytest.raises(Refused, match="kubeVersion"):
        helm.template(chart, None, f"--kube-version={major}.{int(minor) - 1}.0")


@pytest.mark.parametrize("chart", ALL)
def test_values_of_a_parent_chart_are_let_through(helm: Helm, chart: Path) -> None:
    """`global` belongs to whoever makes this chart a dependency."""
    assert helm.template(chart) == helm.template(chart, {"global": {"anything": {"goes": True}}})
