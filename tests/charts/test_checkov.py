"""What checkov, a linter of manifests, finds in what charts and operator make: nothing that is not accepted.

It is not among the locked dependencies, of which it would be a hundred: `make checkov` installs it apart.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests.kit.chart_cases import cases
from tests.kit.golden_manifests import GOLDEN

if TYPE_CHECKING:
    from tests.kit.helm import Helm

INSTALLED = Path(__file__).parents[2] / ".venv-checkov" / "bin" / "checkov"


class Accepted(NamedTuple):
    """Findings that stay: by check, and by what they are about (regular expression)."""

    check: str
    about: str
    reason: str


ACCEPTED = (
    Accepted(
        "CKV_K8S_11", ".*", "a CPU limit throttles a query in its middle; the request says what is needed"
    ),
    Accepted(
        "CKV_K8S_15", ".*", "versions are tags or digests that do not move; pods start without the registry"
    ),
    Accepted("CKV_K8S_43", ".*", "kosine publishes no image yet; `image.digest` is there to be set"),
    Accepted(
        "CKV_K8S_1[0123]",
        r"Deployment\.search\.items",
        "a resource that asks for nothing, and no `serviceMemory`: no size is right for every index",
    ),
    Accepted(
        "CKV2_K8S_6", r"Pod\.search\..*", "resources without networkPolicy: only their owners know who calls"
    ),
    Accepted("CKV_K8S_38", r"Deployment\..*", "the operator talks to the API server"),
    Accepted(
        "CKV_K8S_35", r"Deployment\..*", "names that the AWS SDK reads; the operator mounts files instead"
    ),
    Accepted(r"CKV_K8S_(8|9)|CKV2_K8S_6", r"Pod\..*-test", "the pod of `helm test` asks once and ends"),
    Accepted("CKV_K8S_21", r"ConfigMap\.default\..*", "extraObjects of a test that name no namespace"),
    Accepted(
        "CKV_K8S_(8|9|1[0123]|20|22|28|30|37)", r"Deployment\.shop\.vectors", "containers of the user's own"
    ),
)


@pytest.fixture(scope="session")
def checkov() -> Path:
    """The program; without it a loud skip."""
    found = shutil.which("checkov") or (str(INSTALLED) if INSTALLED.is_file() else None)
    if found is None:
        pytest.skip("checkov is not installed: make checkov (300 MB, once)")
    return Path(found)


def findings(checkov: Path, folder: Path) -> set[tuple[str, str]]:
    """Check and resource of everything that failed."""
    options = ("--framework=kubernetes", "--output=json", "--quiet", "--compact", "--skip-download")
    done = subprocess.run(
        [checkov, "--directory", folder, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    failed = json.loads(done.stdout)["results"]["failed_checks"]
    return {(each["check_id"], each["resource"]) for each in failed}


def test_checkov_finds_nothing_that_is_not_accepted(checkov: Path, helm: Helm, tmp_path: Path) -> None:
    """Values and resources of every kind of user; and nothing is accepted that it does not find."""
    shutil.copytree(GOLDEN, tmp_path / "operator")
    for case in cases():
        text = yaml.safe_dump_all(case.render(helm))
        (tmp_path / case.path.name).write_text(text, encoding="utf-8")
    found = findings(checkov, tmp_path)

    def covers(accepted: Accepted, check: str, about: str) -> bool:
        return bool(re.fullmatch(accepted.check, check) and re.fullmatch(accepted.about, about))

    assert [] == sorted(each for each in found if not any(covers(one, *each) for one in ACCEPTED))
    assert [] == [one for one in ACCEPTED if not any(covers(one, *each) for each in found)]
