"""Alerts are right: promtool, which Prometheus itself comes with, evaluates them over made-up series."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.kit.chart_files import CHARTS
from tests.kit.go_programs import go_program

STORIES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
RULES = {
    "kosine": CHARTS / "kosine" / "files" / "alerts.yaml",
    "kosine-operator": CHARTS / "kosine-operator" / "files" / "operator-alerts.yaml",
}


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The program."""
    return go_program("prometheus", "promtool")


def run(*command: str | Path) -> str:
    """Output of a command that ends well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_rules_have_no_faults(promtool: Path, rules: Path) -> None:
    """Syntax, duplicates, templates: `promtool check rules`."""
    assert "SUCCESS" in run(promtool, "check", "rules", "--lint=all", "--lint-fatal", rules)


@pytest.mark.parametrize("stories", STORIES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_otherwise(promtool: Path, stories: Path) -> None:
    """Each story of tests/charts/alerts comes out as it says."""
    assert "SUCCESS" in run(promtool, "test", "rules", stories)


@pytest.mark.parametrize("name", RULES)
def test_every_alert_has_a_story_in_which_it_fires(name: str) -> None:
    """No alert is added that nobody has seen firing."""
    groups = yaml.safe_load(RULES[name].read_text(encoding="utf-8"))["groups"]
    [stories] = [path for path in STORIES if path.stem == name]
    seen = {
        check["alertname"]
        for story in yaml.safe_load(stories.read_text(encoding="utf-8"))["tests"]
        for check in story["alert_rule_test"]
        if check["exp_alerts"]
    }
    assert {rule["alert"] for group in groups for rule in group["rules"]} == seen
