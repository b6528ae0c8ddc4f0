"""The docs say what the code does: whatever can be compared is."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import kosine
import kosine.http.problems
from kosine import configuration
from kosine.configuration.fields import Setting, settings_of
from kosine.errors import LoadCode, RequestError, Stage
from kosine.loading.catalog import plan
from kosine.loading.refresh_policy import POLLED, TRANSIENT
from kosine.serving.flush_policy import Flush, Linger, QueueState, decide
from kosine.serving.status import IndexState
from kosine.settings import Change, IndexSettings, ServiceSettings, Settings
from kosine.units import Duration, Size
from tests.kit.generated_docs import DOCS, regenerated
from tests.kit.http_service import http_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Struct

ROOT = DOCS.parent
SOURCE = Path(kosine.__file__).parent
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def table(text: str, mark: str) -> list[list[str]]:
    """Cells of the rows between `<!-- mark -->` and `<!-- end -->`, without the head."""
    block = re.search(rf"<!-- {mark} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert block is not None, mark
    rows = [line.strip("|").split("|") for line in block[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def code(cell: str) -> str:
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


def subclasses(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_what_the_code_would_write(path: Path) -> None:
    """A new setting, option or metric is documented; `make docs` does it."""
    text = path.read_text(encoding="utf-8")
    assert regenerated(text) == text


def test_every_error_a_caller_can_see_is_in_the_table_with_its_status() -> None:
    """docs/http.md lists every code once, no other, and what to do about it."""
    rows = table(page("http.md"), "codes")
    assert sorted((error.status, error.code) for error in subclasses(RequestError)) == sorted(
        (int(row[0]), code(row[1])) for row in rows
    )
    assert all(len(row) == 4 and row[3] for row in rows)


def test_every_state_of_an_index_is_in_the_table() -> None:
    """docs/http.md lists what `state` can be."""
    assert [*IndexState] == [code(row[0]) for row in table(page("http.md"), "states")]


def test_every_stage_is_in_the_table_in_its_order() -> None:
    """docs/errors.md lists the steps of a reload as they happen."""
    assert [*Stage] == [code(row[0]) for row in table(page("errors.md"), "stages")]


def test_every_load_code_is_in_the_table_with_when_it_is_tried_again() -> None:
    """docs/errors.md lists every reason, and the retry policy's answer to it."""
    told = {code(row[0]): row[1] for row in table(page("errors.md"), "load codes")}
    again = dict.fromkeys(TRANSIENT, "backoff") | dict.fromkeys(POLLED, "poll")
    assert {reason.value: again.get(reason, "no") for reason in LoadCode} == told


def logged_events() -> set[str]:
    return {
        event
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and (event := _event(node)) is not None
    }


def _event(call: ast.Call) -> str | None:
    functions = [call.func.body, call.func.orelse] if isinstance(call.func, ast.IfExp) else [call.func]
    if not all(isinstance(function, ast.Attribute) and function.attr in LEVELS for function in functions):
        return None
    first = call.args[0] if call.args else None
    return str(first.value) if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def test_every_event_of_the_log_is_in_the_table_and_a_stable_identifier() -> None:
    """docs/errors.md lists what `event` can be; names are snake_case, not sentences."""
    events = logged_events()
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", event) for event in events), events
    documented = {code(row[0]) for row in table(page("errors.md"), "events")}
    assert events | {"library_message"} == documented


