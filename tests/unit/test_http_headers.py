"""What request heads may say (row H11 of the catalogue), and ids of requests."""

from __future__ import annotations

import pytest

from kosine.errors import BodyTooLarge, InvalidValue, UnsupportedMediaType, VersionMismatch
from kosine.http.bodies import formats
from kosine.http.bodies.formats import decoder_of, encoder_of
from kosine.http.headers import RequestIds, check_body_head, check_version, is_lenient, requested_timeout
from kosine.serving.request import SearchResult


@pytest.mark.parametrize(
    "sent",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/json; charset=utf8; profile=x",
        b"application/vnd.api+json",
        b"application/ld+json; charset=utf-8",
    ],
)
def test_json_in_utf_8_is_accepted(sent: bytes) -> None:
    """Any spelling of a JSON media type will do."""
    assert ([1.0],) == decoder_of({b"content-type": sent})(b'{"embedding": [1]}', b"").vectors


@pytest.mark.parametrize(
    "sent",
    [
        None,
        b"",
        b"text/plain",
        b"text/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/json; charset=utf-16",
        b"application/json; charset=latin-1",
        b"application/jsonp",
        b"x-application/json",
        b"+json",
        b"application/json, text/plain",
        b"\xff\xfe",
    ],
)
def test_other_media_types_are_refused(sent: bytes | None) -> None:
    """H11: a wrong or missing type is 415, before the body is looked at."""
    headers = {} if sent is None else {b"content-type": sent}

    with pytest.raises(UnsupportedMediaType) as refused:
        decoder_of(headers)
    assert refused.value.detail.isascii()


@pytest.mark.parametrize("sent", [b"gzip", b"br", b"deflate", b"identity, gzip", b"x"])
def test_an_encoded_body_is_refused(sent: bytes) -> None:
    """H11: nothing is decompressed here, so no bomb is either."""
    with pytest.raises(UnsupportedMediaType):
        check_body_head({b"content-encoding": sent}, limit=10)


@pytest.mark.parametrize("sent", [b"identity", b""])
def test_a_body_that_says_it_is_plain_is_accepted(sent: bytes) -> None:
    """Identity is no encoding."""
    check_body_head({b"content-encoding": sent}, limit=10)


@pytest.mark.parametrize(
    ("length", "fits"), [(b"10", True), (b"11", False), (b"9" * 30, False), (b"x", True)]
)
def test_a_declared_length_beyond_the_limit_is_refused_unread(length: bytes, fits: bool) -> None:
    """H12: what says it is too long is believed; what says nothing useful is counted later."""
    headers = {b"content-length": length}

    if fits:
        check_body_head(headers, limit=10)
    else:
        with pytest.raises(BodyTooLarge):
            check_body_head(headers, limit=10)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [(b"1", 0.001), (b"250", 0.25), (b"0099", 0.099), (b"60001", 60.0), (b"9" * 400, 60.0)],
)
def test_a_requested_timeout_is_capped(sent: bytes, seconds: float) -> None:
    """Nobody waits longer than max_timeout, however many digits they ask with."""
    assert seconds == requested_timeout(sent, longest=60.0)


@pytest.mark.parametrize(
    "sent", [b"0", b"00", b"", b"-1", b"1.5", b"1e3", b"5s", b" 5", b"\xd9\xa3", b"0x10", b"5\x00"]
)
def test_a_timeout_that_is_no_number_is_refused(sent: bytes) -> None:
    """Zero is no time, and words are no number."""
    with pytest.raises(InvalidValue) as refused:
        requested_timeout(sent, longest=60.0)
    assert refused.value.detail.isprintable()


@pytest.mark.parametrize("sent", [b"a", b"Trace-1.2_3", b"x" * 128])
def test_a_sane_request_id_is_kept(sent: bytes) -> None:
    """So that a caller finds its request in the log."""
    assert sent.decode() == RequestIds().of({b"x-request-id": sent})


@pytest.mark.parametrize("sent", [None, b"", b"x" * 129, b"a b", b"a\nb", b"<script>", b"\xff", b"a,b"])
def test_another_request_id_is_replaced(sent: bytes | None) -> None:
    """What could break a log or a header is not repeated."""
    ids = RequestIds()
    headers = {} if sent is None else {b"x-request-id": sent}
    new = {ids.of(headers), ids.of(headers), RequestIds().of(headers)}

    assert 3 == len(new)
    assert all(each == RequestIds().of({b"x-request-id": each.encode()}) for each in new)


def test_another_version_is_refused_with_both_names() -> None:
    """Kosine-Expect-Version: the answer comes from that version or from none."""
    check_version({}, "v1")
    check_version({b"kosine-expect-version": b"v1"}, "v1")

    with pytest.raises(VersionMismatch) as refused:
        check_version({b"kosine-expect-version": b"v0\xff"}, "v1")
    assert {"expected": "v0\\xff", "version": "v1"} == refused.value.facts


@pytest.mark.parametrize(
    ("sent", "lenient"),
    [
        (None, False),
        (b"handling=lenient", True),
        (b'respond-async, Handling = "Lenient"; x=y', True),
        (b"handling=strict", False),
        (b"handling", False),
        (b"handling=lenient2", False),
        (b"x=handling=lenient", False),
    ],
)
def test_leniency_is_asked_for_by_name(sent: bytes | None, lenient: bool) -> None:
    """RFC 7240: a list of preferences, in any case, each perhaps with parameters."""
    assert lenient == is_lenient({} if sent is None else {b"prefer": sent})


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        (None, "json"),
        (b"*/*", "json"),
        (b"application/x-other", "other"),
        (b"Application/X-Other; v=1", "other"),
        (b"application/json, application/x-other", "json"),
        (b"application/json;q=0.5, application/x-other", "other"),
        (b"application/x-other;q=0, */*", "json"),
        (b"*/*, application/x-other", "json"),
        (b"*/*;q=0.1, application/x-other", "other"),
        (b"application/x-other;q=x", "json"),
        (b"\xff, ;;,", "json"),
    ],
)
def test_an_answer_has_the_format_that_its_caller_prefers(
    monkeypatch: pytest.MonkeyPatch, accept: bytes | None, format_: str
) -> None:
    """RFC 9110 weights; what matches nothing gets JSON rather than nothing."""
    other = {"application/x-other": lambda _: (b"other", b"")}
    monkeypatch.setattr(formats, "ENCODERS", dict(formats.ENCODERS) | other)
    result = SearchResult(version="v", outcomes=[], many=True)

    encode = encoder_of({} if accept is None else {b"accept": accept})
    assert format_ == encode(result)[0].decode().rpartition("/")[2]
