"""Asks a running kosine: `Client` and `AsyncClient`, NumPy in and out, and every refusal as its own class.

It knows the service by what docs/http.md says, and nothing of its insides.
"""

from __future__ import annotations

from kosine.client.answers import IndexInfo, Matches
from kosine.client.calls import ItemOptions, SearchOptions
from kosine.client.clients import AsyncClient, Client
from kosine.client.errors import UnexpectedAnswer, Unreachable

__all__ = (
    "AsyncClient",
    "Client",
    "IndexInfo",
    "ItemOptions",
    "Matches",
    "SearchOptions",
    "UnexpectedAnswer",
    "Unreachable",
)
