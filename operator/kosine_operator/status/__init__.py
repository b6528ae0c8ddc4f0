"""What is true of a resource, from what was seen of its pool. Pure.

`Ready` is true for a generation only when every ready pod reports the configuration rendered from it and
has loaded what it names. A condition's `lastTransitionTime` moves only with its status; a status that says
nothing new equals the one before, so that nothing is written.
"""

from __future__ import annotations

from kosine_operator.status.conditions import (
    REASONS,
    ConditionType,
    Transition,
    invalid_status,
    transitions,
)
from kosine_operator.status.index import index_status
from kosine_operator.status.observed import (
    ApplyFailure,
    IndexReport,
    LoadFailure,
    Observed,
    PodReport,
    Rollout,
    rollout_of,
)
from kosine_operator.status.server import server_status

__all__ = (
    "REASONS",
    "ApplyFailure",
    "ConditionType",
    "IndexReport",
    "LoadFailure",
    "Observed",
    "PodReport",
    "Rollout",
    "Transition",
    "index_status",
    "invalid_status",
    "rollout_of",
    "server_status",
    "transitions",
)
