"""Whoever upgrades from an earlier release finds pods left alone."""

from __future__ import annotations

import pytest
import yaml

from tests.kit.released import Release, pod_templates, releases

RELEASES = [pytest.param(release, id=release.version) for release in releases()]


@pytest.mark.parametrize("release", RELEASES)
def test_an_upgrade_of_the_operator_alone_rolls_no_pod(release: Release) -> None:
    """Resources of every earlier release become the very pods that they were.

    A template that must change is news for those who upgrade: tell them in the changelog, and here.
    """
    assert yaml.safe_load(release.pods.read_text(encoding="utf-8")) == pod_templates(release.resources)
