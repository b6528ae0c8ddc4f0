"""G23: no URI of the corpus reaches a file, a socket or a process, on any way into the service.

Audit hooks cannot be taken off again, so what must not happen is watched in a process of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kosine import configuration
from kosine.errors import ConfigurationError, LoadCode, LoadError, Stage
from kosine.loading.local import LocalStorage
from kosine.source_uri import UriPolicy
from tests.kit.hostile_uris import FSSPEC_PROTOCOLS, GOOD_OBJECTS, HOSTILE
from tests.kit.writers import ConfigMapFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]

WATCHED = """
import json, sys
from pathlib import Path

from kosine import configuration
from kosine.errors import ConfigurationError, LoadError
from kosine.loading.local import LocalStorage
from kosine.source_uri import UriPolicy

case = json.load(sys.stdin)
folder = Path(case["folder"])
storage = LocalStorage(UriPolicy(file_roots=(str(folder),)))

def through_configuration(uri, field):
    document = json.dumps({"indexes": {"items": {"uri": "items.npy", **{field: uri}}}})
    configuration.parse(document, folder=folder)

def through_storage(uri):
    storage.fingerprint(uri)

# Whatever is imported or cached on a first refusal is not of the refused URI.
for warm_up in (lambda: through_configuration("http://x/y", "uri"), lambda: through_storage("http://x/y")):
    try:
        warm_up()
    except (ConfigurationError, LoadError):
        pass

QUIET = ("builtins.", "object.", "sys._getframe", "marshal.", "code.", "gc.", "compile", "exec")
events = []
armed = False

def hook(event, arguments):
    if armed and not event.startswith(QUIET):
        events.append(f"{event} {arguments!r}"[:200])

sys.addaudithook(hook)
outcomes = []
for uri in case["uris"]:
    told = []
    for way in case["ways"]:
        armed = True
        try:
            through_storage(uri) if way == "storage" else through_configuration(uri, way)
        except (ConfigurationError, LoadError) as error:
            armed = False
            code = error.code.value if isinstance(error, LoadError) else "configuration"
            told.append([code, str(error)])
        else:
            armed = False
            told.append(["accepted", ""])
    outcomes.append(told)
if case["control"]:
    armed = True
    open(case["control"]).close()
    armed = False
json.dump({"outcomes": outcomes, "events": events}, sys.stdout)
"""


def watched(uris: list[str], *, folder: Path, ways: tuple[str, ...], control: Path | None = None) -> Any:
    """What each way said of each URI, and every audited event meanwhile."""
    case = {"uris": uris, "folder": str(folder), "ways": ways, "control": str(control or "")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        input=json.dumps(case),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_corpus_is_large_and_each_of_it_once() -> None:
    """At least 150, and nobody counts one twice."""
    assert len(set(HOSTILE)) == len(HOSTILE)
    assert len(HOSTILE) >= 150
    assert not set(HOSTILE) & set(GOOD_OBJECTS)


def test_every_protocol_of_fsspec_is_in_the_corpus() -> None:
    """A new release of fsspec that opens something else is noticed here."""
    fsspec = pytest.importorskip("fsspec")
    assert set() == set(fsspec.available_protocols()) - set(FSSPEC_PROTOCOLS) - {"s3", "gs", "file"}


def test_no_uri_of_the_corpus_opens_connects_or_runs_anything(tmp_path: Path) -> None:
    """Refused by every way in, and no audited event at all: no open, connect, subprocess or listing."""
    (tmp_path / "items.npy").write_bytes(b"")
    found = watched([*HOSTILE], folder=tmp_path, ways=("uri", "ids", "storage"))

    accepted = [
        uri
        for uri, told in zip(HOSTILE, found["outcomes"], strict=True)
        if {code for code, _ in told} != {"configuration", "bad_uri"}
    ]
    assert [] == accepted
    assert [] == found["events"]
    assert not [detail for told in found["outcomes"] for _, detail in told if "hunter2" in detail]
    assert not [detail for told in found["outcomes"] for _, detail in told if not detail.isascii()]


def test_the_watch_sees_an_open(tmp_path: Path) -> None:
    """The negative control: an open under the same hook is reported."""
    control = tmp_path / "control"
    control.write_bytes(b"")
    found = watched([], folder=tmp_path, ways=(), control=control)
    assert [True] == [event.startswith("open ") and str(control) in event for event in found["events"]]


def test_configuration_accepts_objects_without_their_libraries(tmp_path: Path) -> None:
    """Whether a store's package is installed is asked when it is opened, not when a file is checked."""
    found = watched([*GOOD_OBJECTS], folder=tmp_path, ways=("uri", "ids"))
    assert [["accepted", ""]] * 2 * len(GOOD_OBJECTS) == [told for both in found["outcomes"] for told in both]
    assert [] == found["events"]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """A root with everything in it that is no regular file of the root, beside secrets of others."""
    root, outside = tmp_path / "root", tmp_path / "root-2"
    root.mkdir()
    (root / "folder").mkdir()
    outside.mkdir()
    (outside / "secret.npy").write_bytes(b"secret")
    os.mkfifo(root / "fifo")
    for name, target in ESCAPES.items():
        (root / name).symlink_to(str(outside / target) if not target.startswith(("/", ".")) else target)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(root / "socket"))
        yield root


