"""The command line of the operator: what it takes, what it refuses, what it renders."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from kosine_operator.cli import main

if TYPE_CHECKING:
    from pathlib import Path

INDEX = """
apiVersion: kosine.dev/v1alpha1
kind: CosineIndex
metadata: {name: items}
spec:
  source: {uri: s3://bucket/items.npy}
"""


def ran(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and everything that was said."""
    done = CliRunner().invoke(main, arguments, env=variables)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "say where to work"),
        (("run", "--namespace", "a", "--cluster-wide"), "say where to work"),
        (("run", "--namespace", "a", "--lease", "operator"), "is not NAMESPACE/NAME"),
        (("run", "--namespace", "a", "--workers", "0"), "not in the range"),
        (("run", "--namespace", "a", "--memory", "2GB"), "'2GB' is neither a size"),
        (("run", "--namespace", "a", "--resync", "never"), "is not a valid float"),
        (("render",), "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2, one message, no traceback."""
    code, output = ran(*arguments)

    assert 2 == code
    assert said in output


def test_where_there_is_no_cluster_that_is_said(tmp_path: Path) -> None:
    """With what to do about it."""
    missing = tmp_path / "kubeconfig"
    command = [sys.executable, "-m", "kosine_operator", "run", "--namespace", "a", "--port", "0"]
    environment = {"KUBECONFIG": str(missing), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "set KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr


def rendered(tmp_path: Path, text: str, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    """The manifests of resources in a file."""
    path = tmp_path / "resources.yaml"
    path.write_text(text, encoding="utf-8")
    code, output = ran("render", str(path), *arguments, **variables)
    assert 0 == code, output
    return list(yaml.safe_load_all(output))


def resources(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Of what serves."""
    (deployment,) = (each for each in manifests if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container.get("resources", {}))


def test_the_administrator_decides_the_memory_of_those_who_ask_for_none(tmp_path: Path) -> None:
    """A size for requests and limits, or neither."""
    both = {"requests": {"memory": "512Mi"}, "limits": {"memory": "512Mi"}}
    assert both == resources(rendered(tmp_path, INDEX, "--memory", "512Mi"))
    assert {} == resources(rendered(tmp_path, INDEX, "--memory", "none"))


def image(manifests: list[dict[str, Any]]) -> str:
    """What serves."""
    (deployment,) = (each for each in manifests if each["kind"] == "Deployment")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_resources_are_rendered_without_a_cluster(tmp_path: Path) -> None:
    """In the order in which they would be applied, in the namespace that is asked for."""
    manifests = rendered(tmp_path, INDEX, "--namespace", "shop")

    assert ["ConfigMap", "Service", "Deployment"] == [each["kind"] for each in manifests]
    assert {"shop"} == {each["metadata"]["namespace"] for each in manifests}


def test_an_option_is_stronger_than_its_variable(tmp_path: Path) -> None:
    """And the variable stronger than the default."""
    variables = {"KOSINE_OPERATOR_IMAGE": "kosine:variable"}

    assert "kosine:variable" == image(rendered(tmp_path, INDEX, **variables))
    assert "kosine:option" == image(rendered(tmp_path, INDEX, "--image", "kosine:option", **variables))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "resources.yaml: "),
        ("kind: Pod\napiVersion: v1\n", "got v1 Pod"),
        (INDEX.replace("uri", "url"), "CosineIndex items: spec.source: "),
        (INDEX.replace("  source:", "  serverRef: {name: gpu}\n  source:"), "ServerNotFound"),
    ],
)
def test_what_cannot_be_rendered_is_named(tmp_path: Path, text: str, said: str) -> None:
    """File, resource, field, reason."""
    path = tmp_path / "resources.yaml"
    path.write_text(text, encoding="utf-8")
    code, output = ran("render", str(path))

    assert 2 == code
    assert said in output
    assert "Traceback" not in output


def test_rendering_needs_no_client_of_kubernetes() -> None:
    """`render` and `--help` do not wait for what only `run` needs, and TensorFlow is nowhere."""
    code = (
        "import sys, kosine_operator.cli, kosine_operator.offline; "
        "print(sorted({'kubernetes', 'kopf', 'tensorflow', 'numpy', 'kosine'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "[]" == done.stdout.strip()
