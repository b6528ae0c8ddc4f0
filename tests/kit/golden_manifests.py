"""The objects that each example of docs/examples becomes. `make golden` writes them to tests/golden/."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.kit.operator_pools import EXAMPLES, example_pools, rendered

__all__ = ("GOLDEN", "golden_text")

GOLDEN = Path(__file__).parents[1] / "golden"


class _Plain(yaml.SafeDumper):
    """Writes a value that occurs twice twice, and texts of several lines as such."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Plain.add_representer(str, _text)


def golden_text(example: Path) -> str:
    """Every manifest of every pool of the example, as YAML documents."""
    manifests = [each for found in example_pools(example) for each in rendered(found).manifests]
    return yaml.dump_all(manifests, Dumper=_Plain, sort_keys=False, width=110)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for path in sorted(EXAMPLES.glob("*.yaml")):
        (GOLDEN / path.name).write_text(golden_text(path), encoding="utf-8")
