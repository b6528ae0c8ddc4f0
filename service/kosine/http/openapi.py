"""How /schema describes the routes: our problem bodies, and the query body that no framework decodes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from litestar import Response, Router
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Parameter, RequestBody, Schema

import kosine
from kosine.errors import BadRequest, InternalError, RequestError, ShuttingDown
from kosine.http.problems import Problem

__all__ = ("ANSWER_HEADERS", "REQUEST_ID_HEADER", "CosOperation", "openapi_config", "problems")

REQUEST_ID_HEADER = ResponseHeader(
    name="X-Request-Id", description="The caller's, or a new one.", documentation_only=True
)
ANSWER_HEADERS = (
    REQUEST_ID_HEADER,
    ResponseHeader(name="Kosine-Version", description="The version that answered.", documentation_only=True),
    ResponseHeader(
        name="Server-Timing",
        description="`queue` and `engine` in milliseconds.",
        documentation_only=True,
    ),
)
_ALWAYS: tuple[type[RequestError], ...] = (BadRequest, InternalError, ShuttingDown)


def problems(*errors: type[RequestError]) -> dict[int, ResponseSpec]:
    """The refusals of one route, by status; each names its codes."""
    codes: dict[int, list[str]] = defaultdict(list)
    for error in (*errors, *_ALWAYS):
        codes[error.status].append(f"`{error.code}`")
    return {
        status: ResponseSpec(
            data_container=Problem,
            media_type="application/problem+json",
            description=" | ".join(sorted(names)),
            generate_examples=False,
        )
        for status, names in codes.items()
    }


@dataclass
class CosOperation(Operation):
    """Adds what the handler reads itself: the query and its deadline."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(
            required=True,
            description="The query vector. Duplicate keys: the last one counts. Unknown fields are refused.",
            content={"application/json": OpenAPIMediaType(schema=_query_schema())},
        )
        self.parameters = [*(self.parameters or []), *_request_headers()]


def _query_schema() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["embedding"],
        additional_properties=False,
        properties={
            "embedding": Schema(
                type=OpenAPIType.ARRAY,
                items=Schema(type=OpenAPIType.NUMBER),
                description="As many numbers as the index has dimensions, finite as float32.",
            ),
            "k": Schema(
                type=OpenAPIType.INTEGER,
                minimum=1,
                description="How many items to answer, up to `max_k` of the index; default: its `k`.",
            ),
        },
    )


def _request_headers() -> list[Parameter]:
    return [
        Parameter(
            name="X-Request-Timeout-Ms",
            param_in="header",
            schema=Schema(type=OpenAPIType.INTEGER, minimum=1),
            required=False,
            description="Deadline of the answer in milliseconds, capped by service.max_timeout.",
        ),
        Parameter(
            name="X-Request-Id",
            param_in="header",
            schema=Schema(type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._-]{1,128}$"),
            required=False,
            description="Comes back with the answer and stands in the log.",
        ),
    ]


def openapi_config() -> OpenAPIConfig:
    """JSON at /schema, YAML beside it, and no page that loads scripts from elsewhere."""
    return OpenAPIConfig(
        title="kosine",
        version=kosine.__version__,
        description="Exact cosine top-k over named embedding matrices.",
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"]), YamlRenderPlugin()],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_no_html_not_found
        ),
    )


def _no_html_not_found(response: Response[Any]) -> Response[Any]:
    """Litestar answers unknown paths below /schema with a page of its own; to us they are like any other."""
    if response.status_code == NotFoundException.status_code:
        raise NotFoundException
    return response
