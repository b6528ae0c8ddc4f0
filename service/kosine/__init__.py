"""kosine: exact cosine top-k over named matrices, served over HTTP and swapped when their files change.

`kosine.Client` and `kosine.AsyncClient` ask a service. They are imported when they are first used, since
whoever serves, or reads the version, needs neither them nor NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosine.client import AsyncClient, Client

__version__ = "0.1.0"

__all__ = ("AsyncClient", "Client", "__version__")


def __getattr__(name: str) -> Any:
    if name not in {"AsyncClient", "Client"}:
        raise AttributeError(f"module 'kosine' has no attribute {name!r}")
    from kosine import client  # noqa: PLC0415  see above

    return getattr(client, name)
