"""How /schema describes a query: the fields of its body, which no framework decodes, and its headers."""

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
    Reference,
    RequestBody,
    Schema,
)

from kosine.http.bodies.formats import ENCODERS
from kosine.http.wire import MAX_IDS
from kosine.serving.cursors import CURSOR_PATTERN
from kosine.settings import MASK_NAME_PATTERN

__all__ = ("CosOperation", "ScoreOperation", "SearchOperation")

_VECTOR = Schema(
    description="As many numbers as the index has dimensions, finite as float32; or base64 of them, "
    "little-endian.",
    one_of=[
        Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.NUMBER)),
        Schema(type=OpenAPIType.STRING, content_encoding="base64"),
    ],
)
_COUNT = Schema(
    type=OpenAPIType.INTEGER,
    minimum=1,
    description="How many items to answer, up to `max_k` of the index; default: its `k`.",
)
_ANSWERED = {"200", "207"}
_CONTENTS = {
    "application/x-npz": "For `np.load`: `ids` and `scores` [k], `version`; of several queries [n, k], with "
    "`counts` and `codes` [n].",
    "application/vnd.apache.arrow.stream": "A row for each query: lists `ids` and `scores`, and `code`; "
    "the version is metadata of the schema.",
}


@dataclass
class SearchOperation(Operation):
    """Adds the headers that every search reads."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), *_request_headers()]


@dataclass
class ScoreOperation(SearchOperation):
    """Adds the query that is scored against items."""

    def __post_init__(self) -> None:
        super().__post_init__()
        body = OpenAPIMediaType(
            schema=_score_schema(),
            examples={"rerank": Example(value={"embedding": [0.1, 0.7, -0.2], "ids": ["sku-1", "sku-2"]})},
        )
        self.request_body = RequestBody(required=True, content={"application/json": body})


@dataclass
class CosOperation(Operation):
    """Adds what the handler reads itself: the query, its deadline, and what the caller insists on."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(
            required=True,
            description="A query, or several. Of duplicate keys the last counts; unknown fields are refused.",
            content={
                "application/json": OpenAPIMediaType(schema=_query_schema(), examples=_examples()),
                "application/octet-stream": OpenAPIMediaType(
                    schema=_bytes("Little-endian float32: a query, or several end to end.")
                ),
                "application/x-npy": OpenAPIMediaType(
                    schema=_bytes("What `np.save` writes, of shape (d,) or (n, d), float16, 32 or 64.")
                ),
            },
        )
        self.parameters = [*(self.parameters or []), *_beside_bytes(), *_request_headers()]
        self._describe_answers()

    def _describe_answers(self) -> None:
        """The framework knows of one format an answer."""
        for status, response in (self.responses or {}).items():
            if isinstance(response, OpenAPIResponse) and status in _ANSWERED and response.content:
                described = response.content["application/json"]
                for media_type in ENCODERS:
                    same = media_type.endswith("msgpack") or media_type == "application/json"
                    response.content[media_type] = (
                        described if same else OpenAPIMediaType(schema=_bytes(_CONTENTS[media_type]))
                    )


def _bytes(description: str) -> Schema:
    return Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description=description)


def _beside_bytes() -> list[Parameter]:
    """What a body of bytes cannot say itself, under the names of the fields of JSON."""
    mask = Schema(type=OpenAPIType.STRING, pattern=MASK_NAME_PATTERN)
    ids = Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.STRING), max_items=MAX_IDS)
    cursor = Schema(type=OpenAPIType.STRING, pattern=CURSOR_PATTERN)
    schemas = {
        "k": _COUNT,
        "exclude": ids,
        "include": ids,
        "mask": mask,
        "not_mask": mask,
        "min_score": Schema(type=OpenAPIType.NUMBER),
        "with_embeddings": Schema(type=OpenAPIType.BOOLEAN),
        "after": cursor,
    }
    also = {
        "exclude": " Repeat it for each id.",
        "include": " Repeat it for each id; empty, nothing is found.",
        "after": " Empty is the first page.",
    }
    return [
        Parameter(
            name=name,
            param_in="query",
            schema=schema,
            required=False,
            description=f"Beside a body of bytes, what the field is of JSON.{also.get(name, '')}",
        )
        for name, schema in schemas.items()
    ]


