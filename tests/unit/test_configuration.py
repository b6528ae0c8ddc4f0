"""A configuration is right as a whole or refused with every problem named."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kosine import configuration
from kosine.configuration.document import MAX_BYTES
from kosine.configuration.fields import Setting, settings_of
from kosine.errors import ConfigurationError
from kosine.settings import (
    BatchSettings,
    DefaultSettings,
    GuardSettings,
    IndexSettings,
    RefreshSettings,
    ServiceSettings,
    Settings,
)
from kosine.units import Duration, Size

if TYPE_CHECKING:
    from msgspec import Struct

SECTIONS: list[type[Struct]] = [
    ServiceSettings,
    DefaultSettings,
    IndexSettings,
    RefreshSettings,
    BatchSettings,
    GuardSettings,
]

TOP = "service, defaults, indexes, default_index"
SERVICE = ", ".join(ServiceSettings.__struct_fields__)
MASKS = "a mapping of up to 16 names to paths, s3:// or gs:// URLs"
BATCH = "max_rows, linger, queue_rows, queue_bytes"

DESIGN_EXAMPLE = """
service: {host: 0.0.0.0, port: 8080, device: auto, file_roots: [/data, .]}
defaults:
  k: 10
  max_k: 1000
  timeout: 2s
  refresh: {interval: 30s}
  batch: {max_rows: 128, linger: 1ms, queue_rows: 4096}
