"""Inference requests as bytes: sizes that do not fit, and whatever else may come."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.errors import RequestError
from kosine.http.inference.tensors import read_request, write_answer

ROW = np.array([[1.0, 2.0]], np.float32)


def request(size: Any, **changed: Any) -> bytes:
    tensor = {"name": "embedding", "shape": [1, 2], "datatype": "FP32", **changed}
    return json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()


def code_of(body: bytes, json_length: bytes | None) -> str:
    try:
        read_request(body, json_length=json_length)
    except RequestError as error:
        return error.code
    return "ok"


@pytest.mark.parametrize(
    ("head", "behind", "length", "code"),
    [
        (request(8), ROW.tobytes(), None, "bad_json"),
        (request(8), ROW.tobytes(), 0, "bad_json"),
        (request(8), ROW.tobytes(), -1, "invalid_value"),
        (request(8), ROW.tobytes(), 10**20, "invalid_value"),
        (request(8), ROW.tobytes(), "exact", "ok"),
        (request(8), ROW.tobytes()[:-1], "exact", "invalid_value"),
        (request(8), ROW.tobytes() + b"x", "exact", "invalid_value"),
        (request(2**62), ROW.tobytes(), "exact", "invalid_value"),
        (request(-8), ROW.tobytes(), "exact", "invalid_value"),
        (request(True), b"x", "exact", "invalid_value"),
        (request("8"), ROW.tobytes(), "exact", "invalid_value"),
        (request(7), ROW.tobytes()[:7], "exact", "invalid_value"),
        (request(8, shape=[2, 2]), ROW.tobytes(), "exact", "dim_mismatch"),
        (request(8, shape=[2**62, 2**62]), ROW.tobytes(), "exact", "dim_mismatch"),
        (request(8, shape=[-1, -2]), ROW.tobytes(), "exact", "invalid_value"),
        (request(8, shape=[2]), ROW.tobytes(), "exact", "invalid_value"),
        (request(0, shape=[0, 2]), b"", "exact", "ok"),
        (request(8, datatype="BYTES"), ROW.tobytes(), "exact", "invalid_value"),
    ],
)
def test_sizes_are_held_against_the_body(head: bytes, behind: bytes, length: Any, code: str) -> None:
    """Before anything is made of them."""
    told = len(head) if length == "exact" else length
    assert code == code_of(head + behind, None if told is None else str(told).encode())


@given(
    st.binary(max_size=200), st.none() | st.binary(max_size=6) | st.integers(0, 250).map(lambda n: b"%d" % n)
)
def test_no_bytes_do_anything_but_decode_or_be_refused(body: bytes, json_length: bytes | None) -> None:
    """Whatever arrives."""
    assert code_of(body, json_length) in {"ok", "bad_json", "invalid_value", "dim_mismatch"}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
_TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["embedding", "k", "x"]),
        "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3),
        "datatype": st.sampled_from(["FP32", "INT32", "BYTES"]),
    },
    optional={
        "data": _VALUES,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), _VALUES, max_size=2),
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(_TENSORS, max_size=3)},
        optional={
            "id": st.text(max_size=3),
            "parameters": st.dictionaries(
                st.sampled_from(["k", "mask", "not_mask", "binary_data_output"]), _VALUES, max_size=2
            ),
            "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["ids", "scores", "x"])})),
        },
    )
)
def test_no_request_does_either(document: dict[str, Any]) -> None:
    """Of the right shape, with anything in it."""
    assert code_of(json.dumps(document).encode(), None) in {"ok", "bad_json", "invalid_value", "dim_mismatch"}


def test_nothing_found_is_an_answer_too() -> None:
    """Rows of no length."""
    posed = read_request(
        json.dumps(
            {"inputs": [{"name": "embedding", "shape": [2, 1], "datatype": "FP32", "data": [[1], [2]]}]}
        ).encode(),
        json_length=None,
    )
    body, length = write_answer(index="items", version="v1", request=posed, ids=[[], []], scores=[[], []])

    assert length is None
    assert [("INT64", [2, 0]), ("FP32", [2, 0])] == [
        (each["datatype"], each["shape"]) for each in json.loads(body)["outputs"]
    ]
