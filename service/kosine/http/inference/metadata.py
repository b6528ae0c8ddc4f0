"""What the protocol tells of the server and of an index, which it calls a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

import kosine

if TYPE_CHECKING:
    from kosine.serving.version import Version

__all__ = (
    "ModelMetadata",
    "ModelReady",
    "ServerLive",
    "ServerMetadata",
    "ServerReady",
    "TensorMetadata",
    "model_metadata",
    "server_metadata",
)


class ServerMetadata(Struct):
    """What answers, and which extensions of the protocol it speaks."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(Struct):
    """The process is not stuck."""

    live: bool


class ServerReady(Struct):
    """Queries may be sent."""

    ready: bool


class ModelReady(Struct):
    """A version of the index answers."""

    name: str
    ready: bool


class TensorMetadata(Struct):
    """An input or an output; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct):
    """An index as a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def server_metadata() -> ServerMetadata:
    """This server."""
    return ServerMetadata(name="kosine", version=kosine.__version__, extensions=["binary_tensor_data"])


def model_metadata(version: Version) -> ModelMetadata:
    """The index that `version` is of."""
    info = version.info
    ids = "BYTES" if version.batcher.answers_text else "INT64"
    return ModelMetadata(
        name=info.name,
        versions=[info.version],
        platform="kosine",
        inputs=[
            TensorMetadata("embedding", "FP32", [-1, info.dim]),
            TensorMetadata("k", "INT32", [1]),
        ],
        outputs=[TensorMetadata("ids", ids, [-1, -1]), TensorMetadata("scores", "FP32", [-1, -1])],
    )