indexes:
  items: {uri: /data/items.npy}
  users: {uri: file:///data/users.npy, metric: dot, ids: /data/user_ids.npy}
  legacy: {uri: ./10000-100.npy, layout: transposed, dim: 100}
default_index: items
"""


def problems_of(text: str, *, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigurationError) as refused:
        configuration.parse(text, overrides=overrides)
    return refused.value.detail


def one_index(**values: Any) -> str:
    return yaml.safe_dump({"indexes": {"items": {"uri": "/x.npy", **values}}})


def test_the_file_of_the_design_means_what_it_says() -> None:
    """Every value of the example arrives in the settings, units converted and paths absolute."""
    settings = configuration.parse(DESIGN_EXAMPLE, folder=Path("/etc/kosine"))
    assert ServiceSettings(host="0.0.0.0", file_roots=("/data", "/etc/kosine")) == settings.service
    assert IndexSettings(uri="/data/items.npy") == settings.indexes["items"]
    assert (
        IndexSettings(uri="/data/users.npy", metric="dot", ids="/data/user_ids.npy")
        == settings.indexes["users"]
    )
    assert (
        IndexSettings(uri="/etc/kosine/10000-100.npy", layout="transposed", dim=100)
        == settings.indexes["legacy"]
    )
    assert settings.default_index == "items"


@pytest.mark.parametrize(
    ("written", "meant"), [("copies", "/etc/kosine/copies"), ("/var/cache/k", "/var/cache/k")]
)
def test_the_folder_of_copies_is_made_absolute(written: str, meant: str) -> None:
    """Relative to the folder of the file, as every path in it."""
    text = f"service: {{cache_dir: {written}}}"
    assert meant == configuration.parse(text, folder=Path("/etc/kosine")).service.cache_dir


def test_copies_are_not_kept_where_they_would_be_the_kernels() -> None:
    """Nothing is written to /proc, /sys or over everything."""
    for folder in ("/", "/proc/self", "/sys", "s3://vectors/copies"):
        assert "service.cache_dir: expected a folder" in problems_of(f"service: {{cache_dir: '{folder}'}}")


def test_defaults_reach_every_index_section_by_section_and_can_be_overridden() -> None:
    """An index that overrides one key of a section keeps the defaults of the others."""
    settings = configuration.parse("""
defaults: {k: 5, batch: {max_rows: 16, linger: 0}, guard: {min_rows: 9}}
indexes:
  a: {uri: /a.npy}
  b: {uri: /b.npy, k: 7, batch: {max_rows: 32}, guard: {min_rows: null}}
""")
    inherited = IndexSettings(
        uri="/a.npy",
        k=5,
        batch=BatchSettings(max_rows=16, linger=Duration(0)),
        guard=GuardSettings(min_rows=9),
    )
    assert inherited == settings.indexes["a"]
    overridden = replace(
        inherited,
        uri="/b.npy",
        k=7,
        batch=BatchSettings(max_rows=32, linger=Duration(0)),
        guard=GuardSettings(),
    )
    assert overridden == settings.indexes["b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("service: {port: 70000}", "service.port: expected a whole number from 0 to 65535, got 70000"),
        ("service: {port: '80'}", "service.port: expected a whole number from 0 to 65535, got '80'"),
        ("service: {port: 80.0}", "service.port: expected a whole number from 0 to 65535, got 80.0"),
        ("service: {port: true}", "service.port: expected a whole number from 0 to 65535, got True"),
        ("service: {port: null}", "service.port: expected a whole number from 0 to 65535, got nothing"),
        (
            "service: {port: 99999999999999999999999}",
            "service.port: expected a whole number from 0 to 65535, got '99999999999999999999999'",
        ),
        ("service: {device: off}", "service.device: expected `auto` or `cpu` or `gpu`, got 'off'"),
        (
            "service: {body_limit: 1MB}",
            "service.body_limit: expected a size from 1KiB to 1GiB such as 512MiB, got '1MB'",
        ),
        (
            "service: {memory_limit: 1}",
            "service.memory_limit: expected a size from 64MiB to 64TiB such as 512MiB, or null, got 1",
        ),
        (
            "defaults: {refresh: {interval: 10ms}}",
            "defaults.refresh.interval: expected a duration from 1s to 1d such as 250ms, 30s, 5m, got '10ms'",
        ),
        (
            "defaults: {refresh: {interval: 1:30}}",
            "defaults.refresh.interval: expected a duration from 1s to 1d such as 250ms, 30s, 5m, got '1:30'",
        ),
        (
            "defaults: {batch: {linger: 1.5ms}}",
            "defaults.batch.linger: expected a duration from 0s to 1ms such as 250ms, 30s, 5m, got '1.5ms'",
        ),
        ("defaults: {required: yes}", "defaults.required: expected true or false, got 'yes'"),
        (
            "defaults: {guard: {max_shrink_percent: .nan}}",
            "defaults.guard.max_shrink_percent: expected a number from 0 to 100, or null, got '.nan'",
        ),
        (
            "defaults: {guard: {max_shrink_percent: 1e999}}",
            "defaults.guard.max_shrink_percent: expected a number from 0 to 100, or null, got inf",
        ),
        (
            "defaults: {batch: [1]}",
            f"defaults.batch: expected a mapping of settings ({BATCH}), got a list",
        ),
        (
            "defaults: {batch: {max_row: 1}}",
            f"defaults.batch.max_row: unknown setting, got 1; known are {BATCH}; did you mean `max_rows`?",
        ),
        (
            "servcie: {}",
            f"servcie: unknown setting, got a mapping; known are {TOP}; did you mean `service`?",
        ),
        ("indexes: []", "indexes: expected a mapping of names to settings, got a list"),
        (
            "indexes: {Items: {}}",
            "indexes.Items: not an index name; expected 1 to 63 of a-z, 0-9 and inner hyphens",
        ),
        ("indexes: {items: {}}", "indexes.items.uri: missing; expected a path, s3:// or gs:// URL"),
        (
            one_index(masks={"In Stock": "/m.npy"}),
            (
                "indexes.items.masks.In Stock: not the name of a mask; expected 1 to 63 of a-z, 0-9, and "
                "inner hyphens or underscores"
            ),
        ),
        (
            one_index(masks={f"m{number}": "/m.npy" for number in range(17)}),
            f"indexes.items.masks: expected {MASKS}, got a mapping",
        ),
        (one_index(masks={"a": 1}), f"indexes.items.masks: expected {MASKS}, got a mapping"),
        (one_index(masks=["/m.npy"]), f"indexes.items.masks: expected {MASKS}, got a list"),
        (
            one_index(uri="/items.json", masks={"a": "/m.npy"}),
            (
                "indexes.items: expected no masks beside a manifest: the `.json` that uri names says where "
                "they are"
            ),
        ),
        (
            one_index(layout="transposed"),
            "indexes.items: layout `transposed` needs dim: a 1-D file does not say how long its rows are",
        ),
        (
            one_index(canary={"golden": "/golden.npy"}),
            "indexes.items: expected canary.golden to name a .json file, got '/golden.npy'",
        ),
        (
            one_index(canary={"golden": "https://host/golden.json"}),
            (
                "indexes.items.canary.golden: expected a path, file:///folder/file, s3://bucket/key or "
                "gs://bucket/key, got 'https://host/golden.json'"
            ),
        ),
        (
            one_index(canary={"min_overlap_percent": 50}, policy="resource_preserving"),
            (
                "indexes.items: expected policy availability_preserving beside canary.golden or "
                "canary.min_overlap_percent: by resource_preserving the version that would serve on is gone "
                "before the new one can be asked"
            ),
        ),
        (one_index(k=11, max_k=10), "indexes.items: expected k at most max_k, got k 11 and max_k 10"),
        (one_index(max_k=5), "indexes.items: expected k at most max_k, got k 10 and max_k 5"),
        (
            one_index(batch={"queue_rows": 100}),
            (
                "indexes.items: expected batch.max_rows at most batch.queue_rows, got 128 and 100: "
                "a batch can hold no more than its queue"
            ),
        ),
        (
            "default_index: itmes\nindexes: {items: {uri: /x.npy}}",
            "default_index: no index is named 'itmes'; known are items; did you mean `items`?",
        ),
        ("default_index: items", "default_index: no index is named 'items'; none is configured"),
        (
            "[1, 2]",
            f"expected a mapping with {TOP} at the top, got a list",
        ),
        ("", f"expected a mapping with {TOP} at the top, got nothing"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(text: str, expected: str) -> None:
    """Each refusal names key path, offending value and what would be right."""
    assert expected == problems_of(text)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    """Who fixes the first message does not meet a second one from the same file."""
    told = problems_of("service: {port: -1, hots: x}\nindexes: {a: {dim: 0}, b: {uri: http://h/b.npy}}")
    assert told.splitlines()[0] == "5 problems:"
    for key in ("service.port", "service.hots", "indexes.a.dim", "indexes.a.uri", "indexes.b.uri"):
        assert f"\n  {key}: " in told


def test_a_clash_in_defaults_is_told_once_and_not_for_every_index() -> None:
    """Inherited limits are complained of where they were written."""
    told = problems_of("defaults: {k: 20, max_k: 10}\nindexes: {a: {uri: /a.npy}, b: {uri: /b.npy}}")
    assert told == "defaults: expected k at most max_k, got k 20 and max_k 10"
    told = problems_of("defaults: {canary: {golden: /a.npy}}\nindexes: {a: {uri: /a.npy}, b: {uri: /b.npy}}")
    assert told == "defaults: expected canary.golden to name a .json file, got '/a.npy'"


def test_a_long_value_is_cut_in_messages() -> None:
    """A message stays readable whatever somebody pasted."""
    assert len(problems_of(f"service: {{device: {'x' * 10_000}}}")) < 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("service: {port: 1, port: 2}", "line 1: `service.port` is given twice, first on line 1"),
        (
            "indexes:\n  a:\n    uri: /a\n  a:\n    uri: /b",
            "line 4: `indexes.a` is given twice, first on line 2",
        ),
        ("service: &x {port: 1}", "line 1: anchors (&x) are refused; write values out"),
        ("service:\n  port: *x", "line 2: aliases (*x) are refused; write the value out"),
        ("service: !!python/object/apply:os.system [ls]", "line 1: tags are refused; write a plain value"),
        ("service: !!str x", "line 1: tags are refused; write a plain value"),
        ("? [a, b]\n: 1", "line 1: expected a name as key, got a mapping or a list"),
        ("service: {}\n---\nservice: {}", "line 2: expected one YAML document, got another"),
        ("[" * 5000, "line 1: nested deeper than 16 levels"),
    ],
)
def test_yaml_that_is_too_clever_is_refused(text: str, expected: str) -> None:
    """Duplicate keys, bombs, tags and bracket towers are refused before anything is built of them."""
    assert expected == problems_of(text)


@pytest.mark.parametrize("text", ["service: {", "service: [1, }", "a: b: c", "\x01", "service:\n\t- x"])
def test_text_that_is_no_yaml_is_named_so(text: str) -> None:
    """A syntax error is a configuration error with a line, not a traceback."""
    assert "not YAML" in problems_of(text)


def test_a_document_larger_than_the_limit_is_refused_and_one_at_the_limit_is_read() -> None:
    """The limit is 1 MiB, exactly."""
    padding = "service: {} #"
    at_limit = padding + "x" * (MAX_BYTES - len(padding))
    assert Settings() == configuration.parse(at_limit)
    assert "at most 1048576 bytes" in problems_of(at_limit + "x")


@pytest.mark.parametrize("name", ["no", "on", "2024", "null", "true", "1e3", "x", "a-b"])
def test_words_that_yaml_1_1_takes_for_values_are_names_here(name: str) -> None:
    """A key is text, whatever it looks like; as default_index it may need quotes."""
    settings = configuration.parse(f"indexes: {{{name}: {{uri: /x.npy}}}}\ndefault_index: '{name}'")
    assert [name] == list(settings.indexes)
    assert name == settings.default_index


def test_the_only_index_is_the_default_and_two_need_a_name() -> None:
    """POST /cos goes to the one index there is; with two, only where the file says so."""
    one = configuration.parse("indexes: {a: {uri: /a.npy}}")
    two = configuration.parse("indexes: {a: {uri: /a.npy}, b: {uri: /b.npy}}")
    assert ("a", None) == (one.default_index, two.default_index)


def test_paths_in_a_file_start_at_its_folder_and_those_of_options_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same relative path means what its author saw."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "here").mkdir()
    config = tmp_path / "etc" / "kosine.yaml"
    config.write_text("indexes: {a: {uri: a.npy, ids: a-ids.npy}}", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    settings = configuration.load(
        Path("../etc/kosine.yaml"), indexes=["b=b.npy"], overrides=["indexes.a.ids=ids.npy"]
    )
    assert IndexSettings(uri=f"{tmp_path}/etc/a.npy", ids=f"{tmp_path}/here/ids.npy") == settings.indexes["a"]
    assert IndexSettings(uri=f"{tmp_path}/here/b.npy") == settings.indexes["b"]


def test_options_alone_make_a_configuration() -> None:
    """`--index` and `--set` are the same as a file."""
    settings = configuration.load(
        None,
        indexes=["items=/x=1.npy"],
        overrides=[
            "indexes.items.layout=columns",
            "service.port=9000",
            "defaults.batch.max_rows=64",
            "defaults.k=5",
        ],
    )
    expected = configuration.parse("""
service: {port: 9000}
defaults: {k: 5, batch: {max_rows: 64}}
indexes: {items: {uri: /x=1.npy, layout: columns}}
""")
    assert expected == replace(settings, service=replace(settings.service, file_roots=None))


def test_a_later_option_wins_and_null_takes_a_value_back() -> None:
    """`--set` edits the document in order."""
    settings = configuration.parse(
        one_index(guard={"min_rows": 5}),
        overrides=["service.port=1", "service.port=2", "indexes.items.guard.min_rows=null"],
    )
    assert (2, None) == (settings.service.port, settings.indexes["items"].guard.min_rows)


@pytest.mark.parametrize(
    ("indexes", "overrides", "expected"),
    [
        (["./x.npy"], [], "--index './x.npy': expected NAME=URI, such as items=./items.npy"),
        (["=x"], [], "--index '=x': expected NAME=URI, such as items=./items.npy"),
        (["a=x", "a=y"], [], "--index 'a=x': `a` is given twice"),
        (["A=x"], [], "indexes.A: not an index name; expected 1 to 63 of a-z, 0-9 and inner hyphens"),
        (
            ["a=az://b/x"],
            [],
            (
                "indexes.a.uri (command line): expected a path, file:///folder/file, s3://bucket/key or "
                "gs://bucket/key, got 'az://b/x'"
            ),
        ),
        ([], ["port"], "--set 'port': expected PATH=VALUE, such as service.port=9000"),
        ([], ["a..b=1"], "--set 'a..b=1': expected PATH=VALUE, such as service.port=9000"),
        (
            [],
            ["service=[1]"],
            "--set 'service=[1]': expected one value, got a mapping or a list; set their keys one by one",
        ),
        (
            [],
            ["service.port=1", "service.port.x=1"],
            "--set 'service.port.x=1': `port` is one value, it has no settings below it",
        ),
        (
            [],
            ["service.port=x"],
            "service.port (command line): expected a whole number from 0 to 65535, got 'x'",
        ),
        (
            [],
            ["service.prot=1"],
            f"service.prot (command line): unknown setting, got 1; known are {SERVICE}; did you mean `port`?",
        ),
    ],
)
def test_a_bad_option_is_quoted_with_what_was_expected(
    indexes: list[str], overrides: list[str], expected: str
) -> None:
    """The message names the option that somebody typed."""
    with pytest.raises(ConfigurationError) as refused:
        configuration.load(None, indexes=indexes, overrides=overrides)
    assert expected == refused.value.detail


def test_an_option_that_no_terminal_can_have_typed_is_refused() -> None:
    """Bytes that are no text (surrogates in argv) are an error message, not a crash."""
    with pytest.raises(ConfigurationError):
        configuration.load(None, indexes=["a=\udcff.npy"])


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    """Missing, a folder, a pipe, too large, or no text: each has its own message."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    latin = tmp_path / "latin"
    latin.write_bytes("service: {host: ä}".encode("latin-1"))
    table: dict[Path, str] = {
        tmp_path / "missing": "does not exist",
        tmp_path: "is not a regular file",
        pipe: "is not a regular file",
        large: "is larger than 1048576 bytes",
        latin: "is not UTF-8 at byte 16",
    }
    for path, reason in table.items():
        with pytest.raises(ConfigurationError) as refused:
            configuration.load(path)
        assert f"the configuration file {path} {reason}" == refused.value.detail


def test_a_refusal_of_a_file_names_the_file(tmp_path: Path) -> None:
    """Who mounts several files sees which one is meant."""
    path = tmp_path / "kosine.yaml"
    path.write_text("service: {port: x}", encoding="utf-8-sig")
    with pytest.raises(ConfigurationError) as refused:
        configuration.load(path)
    assert refused.value.detail.startswith(f"{path}: service.port: ")


def numbers_of(setting: Setting) -> bool:
    return setting.kind in {int, float, Duration, Size}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_says_what_it_means_and_how_a_change_of_it_counts(section: type[Struct]) -> None:
    """Numbers have bounds, everything has a meaning, and shipped defaults are within them."""
    for setting in settings_of(section):
        if setting.section is not None:
            continue
        assert setting.meaning.endswith((".", ".."))
        assert setting.change is not None
        assert not numbers_of(setting) or setting.bounds is not None
        if not setting.required:
            assert setting.default == setting.parse(setting.default)


@st.composite
def values_for(draw: st.DrawFn, setting: Setting) -> Any:
    if setting.section is not None:
        return draw(sections(setting.section))
    if setting.optional and draw(st.booleans()):
        return None
    if setting.choices:
        return draw(st.sampled_from(setting.choices))
    if setting.located:
        uris = st.sampled_from(["a.npy", "/b/c.npy", "file:///d e.npy", "s3://bucket/f.npy"])
        names = st.sampled_from(["in_stock", "a-b", "7"])
        return draw(st.dictionaries(names, uris, max_size=3) if setting.kind is dict else uris)
    if setting.kind is bool:
        return draw(st.booleans())
    if setting.folders:
        lists = [["/data", "here"], []] if setting.kind is tuple else []
        return draw(st.sampled_from(["/data", *lists]))
    if setting.bounds is None:
        return draw(st.sampled_from(["::1", "example", "null", "no", "1:30"]))
    low, high = (setting.parse(bound) for bound in (setting.bounds.low, setting.bounds.high))
    if setting.kind in {int, Size}:
        return draw(st.integers(low, high))
    return draw(st.floats(low, high))


@st.composite
def sections(draw: st.DrawFn, section: type[Struct]) -> dict[str, Any]:
    return {
        setting.name: draw(values_for(setting))
        for setting in settings_of(section)
        if setting.required or draw(st.booleans())
    }


documents = st.fixed_dictionaries(
    {},
    optional={
        "service": sections(ServiceSettings),
        "defaults": sections(DefaultSettings),
        "indexes": st.dictionaries(
            st.from_regex(r"[a-z0-9]([-a-z0-9]{0,3}[a-z0-9])?", fullmatch=True),
            sections(IndexSettings),
            max_size=3,
        ),
    },
)


@given(documents)
def test_what_is_dumped_is_read_back_as_the_same_settings(document: dict[str, Any]) -> None:
    """`--check` prints a file that means the same, for any configuration that is accepted."""
    try:
        settings = configuration.parse(yaml.safe_dump(document))
    except ConfigurationError as refused:
        # Drawn values are within their bounds: only what single values cannot show may be wrong.
        told = refused.facts["problems"]
        assert all(
            re.search("at most|needs dim|endpoint_url|service.file_roots|credentials|canary.golden", problem)
            for problem in told
        ), told
        return
    again = configuration.parse(configuration.dump(settings))
    assert settings == again
    assert configuration.settings_hash(settings) == configuration.settings_hash(again)


def test_the_hash_changes_with_any_value_and_not_with_the_way_it_is_written() -> None:
    """Equal settings have equal hashes, whatever the file looks like; another value has another hash."""
    text = "service: {grace: 60s}\nindexes: {a: {uri: /a.npy}, b: {uri: /b.npy}}"
    same = "indexes:\n  b: {uri: /b.npy, k: 10}\n  a: {uri: file:///a.npy}\nservice:\n  grace: 1m"
    assert configuration.settings_hash(configuration.parse(text)) == configuration.settings_hash(
        configuration.parse(same)
    )
    hashes = {
        configuration.settings_hash(configuration.parse(text, overrides=[edit]))
        for edit in ("service.grace=61s", "indexes.a.k=9", "default_index=a", "indexes.a.uri=/c.npy")
    }
    assert len(hashes) == 4


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever stands in a file, the answer is settings or a ConfigurationError."""
    with suppress(ConfigurationError):
        configuration.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("500us", 0.0005), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("1d", 86400), ("0s", 0)],
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    """The number of seconds is the float nearest to what was written."""
    assert Duration(seconds) == Duration.parse(text)


@pytest.mark.parametrize(
    "value", ["", "5", "s", "-1s", "1 s", "1s2", "1e3s", "inf", None, True, [], "1S", "٣s"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """One number, one known unit, no sign."""
    with pytest.raises((ValueError, TypeError)):
        Duration.parse(value)


@given(st.floats(0, 1e7))
def test_a_duration_is_written_so_that_it_reads_back(seconds: float) -> None:
    """Text and number are the same duration, to the nanosecond."""
    duration = Duration.parse(seconds)
    assert duration == Duration.parse(duration.text())


@given(st.integers(0, 10**18 - 1))
def test_a_size_is_written_so_that_it_reads_back(count: int) -> None:
    """Text and number are the same size, to the byte."""
    assert Size(count) == Size.parse(Size(count).text())


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9000", "https://minio.storage.svc", "http://[::1]:9000/"]
)
def test_an_endpoint_is_a_scheme_a_host_and_a_port(endpoint: str) -> None:
    """`service.stores` says where a store is."""
    settings = configuration.parse("{}", overrides=[f"service.stores.s3.endpoint_url={endpoint!r}"])
    assert endpoint == settings.service.stores.s3.endpoint_url


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:9000", "ftp://host", "http://user:secret@host", "http://host/path", "http://host?a=b", ""],
)
def test_an_endpoint_that_could_carry_more_is_refused(endpoint: str) -> None:
    """Credentials belong into the environment, and are not repeated in the message."""
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse("{}", overrides=[f"service.stores.gcs.endpoint_url={endpoint!r}"])
    assert "service.stores.gcs" in caught.value.detail
    assert "secret" not in caught.value.detail
