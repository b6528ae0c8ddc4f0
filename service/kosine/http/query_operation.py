"""How /schema describes a query: the fields of its body, which no framework decodes, and its headers."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

__all__ = ("CosOperation",)

_VECTOR = Schema(
    type=OpenAPIType.ARRAY,
    items=Schema(type=OpenAPIType.NUMBER),
    description="As many numbers as the index has dimensions, finite as float32.",
)


@dataclass
class CosOperation(Operation):
    """Adds what the handler reads itself: the query, its deadline, and what the caller insists on."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(
            required=True,
            description="A query, or several. Of duplicate keys the last counts; unknown fields are refused.",
            content={"application/json": OpenAPIMediaType(schema=_query_schema(), examples=_examples())},
        )
        self.parameters = [*(self.parameters or []), *_request_headers()]


def _query_schema() -> Schema:
    """Names what is searched for in exactly one way."""
    return Schema(
        type=OpenAPIType.OBJECT,
        additional_properties=False,
        one_of=[Schema(required=[name]) for name in ("embedding", "embeddings")],
        properties={
            "embedding": _VECTOR,
            "embeddings": Schema(
                type=OpenAPIType.ARRAY,
                items=_VECTOR,
                min_items=1,
                description="Several queries, up to `max_query_rows` of the index; the answer has `results`.",
            ),
            "k": Schema(
                type=OpenAPIType.INTEGER,
                minimum=1,
                description="How many items to answer, up to `max_k` of the index; default: its `k`.",
            ),
        },
    )


def _examples() -> dict[str, Example | Reference]:
    return {
        "one": Example(summary="One query", value={"embedding": [0.1, 0.7, -0.2], "k": 10}),
        "several": Example(
            summary="Several at once", value={"embeddings": [[0.1, 0.7, -0.2], [0.5, 0.0, 0.3]], "k": 10}
        ),
    }


def _request_headers() -> list[Parameter]:
    return [
        _header(
            "X-Request-Timeout-Ms",
            Schema(type=OpenAPIType.INTEGER, minimum=1),
            "Deadline of the answer in milliseconds, capped by service.max_timeout.",
        ),
        _header(
            "X-Request-Id",
            Schema(type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._-]{1,128}$"),
            "Comes back with the answer and stands in the log.",
        ),
        _header(
            "Kosine-Expect-Version",
            Schema(type=OpenAPIType.STRING),
            "The version that must answer; 409 where another one would.",
        ),
        _header(
            "Prefer",
            Schema(type=OpenAPIType.STRING),
            "`handling=lenient`: 207 with the answers of the good queries where some are refused.",
        ),
    ]


def _header(name: str, schema: Schema, description: str) -> Parameter:
    return Parameter(name=name, param_in="header", schema=schema, required=False, description=description)