async def test_every_route_is_in_the_table() -> None:
    """docs/http.md lists the routes of /schema, and no other."""
    async with http_service() as service:
        schema = await served_schema(service.url)
    routes = {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}
    text = page("http.md")
    told = text.split("## A query")[0] + text.split("## Inference protocol")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `((?:GET|POST|DELETE) [^`]+)`", told, re.MULTILINE))
    assert routes | {"GET /schema"} == documented


async def served_schema(url: str) -> Any:
    import httpx

    async with httpx.AsyncClient() as client:
        return (await client.get(f"{url}/schema")).json()


def decisions() -> list[Any]:
    rows = table(page("batching.md"), "decisions")
    return [pytest.param(row, id=" ".join(row[:4])) for row in rows]


WAITING = {"none": 0, "`max_rows` or more": 16, "some": 5, "as many as expected": 8, "fewer than expected": 7}


@pytest.mark.parametrize("row", decisions())
def test_the_table_of_flush_decisions_is_the_policy(row: list[str]) -> None:
    """Each row of docs/batching.md is what `decide` answers, for every value of `any`."""
    waiting, retiring, linger, gathered, decision, _ = row
    answers = {
        decide(
            QueueState(
                queued=WAITING[waiting],
                max_rows=16,
                linger=each_linger,
                expected=8,
                gathered_while_busy=each_gathered,
                draining=each_retiring,
            )
        )
        for each_linger in (Linger if linger == "any" else [Linger(linger)])
        for each_gathered in ((True, False) if gathered == "any" else [gathered == "yes"])
        for each_retiring in ((True, False) if retiring == "any" else [retiring == "yes"])
    }
    assert {None if decision == "wait" else Flush(code(decision))} == answers


def test_every_flush_reason_is_in_the_table() -> None:
    """No batch is formed for a reason that docs/batching.md does not name."""
    named = {code(row[4]) for row in table(page("batching.md"), "decisions") if row[4] != "wait"}
    assert {*Flush} == named


def another(setting: Setting) -> Any:
    """A valid value that is not the default."""
    if setting.choices:
        return next(choice for choice in setting.choices if choice != setting.default)
    if setting.located:
        return "/other.json" if setting.name == "golden" else "/other.npy"
    if setting.name == "endpoint_url":
        return "https://store.example:9000"
    if setting.kind is bool:
        return not setting.default
    if setting.bounds is None:
        return "another"
    bounds = [setting.parse(bound) for bound in (setting.bounds.high, setting.bounds.low)]
    value = next(bound for bound in bounds if bound != setting.default)
    return value.text() if isinstance(value, Duration | Size) else value


def index_settings() -> list[Any]:
    flat = [((setting.name,), setting) for setting in settings_of(IndexSettings) if setting.section is None]
    nested = [
        ((outer.name, setting.name), setting)
        for outer in settings_of(IndexSettings)
        if outer.section is not None
        for setting in settings_of(outer.section)
    ]
    return [pytest.param(path, setting, id=".".join(path)) for path, setting in flat + nested]


@pytest.mark.parametrize(("path", "setting"), index_settings())
def test_a_change_of_an_index_takes_what_the_docs_say(path: tuple[str, ...], setting: Setting) -> None:
    """`change` of each setting is what the catalog does about it."""
    text = "indexes: {a: {uri: s3://bucket/a.npy}}"
    room = ["indexes.a.max_k=16384"] if path == ("k",) else []
    key = ".".join(("indexes", "a", *path, *(["a_name"] if setting.kind is dict else [])))
    before = configuration.parse(text, overrides=room)
    after = configuration.parse(text, overrides=[*room, f"{key}={yaml_of(another(setting))}"])
    assert before != after
    changes = plan(before, after)
    assert {Change.HOT: ("a",), Change.RELOAD: ()}[setting.change or Change.RESTART] == changes.hot
    assert {Change.HOT: (), Change.RELOAD: ("a",)}[setting.change or Change.RESTART] == changes.reload


def yaml_of(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def leaves(section: type[Struct], *above: str) -> Iterator[tuple[tuple[str, ...], Setting]]:
    """Settings of a section and of those within it, each with its path."""
    for setting in settings_of(section):
        if setting.section is None:
            yield (*above, setting.name), setting
        else:
            yield from leaves(setting.section, *above, setting.name)


@pytest.mark.parametrize(
    ("path", "setting"), [pytest.param(*leaf, id=".".join(leaf[0])) for leaf in leaves(ServiceSettings)]
)
def test_a_change_of_the_service_takes_what_the_docs_say(path: tuple[str, ...], setting: Setting) -> None:
    """Settings of the process wait for a restart."""
    before = Settings()
    key = ".".join(("service", *path))
    after = configuration.parse("{}", overrides=[f"{key}={yaml_of(another(setting))}"])
    assert (Change.RESTART, path[:1]) == (setting.change, plan(before, after).restart_needed)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    """No relative link of the docs is broken, heading anchors included."""
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


def test_the_example_configuration_is_valid() -> None:
    """What docs/configuration.md shows first is what kosine accepts."""
    example = re.search(r"```yaml\n(.*?)```", page("configuration.md"), re.DOTALL)
    assert example is not None
    settings = configuration.parse(example[1])
    assert (["items", "users", "flat"], "items") == ([*settings.indexes], settings.default_index)


def test_the_way_to_publish_a_file_works(tmp_path: Path) -> None:
    """The Python of docs/sources.md writes a file that is whole, and leaves nothing beside it."""
    example = re.search(r"```python\n(.*?)```", page("sources.md"), re.DOTALL)
    assert example is not None
    subprocess.run([sys.executable, "-c", example[1]], cwd=tmp_path, check=True)
    assert ["items.npy"] == [path.name for path in tmp_path.iterdir()]


def test_the_command_for_the_flat_file_is_accepted(tmp_path: Path) -> None:
    """The `kosine serve` line of docs/sources.md is a valid configuration."""
    example = re.search(r"```bash\nkosine (serve .*?)\n```", page("sources.md"))
    assert example is not None
    command = [sys.executable, "-m", "kosine", *example[1].split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    settings = configuration.parse(done.stdout)
    assert ("transposed", 100) == (settings.indexes["items"].layout, settings.indexes["items"].dim)


def modules_with_examples() -> list[str]:
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    paths = [path.relative_to(SOURCE.parent) for path, text in texts.items() if ">>>" in text]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_are_right(name: str) -> None:
    """What a docstring shows is what the function answers."""
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert (0, True) == (failed, tried > 0)


def test_every_room_has_its_paragraph() -> None:
    """docs/architecture.md says what each package and module of the top level is for."""
    rooms = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    inner = {"__init__", "__main__", "stop_signals", "demo", "__pycache__"}
    assert rooms - inner == rooms_told("Rooms")


def rooms_told(heading: str) -> set[str]:
    """What a section of docs/architecture.md has a paragraph of."""
    section = page("architecture.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    bold = re.findall(r"^\*\*([a-z_, ]+)\*\* ", section, re.MULTILINE)
    return {name.strip() for names in bold for name in names.split(",")}