ESCAPES = {
    "absolute": "secret.npy",
    "relative": "../root-2/secret.npy",
    "far": "./../../../../../../../../../../etc/passwd",
    "missing": "nothing-here.npy",
    "dangling": "../nowhere/at/all.npy",
    "environ": "/proc/self/environ",
    "descriptor": "/proc/self/fd/0",
    "magic": "/proc/self/root/etc/passwd",
    "zero": "/dev/zero",
    "root-itself": ".",
    "above": "..",
    "twice": "./absolute",
}
THROUGH_A_FOLDER = ("above/root-2/secret.npy", "environ/x", "above/root/absolute")


def test_no_link_leads_out_and_nothing_is_opened_on_the_way(places: Path) -> None:
    """A link out of the root is `source_forbidden`, whether or not something is there."""
    names = [name for name in ESCAPES if name != "root-itself"]
    uris = [f"{places}/{name}" for name in (*names, *THROUGH_A_FOLDER)]
    found = watched(uris, folder=places, ways=("storage",))

    assert {"source_forbidden"} == {code for told in found["outcomes"] for code, _ in told}
    assert [] == found["events"]
    assert not [told for told in found["outcomes"] if "secret" in told[0][1].replace("secret.npy", "", 1)]


def test_only_regular_files_and_the_others_are_not_opened(places: Path) -> None:
    """A FIFO, socket or folder in the root is `not_a_file` by its look."""
    uris = [f"{places}/{name}" for name in ("fifo", "socket", "folder")]
    found = watched([*uris, f"{places}/root-itself"], folder=places, ways=("storage",))

    assert ["not_a_file"] * 3 + ["source_forbidden"] == [told[0][0] for told in found["outcomes"]]
    assert [] == found["events"]


def confined(root: Path) -> LocalStorage:
    return LocalStorage(UriPolicy(file_roots=(str(root),)))


def read(storage: LocalStorage, uri: str) -> bytes:
    with storage.open(uri, storage.fingerprint(uri)) as reader:
        buffer = bytearray(reader.size)
        reader.read_into(0, memoryview(buffer))
        reader.verify()
    return bytes(buffer)


def refusal(call: Callable[[], object]) -> tuple[LoadCode, Stage]:
    with pytest.raises(LoadError) as refused:
        call()
    return refused.value.code, refused.value.stage


def test_links_within_the_root_are_followed(tmp_path: Path) -> None:
    """A flipped link, a mounted ConfigMap, and a root that is itself reached by a link."""
    root = tmp_path / "real"
    root.mkdir()
    (tmp_path / "root").symlink_to("real")
    mounted = ConfigMapFolder(root)
    for content in (b"one", b"two"):
        mounted.write({"items.npy": content})
        (root / "v.npy").unlink(missing_ok=True)
        (root / "v.npy").symlink_to(root / "items.npy")
        for name in ("items.npy", "..data/items.npy", "v.npy"):
            assert content == read(confined(tmp_path / "root"), f"{tmp_path}/root/{name}")


def test_a_second_root_makes_a_link_right(tmp_path: Path) -> None:
    """What leads from one root into another stays within the roots."""
    for name in ("links", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "items.npy").write_bytes(b"one")
    (tmp_path / "links" / "items.npy").symlink_to("../data/items.npy")
    uri = f"{tmp_path}/links/items.npy"

    assert (LoadCode.SOURCE_FORBIDDEN, Stage.FINGERPRINT) == refusal(
        lambda: confined(tmp_path / "links").fingerprint(uri)
    )
    both = LocalStorage(UriPolicy(file_roots=(f"{tmp_path}/links", f"{tmp_path}/data")))
    assert b"one" == read(both, uri)


def test_a_file_that_was_named_may_be_a_link_to_anywhere(tmp_path: Path) -> None:
    """Who types a command could open the file with any other program, too."""
    (tmp_path / "items.npy").write_bytes(b"one")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "link.npy").symlink_to("../items.npy")
    uri = f"{tmp_path}/bin/link.npy"
    assert b"one" == read(LocalStorage(UriPolicy(file_roots=(uri,))), uri)


