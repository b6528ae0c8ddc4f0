"""How /schema describes an inference request, which no framework decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.openapi.spec import (
    Example,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)
from msgspec import Struct

__all__ = ("InferAnswer", "InferOperation", "OutputTensor")


class OutputTensor(Struct, omit_defaults=True):
    """`data` in rows one behind the other, or `parameters.binary_data_size` bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | str] | None = None
    parameters: dict[str, Any] | None = None


class InferAnswer(Struct, omit_defaults=True):
    """`ids` and `scores`, [n, k] each, best first."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


_BYTES = OpenAPIMediaType(
    schema=Schema(
        type=OpenAPIType.STRING,
        format=OpenAPIFormat.BINARY,
        description="The JSON, and behind it the tensors that have `binary_data_size`.",
    )
)
_TENSOR = Schema(
    type=OpenAPIType.OBJECT,
    required=["name", "shape", "datatype"],
    properties={
        "name": Schema(type=OpenAPIType.STRING, enum=["embedding", "k"]),
        "shape": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.INTEGER, minimum=0)),
        "datatype": Schema(
            type=OpenAPIType.STRING, description="FP32 of `embedding` [n, d]; INT32 or INT64 of `k` [1]."
        ),
        "data": Schema(type=OpenAPIType.ARRAY, description="Numbers, or rows of numbers."),
        "parameters": Schema(type=OpenAPIType.OBJECT),
    },
)
_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    required=["inputs"],
    properties={
        "id": Schema(type=OpenAPIType.STRING, description="Comes back with the answer."),
        "inputs": Schema(type=OpenAPIType.ARRAY, items=_TENSOR, min_items=1, max_items=2),
        "outputs": Schema(
            type=OpenAPIType.ARRAY,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["name"],
                properties={
                    "name": Schema(type=OpenAPIType.STRING, enum=["ids", "scores"]),
                    "parameters": Schema(type=OpenAPIType.OBJECT),
                },
            ),
        ),
        "parameters": Schema(
            type=OpenAPIType.OBJECT,
            properties={
                "k": Schema(type=OpenAPIType.INTEGER, minimum=1),
                "mask": Schema(
                    type=OpenAPIType.STRING, description="Only items for which this mask is true."
                ),
                "not_mask": Schema(type=OpenAPIType.STRING, description="Only items for which it is false."),
            },
        ),
    },
)
_EXAMPLE = {
    "inputs": [{"name": "embedding", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.7, -0.2]}],
    "parameters": {"k": 10},
}


@dataclass
class InferOperation(Operation):
    """Adds the request, and that both ways may be bytes."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(
            required=True,
            content={
                "application/json": OpenAPIMediaType(
                    schema=_REQUEST, examples={"one": Example(summary="One query", value=_EXAMPLE)}
                ),
                "application/octet-stream": _BYTES,
            },
        )
        header = Parameter(
            name="Inference-Header-Content-Length",
            param_in="header",
            schema=Schema(type=OpenAPIType.INTEGER, minimum=1),
            required=False,
            description="How many bytes of the body are JSON, where tensors are behind it.",
        )
        self.parameters = [*(self.parameters or []), header]
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse) and answer.content:
            answer.content["application/octet-stream"] = _BYTES
