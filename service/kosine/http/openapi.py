"""How /schema describes the routes: our problem bodies and our headers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from litestar import Response, Router
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin

import kosine
from kosine.errors import BadRequest, InternalError, RequestError, ShuttingDown
from kosine.http.problems import Problem

__all__ = ("ANSWER_HEADERS", "REQUEST_ID_HEADER", "openapi_config", "problems")

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
