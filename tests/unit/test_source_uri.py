"""The grammar of sources: what is accepted has one spelling; a refusal says why and tells no secret."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kosine.source_uri import (
    COMMAND_LINE,
    MAX_LENGTH,
    BadUri,
    FileSource,
    ObjectSource,
    SourceUri,
    UriPolicy,
    is_below,
    local_path,
    parse_source,
    shown,
)
from tests.kit.hostile_uris import GOOD_OBJECTS, HOSTILE

POLICY = UriPolicy(file_roots=("/data", "/srv/[odd] folder", "/home/me/link.npy"))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("items.npy", FileSource("/base/items.npy")),
        ("./items.npy", FileSource("/base/items.npy")),
        ("./data:v2.npy", FileSource("/base/data:v2.npy")),
        ("/data/items.npy", FileSource("/data/items.npy")),
        ("file:///data/items 2.npy", FileSource("/data/items 2.npy")),
        ("über/äpfel.npy", FileSource("/base/über/äpfel.npy")),
        ("索引/物品.npy", FileSource("/base/索引/物品.npy")),
        ("..data/items.npy", FileSource("/base/..data/items.npy")),
        ("s3://bucket/items.npy", ObjectSource("s3", "bucket", "items.npy")),
        ("s3://my.bucket-2/date=2024-01-01/a+b,(c)'!_~@1:2.npy", None),
        ("s3://bucket/..data/...npy", ObjectSource("s3", "bucket", "..data/...npy")),
        ("gs://my_bucket/items.json", ObjectSource("gs", "my_bucket", "items.json")),
        (f"gs://{'a' * 63}.{'b' * 63}/x", None),
        (f"s3://{'a' * 63}/x", None),
        ("s3://1.2.3.4x/x", None),
    ],
)
def test_a_source_is_what_its_text_says(text: str, source: SourceUri | None) -> None:
    """Paths start at the folder; an object is its bucket and key, character by character."""
    found = parse_source(text, folder="/base")
    assert (source or parse_source(text)) == found
    assert str(found) == (text if source is None else str(source))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("../items.npy", "/base/../items.npy"),
        (".//a/./items.npy", "/base/a/items.npy"),
        ("//data//items.npy", "/data/items.npy"),
        ("items[1] #2 50%.npy", "/base/items[1] #2 50%.npy"),
        ("a b: c.npy", "/base/a b: c.npy"),
        ("caf\udce9.npy", "/base/caf\udce9.npy"),
    ],
)
def test_a_typed_path_is_what_the_shell_says(text: str, path: str) -> None:
    """On the command line any file can be named; URLs have the same rules everywhere."""
    assert FileSource(path) == parse_source(text, folder="/base", typed=True)
    with pytest.raises(BadUri):
        parse_source(text, folder="/base")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected 1 to 1024 characters, 0 came"),
        ("x" * (MAX_LENGTH + 1), "expected 1 to 1024 characters, 1025 came"),
        ("a\x00b", "control characters"),
        ("simplecache::s3://bucket/x", "chains (`::`)"),
        ("https://host/x.npy", "expected a path, file:///folder/file, s3://bucket/key or gs://bucket/key,"),
        ("S3://bucket/x", "write `s3` in lower case"),
        ("file://host/x.npy", "a file URL names no host"),
        ("data:v2.npy", "is written ./name:1.npy"),
        ("~/x.npy", "`~` is not expanded"),
        ("a/../x.npy", "`.` and `..` between slashes"),
        ("a//x.npy", "expected a name between slashes"),
        ("*.npy", "globs are refused (`*`)"),
        ("x\u2215y", "look like others"),
        ("s3://key:secret@bucket/x", "credentials come from the environment"),
        ("s3://localhost:9000/x", "an endpoint is a setting of the service"),
        ("s3://bucket", "expected a key after the bucket: s3://bucket/key"),
        ("s3://Bucket/x", "expected a bucket after s3://, 3 to 63 of a-z, 0-9, hyphens and dots"),
        ("s3://10.0.0.1/x", "no IP address"),
        ("s3://bucket/x?versionId=1", "a query or glob is refused (`?`)"),
        ("s3://bucket/x#1", "a fragment is refused"),
        ("s3://bucket/%2e%2e/x", "a percent escape is refused"),
        ("s3://bucket/a b", "without spaces"),
        ("s3://bucket/\u00fc", "ASCII"),
    ],
)
def test_a_refusal_says_what_is_wrong(text: str, reason: str) -> None:
    """Each rule has its own message, and what came is shown."""
    with pytest.raises(BadUri, match=re.escape(reason)) as refused:
        parse_source(text)
    assert str(refused.value).endswith(f", got {shown(text)}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://AKIA:se/cr@et@bucket/key", "'s3://***@bucket/key'"),
        ("s3://AKIA:secret/bucket", "'s3://AKIA:***/bucket'"),
        ("s3://AKIA%3Asecret%40bucket/key", "'s3://***@bucket/key'"),
        ("s3://b/k?X-Amz-Signature=secret", "'s3://b/k?***'"),
        ("s3://b/k%3Fsig=secret", "'s3://b/k?***'"),
        ("s3://b/k#secret", "'s3://b/k?***'"),
        ("user:secret@host/x", "'***@host/x'"),
        ("user:secret@host/http://x", "'***@host/http://x'"),
        ("a\n\x1b[31m\u202eb\U0001f4a9", r"'a\n\x1b[31m\u202eb\U0001f4a9'"),
    ],
)
def test_what_is_shown_is_escaped_and_tells_no_secret(text: str, expected: str) -> None:
    """User names, queries and fragments are masked, and no terminal is steered by a message."""
    assert expected == shown(text)


@given(st.text(max_size=3000))
def test_what_is_shown_is_short_ascii(text: str) -> None:
    """Whatever came, the message stays one readable line."""
    told = shown(text)
    assert told.isascii()
    assert told.isprintable()
    assert len(told) <= 83


@pytest.mark.parametrize("text", HOSTILE)
def test_no_message_repeats_a_canary(text: str) -> None:
    """The corpus writes `hunter2` wherever a password could stand."""
    with pytest.raises(BadUri) as refused:
        POLICY.admit(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "/data/items.npy",
        "/data/a/b.npy",
        "file:///data/items.npy",
        "/srv/[odd] folder/items.npy",
        "/home/me/link.npy",
    ],
)
def test_a_file_in_a_root_or_named_itself_is_admitted(uri: str) -> None:
    """The name of a root may be anything; what is below it is held to the grammar."""
    assert FileSource(uri.removeprefix("file://")) == POLICY.admit(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "/data",
        "/data-2/items.npy",
        "/home/me/link.npy.bak",
        "/home/me",
        "items.npy",
        "./data/items.npy",
        "/data/../etc/passwd",
        "/data//etc/passwd",
        "/srv/[odd] folder/x[1].npy",
    ],
)
def test_a_file_elsewhere_is_refused(uri: str) -> None:
    """A prefix is not a folder, a relative path has no place, and no root means no file."""
    if uri != "/data":  # a root itself is named, and turns out to be a folder when it is looked at
        with pytest.raises(BadUri):
            POLICY.admit(uri)
    with pytest.raises(BadUri):
        UriPolicy().admit(uri)


def test_a_scheme_can_be_switched_off() -> None:
    """What is not in the list of the policy is refused whatever its form."""
    only_objects = UriPolicy(file_roots=("/data",), allowed_schemes=frozenset({"s3"}))
    assert ObjectSource("s3", "bucket", "x") == only_objects.admit("s3://bucket/x")
    for uri in ("gs://bucket/x", "file:///data/x", "/data/x"):
        with pytest.raises(BadUri):
            only_objects.admit(uri)


def test_only_files_that_nobody_typed_are_confined() -> None:
    """Links of a file that the command line names may lead anywhere."""
    assert POLICY.confines(FileSource("/data/items.npy"))
    assert not POLICY.confines(FileSource("/home/me/link.npy"))
    assert not COMMAND_LINE.confines(FileSource("/data/items.npy"))


def parts(alphabet: str, least: int = 1) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=12)


good_texts = st.one_of(
    st.sampled_from(GOOD_OBJECTS),
    st.sampled_from(["/data/items.npy", "/data/a b/ü.npy", "file:///data/items.npy", "./x.npy", "x/y.npy"]),
)
insertions = st.one_of(
    st.characters(),
    st.sampled_from([*"/\\:?#%*[]{}@~. ", "..", "/../", "/./", "//", "::", "%2e", "s3://", "file://", "://"]),
    st.text(max_size=5),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(good_texts)
    for _ in range(draw(st.integers(1, 3))):
        at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        middle, new = text[at:end], draw(insertions)
        text = (
            text[:at]
            + draw(st.sampled_from([new + middle, "", new, middle.upper(), 2 * middle]))
            + text[end:]
        )
    return text


SPELLING = re.compile(
    r"(?:s3|gs)://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[A-Za-z0-9!_.'()=+,@:~-]+(?:/[A-Za-z0-9!_.'()=+,@:~-]+)*"
)


@given(mutated())
def test_a_mutation_is_the_canonical_form_or_refused(text: str) -> None:
    """Two texts never name one object, and an accepted path cannot leave its folder by its text."""
    try:
        source = parse_source(text, folder="/base")
    except BadUri:
        return
    assert parse_source(str(source)) == source
    if isinstance(source, ObjectSource):
        assert str(source) == text
        assert SPELLING.fullmatch(text)
    else:
        assert source.path in {text, text.removeprefix("file://"), f"/base/{text.removeprefix('./')}"}
        assert not {"", ".", ".."} & set(source.path.split("/")[1:])
        assert not set(source.path) & set("*?[]{}%#\\\0\n")


@given(mutated(), st.sampled_from(["/data", "/"]))
def test_what_a_policy_admits_lies_in_its_root(text: str, root: str) -> None:
    """Whatever the text, a path is a root, or below one, or refused."""
    try:
        source = UriPolicy(file_roots=(root,)).admit(text)
    except BadUri:
        return
    assume(isinstance(source, FileSource))
    assert str(source) == root or is_below(str(source), root)
    assert str(source) == local_path(str(source))
