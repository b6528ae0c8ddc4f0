"""Asks a running kosine: `Client` and `AsyncClient`, NumPy in and out, and every refusal as its own class.

It knows the service by what docs/http.md says, and nothing of its insides.
"""

from __future__ import annotations

from kosine.client.answers import IndexInfo, Item, Matches, Scores
from kosine.client.calls import CommonOptions, ItemOptions, ItemPageOptions, PageOptions, SearchOptions
from kosine.client.clients import AsyncClient, Client
from kosine.client.errors import UnexpectedAnswer, Unreachable

__all__ = (
    "AsyncClient",
    "Client",
    "CommonOptions",
    "IndexInfo",
    "Item",
    "ItemOptions",
    "ItemPageOptions",
    "Matches",
    "PageOptions",
    "Scores",
    "SearchOptions",
    "UnexpectedAnswer",
    "Unreachable",
)
