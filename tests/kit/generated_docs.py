"""The parts of docs/ that code knows better: settings, resources, options, metrics. `make docs` writes them.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is around it is written by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Metric

from kosine.cli import main
from kosine.configuration.fields import Setting, settings_of
from kosine.metrics import Metrics
from kosine.serving.collector import IndexCollector
from kosine.serving.registry import Registry
from kosine.settings import (
    BatchSettings,
    CanarySettings,
    DefaultSettings,
    GcsSettings,
    GuardSettings,
    IndexSettings,
    RefreshSettings,
    S3Settings,
    ServiceSettings,
    StoresSettings,
)
from kosine.units import Duration, Size
from kosine_operator.cli import main as operator_main
from kosine_operator.inventory import Inventory
from kosine_operator.metrics import Metrics as OperatorMetrics
from kosine_operator.metrics import OperatorCollector
from tests.kit import crd_docs

if TYPE_CHECKING:
    import click
    from msgspec import Struct
    from prometheus_client.registry import Collector

__all__ = ("DOCS", "blocks", "regenerated")

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(r"(<!-- generated: ([a-z.]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SECTIONS: dict[str, type[Struct]] = {
    "service": ServiceSettings,
    "defaults": DefaultSettings,
    "index": IndexSettings,
    "refresh": RefreshSettings,
    "batch": BatchSettings,
    "guard": GuardSettings,
    "canary": CanarySettings,
    "stores": StoresSettings,
    "s3": S3Settings,
    "gcs": GcsSettings,
}
_HELP_WIDTH = 100


def blocks() -> dict[str, str]:
    """Every generated block by its name."""
    tables = {f"settings.{name}": _settings_table(name, section) for name, section in _SECTIONS.items()}
    served = (Metrics().registry, IndexCollector(Registry()))
    inventory = Inventory(now=lambda: 0.0)
    operated = (OperatorMetrics().registry, OperatorCollector(queue=_NoQueue(), inventory=inventory))
    resources = {
        f"crd.{name}": _table(crd_docs.HEAD, crd_docs.field_rows(name)) for name in ("index", "server")
    }
    return {
        **tables,
        **resources,
        "cli": _command_line(main, "kosine", "##"),
        "metrics": _metrics_table(*served),
        "operator.cli": _command_line(operator_main, "kosine-operator", "###"),
        "operator.metrics": _metrics_table(*operated),
    }


def regenerated(text: str) -> str:
    """`text` of a page with its blocks as the code would write them now."""
    known = blocks()
    return _BLOCK.sub(lambda found: f"{found[1]}{known[found[2]]}{found[4]}", text)


def _settings_table(name: str, section: type[Struct]) -> str:
    inherited = {setting.name for setting in settings_of(DefaultSettings)} if name == "index" else set()
    rows = [
        (f"`{setting.name}`", _kind(setting), _default(setting), str(setting.change), setting.meaning)
        for setting in settings_of(section)
        if setting.section is None and setting.name not in inherited
    ]
    return _table(("name", "value", "default", "change", "meaning"), rows)


def _kind(setting: Setting) -> str:
    return re.sub(r" such as .*?(?=, or null|$)", "", setting.expected).replace(" or `", ", `")


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    default = setting.default
    if isinstance(default, Duration | Size):
        return f"`{default.text()}`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _command_line(group: click.Group, program: str, heading: str) -> str:
    context = group.make_context(program, [], resilient_parsing=True, terminal_width=_HELP_WIDTH)
    pages = [(program, group.get_help(context))]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = command.make_context(name, [], parent=context, resilient_parsing=True)
        pages.append((f"{program} {name}", command.get_help(below)))
    return "".join(f"\n{heading} {title}\n```text\n{text}\n```\n" for title, text in pages)


class _NoQueue:
    depth = 0

    def oldest(self) -> float:
        return 0.0


def _metrics_table(registry: CollectorRegistry, collector: Collector) -> str:
    ours = CollectorRegistry(auto_describe=False)
    ours.register(collector)
    found = [metric for metric in (*registry.collect(), *ours.collect()) if _is_ours(metric)]
    rows = [
        (f"`{_sample_name(metric)}`", metric.type, metric.documentation)
        for metric in sorted(found, key=lambda metric: metric.name)
    ]
    return _table(("metric", "type", "meaning"), rows)


def _is_ours(metric: Metric) -> bool:
    return metric.name.startswith("kosine_")


def _sample_name(metric: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    return f"{metric.name}{suffix}"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for page in DOCS.glob("*.md"):
        page.write_text(regenerated(page.read_text(encoding="utf-8")), encoding="utf-8")
