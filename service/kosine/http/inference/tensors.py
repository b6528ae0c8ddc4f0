"""Inference requests and answers of the protocol: JSON, with tensors in it or, as bytes, behind it. Pure.

Where the binary tensor extension is used, the first `Inference-Header-Content-Length` bytes of a body are
JSON, and `binary_data_size` of each tensor says how many of the bytes behind are its own. Sizes are held
against the body before anything is made of them.
"""

from __future__ import annotations

import math
import struct
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from kosine.errors import BadJson, DimMismatch, InvalidValue
from kosine.http.problems import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ("InferRequest", "Tensor", "Wanted", "read_request", "write_answer")

_INPUT = "embedding"
_COUNT = "k"
_COUNT_TYPES = {"INT32": "<i4", "INT64": "<i8", "UINT32": "<u4", "UINT64": "<u8"}
_MATRIX = 2
_LONGEST_NUMBER = 12
_KINDS: dict[type, str] = {int: "a whole number", str: "a text"}

T = TypeVar("T", int, str)


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Body(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []


class Wanted(NamedTuple):
    """Which output, and whether as bytes."""

    name: str
    binary: bool


class Tensor(NamedTuple):
    """One output: its name, and its elements [n, k]."""

    name: str
    values: NDArray[np.int64] | NDArray[np.str_] | NDArray[np.float32]


class InferRequest(NamedTuple):
    """What was asked."""

    id: str
    vectors: NDArray[np.float32]
    """[n, d]"""
    k: int | None
    outputs: tuple[Wanted, ...]
    mask: str | None = None
    not_mask: str | None = None


_DECODER = msgspec.json.Decoder(_Body)
_OUTPUTS = ("ids", "scores")


def read_request(body: bytes, *, json_length: bytes | None) -> InferRequest:
    """The request in `body`, whose JSON is `json_length` bytes long where tensors are behind it.

    Raises BadJson, InvalidValue or DimMismatch.
    """
    length = len(body) if json_length is None else _length(json_length, len(body))
    try:
        request = _DECODER.decode(memoryview(body)[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_json(error) from None
    inputs = _Inputs(request.inputs, memoryview(body)[length:])
    vectors, k = inputs.vectors(), inputs.count()
    return InferRequest(
        id=request.id,
        vectors=vectors,
        k=_parameter(request.parameters, _COUNT, int) if k is None else k,
        outputs=_wanted(request),
        mask=_parameter(request.parameters, "mask", str),
        not_mask=_parameter(request.parameters, "not_mask", str),
    )


def write_answer(
    *,
    index: str,
    version: str,
    request: InferRequest,
    ids: Sequence[Sequence[int | str]],
    scores: Sequence[Sequence[float]],
) -> tuple[bytes, int | None]:
    """The body, and how long its JSON is where tensors are behind it. Rows have one length."""
    found = {"ids": _ids(ids), "scores": np.array(scores, np.float32).reshape(len(scores), -1)}
    outputs, behind = [], []
    for name, binary in request.outputs:
        described, raw = _described(Tensor(name, found[name]), binary=binary)
        outputs.append(described)
        behind.append(raw)
    answer = {"model_name": index, "model_version": version, "outputs": outputs}
    head = msgspec.json.encode({**answer, "id": request.id} if request.id else answer)
    if not any(wanted.binary for wanted in request.outputs):
        return head, None
    return b"".join([head, *behind]), len(head)


class _Inputs:
    """The tensors of a request; each is looked for once."""

    def __init__(self, inputs: list[_Input], behind: memoryview) -> None:
        self._tensors = {each.name: (each, raw) for each, raw in _cut(inputs, behind)}
        unknown = self._tensors.keys() - {_INPUT, _COUNT}
        if unknown or len(self._tensors) < len(inputs) or _INPUT not in self._tensors:
            raise InvalidValue(
                f"expected the input `{_INPUT}`, and perhaps `{_COUNT}`, each once, got "
                f"{printable(', '.join(each.name for each in inputs)) or 'none'}",
                path="$.inputs",
            )

    def vectors(self) -> NDArray[np.float32]:
        tensor, raw = self._tensors[_INPUT]
        if tensor.datatype != "FP32" or len(tensor.shape) != _MATRIX or min(tensor.shape) < 0:
            raise InvalidValue(
                f"expected `{_INPUT}` as FP32 of shape [n, d], got {printable(tensor.datatype)} of shape "
                f"{printable(str(tensor.shape))}",
                path="$.inputs",
            )
        flat = _numbers(tensor) if raw is None else _binary(tensor, raw, "<f4")
        if len(flat) != math.prod(tensor.shape):
            raise DimMismatch(
                f"expected {math.prod(tensor.shape)} numbers in `{_INPUT}` by its shape, got {len(flat)}",
                got=len(flat),
            )
        return flat.astype(np.float32, copy=False).reshape(tensor.shape)

    def count(self) -> int | None:
        if _COUNT not in self._tensors:
            return None
        tensor, raw = self._tensors[_COUNT]
        if tensor.datatype not in _COUNT_TYPES or math.prod(tensor.shape) != 1:
            raise InvalidValue(f"expected `{_COUNT}` as INT32 of shape [1]", path="$.inputs")
        if raw is not None:
            values = _binary(tensor, raw, _COUNT_TYPES[tensor.datatype])
            return int(values[0]) if len(values) == 1 else _not_one()
        data = _decoded(tensor, list[int])
        return data[0] if len(data) == 1 else _not_one()


def _not_one() -> int:
    raise InvalidValue(f"expected one number in `{_COUNT}`", path="$.inputs")


def _cut(inputs: list[_Input], behind: memoryview) -> list[tuple[_Input, memoryview | None]]:
    """Each tensor with its bytes. Raises InvalidValue unless they are all there and nothing else is."""
    cut: list[tuple[_Input, memoryview | None]] = []
    start = 0
    for each in inputs:
        size = each.parameters.get("binary_data_size")
        if size is None:
            cut.append((each, None))
            continue
        if type(size) is not int or not 0 <= size <= len(behind) - start:
            raise InvalidValue(
                f"binary_data_size of `{printable(each.name)}` does not fit the {len(behind)} bytes "
                "behind the JSON; is Inference-Header-Content-Length right?",
                path="$.inputs",
            )
        cut.append((each, behind[start : start + size]))
        start += size
    if start != len(behind):
        raise InvalidValue(
            f"expected {start} bytes behind the JSON, the sum of binary_data_size, got {len(behind)}",
            expected=start,
            got=len(behind),
        )
    return cut


def _binary(tensor: _Input, raw: memoryview, kind: str) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    if len(raw) % width:
        raise InvalidValue(
            f"expected `{tensor.name}` in elements of {width} bytes, got {len(raw)} bytes", path="$.inputs"
        )
    return np.frombuffer(raw, kind)


def _numbers(tensor: _Input) -> NDArray[np.float32]:
    data = _decoded(tensor, list[float | list[float]])
    numbers = chain.from_iterable(each if isinstance(each, list) else (each,) for each in data)
    # What is too large for float32 becomes an infinity, which is refused by its position.
    with np.errstate(over="ignore"):
        return np.fromiter(numbers, np.float32)


def _decoded(tensor: _Input, kind: Any) -> Any:
    if not memoryview(tensor.data):
        raise InvalidValue(f"`{tensor.name}` has neither `data` nor `binary_data_size`", path="$.inputs")
    try:
        return msgspec.json.decode(tensor.data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidValue(f"expected numbers in `data` of `{tensor.name}`", path="$.inputs") from None


def _length(sent: bytes, size: int) -> int:
    if not sent.isdigit() or len(sent) > _LONGEST_NUMBER or int(sent) > size:
        raise InvalidValue(
            f"expected Inference-Header-Content-Length to be a number of bytes up to {size}, got "
            f"{printable(sent.decode('latin-1'))}",
            header="Inference-Header-Content-Length",
        )
    return int(sent)


def _bad_json(error: Exception) -> BadJson | InvalidValue:
    if isinstance(error, msgspec.ValidationError):
        return InvalidValue(f"expected an inference request of the protocol v2: {printable(str(error))}")
    return BadJson(
        f"expected an inference request as JSON: {printable(str(error))}; tensors behind it need "
        "Inference-Header-Content-Length"
    )


def _parameter(parameters: dict[str, Any], name: str, kind: type[T]) -> T | None:
    """One that an index knows; others mean something to other servers, and are left to them."""
    value = parameters.get(name)
    if value is None or type(value) is kind:
        return value
    raise InvalidValue(f"expected the parameter `{name}` to be {_KINDS[kind]}", path=f"$.parameters.{name}")


def _wanted(request: _Body) -> tuple[Wanted, ...]:
    binary = request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return tuple(Wanted(name, binary) for name in _OUTPUTS)
    names = [each.name for each in request.outputs]
    if len(set(names)) < len(names) or not set(names) <= set(_OUTPUTS):
        raise InvalidValue(
            f"expected outputs of `ids` and `scores`, each once, got {printable(', '.join(names))}",
            path="$.outputs",
        )
    return tuple(
        Wanted(each.name, each.parameters.get("binary_data", binary) is True) for each in request.outputs
    )


def _ids(rows: Sequence[Sequence[int | str]]) -> NDArray[np.int64] | NDArray[np.str_]:
    ids: NDArray[Any] = np.array(rows).reshape(len(rows), -1)
    return ids if ids.dtype.kind == "U" else ids.astype(np.int64)


def _described(tensor: Tensor, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    values = tensor.values
    datatype = {"U": "BYTES", "i": "INT64", "f": "FP32"}[values.dtype.kind]
    described: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": list(values.shape)}
    flat = values.ravel()
    if not binary:
        return {**described, "data": flat.tolist()}, b""
    raw = _strings(flat) if datatype == "BYTES" else flat.astype(flat.dtype.newbyteorder("<")).tobytes()
    return {**described, "parameters": {"binary_data_size": len(raw)}}, raw


def _strings(texts: NDArray[Any]) -> bytes:
    """Each with its length before it."""
    encoded = [text.encode() for text in texts.tolist()]
    return b"".join(struct.pack("<I", len(each)) + each for each in encoded)