def _query_schema() -> Schema:
    """Names what is searched for in exactly one way."""
    return Schema(
        type=OpenAPIType.OBJECT,
        additional_properties=False,
        one_of=[Schema(required=[name]) for name in ("embedding", "embeddings", "id", "ids")],
        properties={
            "embedding": _VECTOR,
            "embeddings": Schema(
                type=OpenAPIType.ARRAY,
                items=_VECTOR,
                min_items=1,
                description="Several queries, up to `max_query_rows` of the index; the answer has `results`.",
            ),
            "k": _COUNT,
            "id": _id("Instead of a vector: the item whose vector is the query. It does not find itself."),
            "ids": Schema(
                type=OpenAPIType.ARRAY,
                items=_id("As `id`."),
                min_items=1,
                description="Several by their ids.",
            ),
            "include_self": Schema(
                type=OpenAPIType.BOOLEAN, description="Beside `id` or `ids`: the item does find itself."
            ),
            "exclude": _ids("Items that are not to be found; unknown ones are ignored."),
            "include": _ids("The only items that can be found; unknown ones are ignored."),
            "mask": _mask("Only items for which this mask is true are found."),
            "not_mask": _mask("Only items for which this mask is false are found."),
            "min_score": Schema(type=OpenAPIType.NUMBER, description="What scores less is left out."),
            "with_embeddings": Schema(
                type=OpenAPIType.BOOLEAN,
                description="Answer the vectors of the items, too; with metric cosine they have length 1.",
            ),
            "after": Schema(
                one_of=[
                    Schema(type=OpenAPIType.STRING, pattern=CURSOR_PATTERN),
                    Schema(type=OpenAPIType.NULL),
                ],
                description="Of one query: answer a page of `k` items with `next`, the cursor of the page "
                "behind it, or null. Null is the first page.",
            ),
        },
    )


def _score_schema() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        additional_properties=False,
        required=["ids"],
        one_of=[Schema(required=["embedding"]), Schema(required=["id"])],
        properties={
            "ids": _ids("The items to score; the answer is in their order.", at_least=1),
            "embedding": _VECTOR,
            "id": _id("Instead of a vector: the item whose vector is the query."),
        },
    )


def _id(description: str) -> Schema:
    either = [Schema(type=OpenAPIType.INTEGER), Schema(type=OpenAPIType.STRING)]
    return Schema(one_of=either, description=f"{description} Of the type of the ids file; else a row number.")


def _ids(description: str, *, at_least: int = 0) -> Schema:
    return Schema(
        type=OpenAPIType.ARRAY,
        items=_id("An item."),
        min_items=at_least,
        max_items=MAX_IDS,
        description=description,
    )


def _mask(description: str) -> Schema:
    return Schema(
        type=OpenAPIType.STRING,
        pattern=MASK_NAME_PATTERN,
        description=f"{description} `GET /indexes/{{name}}` lists the masks of the index.",
    )


def _examples() -> dict[str, Example | Reference]:
    bodies: dict[str, Any] = {
        "One query": {"embedding": [0.1, 0.7, -0.2], "k": 10},
        "Several at once": {"embeddings": [[0.1, 0.7, -0.2], [0.5, 0.0, 0.3]], "k": 10},
        "Like a stored item": {"id": "sku-9", "k": 5, "exclude": ["sku-3"], "min_score": 0.4},
        "Page by page": {"embedding": [0.1, 0.7, -0.2], "k": 100, "after": None},
        "Of what a mask lets pass": {"embedding": [0.1, 0.7, -0.2], "mask": "in_stock"},
        "The best of given items": {"embedding": [0.1, 0.7, -0.2], "include": ["sku-1", "sku-2"]},
    }
    return {
        summary.lower().replace(" ", "_"): Example(summary=summary, value=body)
        for summary, body in bodies.items()
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
