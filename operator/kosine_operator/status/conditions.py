"""Conditions: which there are, for what reasons, and how they follow the ones before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kosine_operator.pools import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "LOAD_REASONS",
    "REASONS",
    "ConditionType",
    "Finding",
    "Transition",
    "conditions",
    "false",
    "invalid_status",
    "settled",
    "stamp",
    "transitions",
    "true",
)

_MESSAGE_CHARACTERS = 2048


class ConditionType(StrEnum):
    """What can be said of a resource, in the order it is shown."""

    ACCEPTED = "Accepted"
    """The operator does what is asked for."""
    AVAILABLE = "Available"
    """Queries are answered."""
    LOADED = "Loaded"
    """Every ready pod has loaded what the configuration names."""
    PROGRESSING = "Progressing"
    """Something is on its way and needs nobody."""
    DEGRADED = "Degraded"
    """It works, though not as asked for; somebody should look."""
    READY = "Ready"
    """All of this generation is in force, everywhere."""


LOAD_REASONS = {
    "source_missing": "SourceNotFound",
    "source_forbidden": "AccessDenied",
    "bad_shape": "ShapeMismatch",
    "dim_changed": "ShapeMismatch",
    "dim_not_declared": "ShapeMismatch",
    "dim_required": "ShapeMismatch",
    "layout_mismatch": "ShapeMismatch",
    "layout_unproven": "ShapeMismatch",
    "guard_failed": "GuardFailed",
    "canary_failed": "CanaryFailed",
    "wont_fit": "InsufficientMemory",
    "out_of_device_memory": "InsufficientMemory",
    "timed_out": "LoadTimedOut",
}
"""Of the service's load codes; any other is `LoadFailed`."""

_LOAD_FAILURES = ("LoadFailed", *dict.fromkeys(LOAD_REASONS.values()))
_REFUSED = (
    Reason.SERVER_NOT_FOUND,
    Reason.NAME_CONFLICT,
    Reason.INSUFFICIENT_MEMORY,
    Reason.INVALID_POD_TEMPLATE,
    Reason.SERVICE_ACCOUNT_NOT_ALLOWED,
)
_ALLOWED_TO_FAIL = (Reason.CRD_NOT_INSTALLED, Reason.DEFAULT_INDEX_NOT_FOUND)
_PENDING = ("NoReadyPods", "PodsUnreachable", "ConfigurationPending", "Loading")

REASONS: Mapping[ConditionType, frozenset[str]] = {
    ConditionType.ACCEPTED: frozenset({"Accepted", "InvalidSpec", "Rejected", "Forbidden", *_REFUSED}),
    ConditionType.AVAILABLE: frozenset({"Serving", "NoReadyPods", "NotLoaded"}),
    ConditionType.LOADED: frozenset({"Loaded", "NoIndexes", "NotAccepted", *_PENDING, *_LOAD_FAILURES}),
    ConditionType.PROGRESSING: frozenset(
        {"Settled", "Paused", "NotAccepted", "Moving", "Rollout", "RolloutStuck", "HotReload", "Loading"}
    ),
    ConditionType.DEGRADED: frozenset(
        {
            "AsExpected",
            "ConfigurationRefused",
            "RolloutStuck",
            "PodsFailing",
            "PodsUnreachable",
            "ServingStaleVersion",
            "IndexesDegraded",
            *_ALLOWED_TO_FAIL,
            *_LOAD_FAILURES,
        }
    ),
    ConditionType.READY: frozenset(
        {
            "Ready",
            "Moving",
            "ScaledToZero",
            "Rollout",
            "InvalidSpec",
            "Rejected",
            "Forbidden",
            *_REFUSED,
            *_PENDING,
        }
        | {*_LOAD_FAILURES}
    ),
}
"""Every reason of every condition; docs/resources.md tells what each means."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition without its history."""

    holds: bool
    reason: str
    message: str


def true(reason: str, message: str) -> Finding:
    """A condition that holds."""
    return Finding(holds=True, reason=reason, message=message)


def false(reason: str, message: str) -> Finding:
    """A condition that does not."""
    return Finding(holds=False, reason=reason, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A condition that changed its status or reason: one Kubernetes Event."""

    type: str
    status: str
    reason: str
    message: str
    warning: bool


def conditions(
    findings: Mapping[ConditionType, Finding],
    *,
    generation: int,
    now: datetime,
    previous: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """The list of `status.conditions`; one that keeps its status keeps its time."""
    before = _by_type(previous)
    made = []
    for kind, finding in findings.items():
        old, status = before.get(kind, {}), str(finding.holds)
        since = old["lastTransitionTime"] if old.get("status") == status else stamp(now)
        made.append(
            {
                "type": kind.value,
                "status": status,
                "reason": finding.reason,
                "message": _clipped(finding.message),
                "observedGeneration": generation,
                "lastTransitionTime": since,
            }
        )
    return made


def invalid_status(
    previous: Mapping[str, Any] | None, *, generation: int, reason: str, now: datetime
) -> dict[str, Any]:
    """The status of a resource that cannot be read: what is known of it stays, and it is not accepted."""
    said = conditions(
        {kind: false("InvalidSpec", reason) for kind in (ConditionType.ACCEPTED, ConditionType.READY)},
        generation=generation,
        now=now,
        previous=previous,
    )
    new = {condition["type"]: condition for condition in said}
    kept = {kind: dict(condition) for kind, condition in _by_type(previous).items()}
    order = [kind for kind in ConditionType if kind in {*kept, *new}]
    return {**(previous or {}), "conditions": [new.get(kind, kept.get(kind)) for kind in order]}


def settled(kind: ConditionType, previous: Mapping[str, Any] | None, *, generation: int) -> bool:
    """Whether `kind` was already true of this generation."""
    before = _by_type(previous).get(kind, {})
    return (before.get("status"), before.get("observedGeneration")) == ("True", generation)


def transitions(previous: Mapping[str, Any] | None, current: Mapping[str, Any]) -> tuple[Transition, ...]:
    """What there is to tell between two statuses, in the order of the conditions."""
    before = _by_type(previous)
    return tuple(
        Transition(
            type=condition["type"],
            status=condition["status"],
            reason=condition["reason"],
            message=condition["message"],
            warning=_is_warning(condition),
        )
        for condition in current.get("conditions") or ()
        if _told(before.get(condition["type"])) != _told(condition)
        if not (before.get(condition["type"]) is None and _is_calm(condition))
    )


def stamp(moment: datetime) -> str:
    """As the API writes times: whole seconds of UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _by_type(status: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in (status or {}).get("conditions") or ()}


def _told(condition: Mapping[str, Any] | None) -> tuple[str, str] | None:
    return None if condition is None else (condition["status"], condition["reason"])


def _is_warning(condition: Mapping[str, Any]) -> bool:
    holds: bool = condition["status"] == "True"
    if condition["type"] == ConditionType.DEGRADED:
        return holds
    refused = condition["type"] == ConditionType.ACCEPTED or condition["reason"] in _LOAD_FAILURES
    return refused and not holds


def _is_calm(condition: Mapping[str, Any]) -> bool:
    """Nothing to tell of a new resource: it is not degraded, and not ready yet."""
    return condition["status"] == "False" and not _is_warning(condition)


def _clipped(message: str) -> str:
    return message if len(message) <= _MESSAGE_CHARACTERS else f"{message[: _MESSAGE_CHARACTERS - 3]}..."
