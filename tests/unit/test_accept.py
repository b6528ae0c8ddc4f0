"""Which format an `Accept` header asks for, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.http.bodies.accept import negotiate

JSON, MSGPACK, NPZ = OFFERED = ["application/json", "application/msgpack", "application/x-npz"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/X-NPZ", NPZ),
        ("application/x-npz, application/json", JSON),
        ("application/x-npz, application/json;q=0.9", NPZ),
        ("application/json;q=0.1, application/msgpack;q=0.2, application/x-npz;q=0.15", MSGPACK),
        ("application/msgpack, */*;q=0.1", MSGPACK),
        ("*/*, application/json;q=0", MSGPACK),
        ("application/*;q=0.5, application/json;q=0.1", MSGPACK),
        ("application/*;q=0, */*", None),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", JSON),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json ; q=1.000", JSON),
        ("application/x-npz;version=1;q=0.5, application/json;q=0.4", NPZ),
        ("application/json;q=1.001, application/x-npz;q=0.1", NPZ),
        ("application/json;q=nan, application/x-npz;q=0.1", NPZ),
        ("", JSON),
        (",,;", JSON),
        ("nonsense", JSON),
        ("*", JSON),
        ("*/json", JSON),
        ("text/html," * 1000 + "application/json", None),
    ],
)
def test_what_is_chosen(accept: str, chosen: str | None) -> None:
    """The highest weight by the most specific range, the first offered among equals; nonsense is ignored."""
    assert chosen == negotiate(accept, OFFERED)


@given(st.text(alphabet=st.sampled_from(" ,;=*/q.019anpplicotjsx-"), max_size=200) | st.text(max_size=50))
def test_any_text_chooses_or_does_not(accept: str) -> None:
    """Nothing else happens."""
    assert negotiate(accept, OFFERED) in {*OFFERED, None}