@pytest.mark.parametrize("moment", ["before the look", "after the look"])
@pytest.mark.parametrize("what", ["the file", "its folder"])
def test_a_link_slipped_in_later_is_not_followed(
    what: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between where the links lead and the open of what was there, an open still ends in the root."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a", outside):
        folder.mkdir(parents=True)
        (folder / "items.npy").write_bytes(b"one")
    os.link(outside / "items.npy", outside / "other.npy")
    uri, storage = f"{root}/a/items.npy", confined(root)
    before = storage.fingerprint(uri)
    real = os.path.realpath
    opened: list[object] = []
    plain_open = os.open

    def slip_in(path: Any, **options: Any) -> str:
        found = str(real(path, **options))
        if str(path) == uri and not (root / "moved").exists():
            moved = root / "a" / "items.npy" if what == "the file" else root / "a"
            moved.rename(root / "moved")
            moved.symlink_to(outside / "items.npy" if what == "the file" else outside)
        return found

    def counted(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = plain_open(path, *arguments, **options)
        opened.append(os.fstat(descriptor).st_ino)
        return descriptor

    monkeypatch.setattr(os.path, "realpath", slip_in)
    monkeypatch.setattr(os, "open", counted)
    if moment == "before the look":
        with pytest.raises(LoadError):
            read(storage, uri)
    else:
        with pytest.raises(LoadError), storage.open(uri, before):
            pass
    assert (root / "moved").exists()
    assert (outside / "items.npy").stat().st_ino not in opened
    assert outside.stat().st_ino not in opened


def load(path: Path, text: str, *overrides: str) -> tuple[str, ...] | None:
    path.write_text(text, encoding="utf-8")
    return configuration.load(path, overrides=overrides).service.file_roots


def test_the_roots_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the file, or what `file_roots` says, and what the command line names besides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "kosine.yaml"
    index = "indexes: {a: {uri: a.npy}}"
    etc = str(tmp_path / "etc")

    assert (etc,) == load(path, index)
    assert (str(tmp_path), "/data") == load(path, f"service: {{file_roots: [.., /data]}}\n{index}")
    assert (str(tmp_path / "x"),) == load(path, "{}", "service.file_roots=x")
    assert (etc, f"{tmp_path}/b.npy") == load(path, index, "indexes.b.uri=./b.npy")
    assert (etc, f"{tmp_path}/b.json", str(tmp_path)) == load(path, index, "indexes.b.uri=b.json")
    assert (etc,) == load(path, index, "indexes.b.uri=s3://bucket/b.npy")
    alone = configuration.load(None, indexes=["a=../x/../a.npy", "b=/b.npy"]).service.file_roots
    assert (f"{tmp_path.parent}/a.npy", "/b.npy") == alone


@pytest.mark.parametrize(
    "root", ["/", "/proc", "/proc/self/cwd", "/sys/x", "/data/../..", "s3://bucket/x", "", "a::b"]
)
def test_what_is_too_much_of_the_machine_is_no_root(root: str, tmp_path: Path) -> None:
    """All of it, what the kernel tells of this process, and what is no folder."""
    with pytest.raises(ConfigurationError, match=r"service\.file_roots: "):
        load(tmp_path / "kosine.yaml", json.dumps({"service": {"file_roots": [root]}}))


@pytest.mark.parametrize("uri", ["/etc/passwd", "../items.npy", "file:///etc/passwd"])
def test_a_file_outside_is_told_at_start_with_the_remedy(uri: str, tmp_path: Path) -> None:
    """Not as an index that never loads: the process refuses to start, and says which setting to change."""
    path = tmp_path / "kosine.yaml"
    with pytest.raises(ConfigurationError) as refused:
        load(path, json.dumps({"indexes": {"items": {"uri": uri}}}))
    assert refused.value.detail.startswith(f"{path}: indexes.items.uri: ")
    if ".." not in uri:
        assert "service.file_roots" in refused.value.detail
    assert load(path, json.dumps({"indexes": {"items": {"uri": "x.npy"}}}), f"indexes.items.uri={uri}")


def test_a_dumped_configuration_opens_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` prints what is in force; as a file elsewhere it means the same."""
    odd = tmp_path / "my [data] #1"
    odd.mkdir()
    monkeypatch.chdir(odd)
    path = odd / "kosine.yaml"
    path.write_text("indexes: {a: {uri: a.npy}}", encoding="utf-8")
    settings = configuration.load(path, indexes=["b=../x*.npy", "c=s3://bucket/c.npy"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(configuration.dump(settings), encoding="utf-8")
    assert settings == configuration.load(copy)
