"""Where the control plane's programs are.

`KOSINE_CONTROL_PLANE` names a folder that holds them; otherwise they are what `make control-plane` has
built from the versions pinned here, and from no others.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ("BUILD", "PROGRAMS", "VARIABLE", "ControlPlaneMissing", "find")

BUILD = Path(__file__).parent / "binaries" / "build"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "helm")
VARIABLE = "KOSINE_CONTROL_PLANE"


class ControlPlaneMissing(Exception):
    """There are no programs to run; says what to do."""


def find() -> Path:
    """The folder of the programs; ControlPlaneMissing when one is not there."""
    named = os.environ.get(VARIABLE)
    folder = Path(named).resolve() if named else _built()
    missing = [program for program in PROGRAMS if not os.access(folder / program, os.X_OK)]
    if not missing:
        return folder
    if named:
        raise ControlPlaneMissing(
            f"{VARIABLE}={named} lacks {', '.join(missing)}; unset it, or name a folder that has them"
        )
    raise ControlPlaneMissing("the control plane is not built: make control-plane (minutes, once)")


def _built() -> Path:
    asked = subprocess.run([BUILD, "--where"], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ControlPlaneMissing(asked.stderr.strip())
    return Path(asked.stdout.strip())
