"""Codes are a contract: clients, metrics and logs use them. Text may change, these may not."""

from __future__ import annotations

import re

import kosine.errors
from kosine.errors import RequestError
from kosine.http import problems

STABLE = {
    "bad_json": 400,
    "json_too_deep": 400,
    "bad_encoding": 400,
    "bad_request": 400,
    "unknown_index": 404,
    "unknown_id": 404,
    "unknown_mask": 404,
    "unknown_version": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "body_timeout": 408,
    "reload_failed": 409,
    "version_mismatch": 409,
    "version_gone": 409,
    "index_pinned": 409,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "dim_mismatch": 422,
    "not_finite": 422,
    "zero_vector": 422,
    "bad_k": 422,
    "bad_cursor": 422,
    "unknown_field": 422,
    "invalid_value": 422,
    "too_many_rows": 422,
    "too_many_ids": 422,
    "overloaded": 429,
    "head_too_large": 431,
    "internal_error": 500,
    "index_not_ready": 503,
    "engine_error": 503,
    "shutting_down": 503,
    "too_many_connections": 503,
    "deadline_exceeded": 504,
}


def refusals() -> list[type[RequestError]]:
    """Every class a caller can be refused with."""
    modules = (kosine.errors, problems)
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return sorted(
        (each for each in found if issubclass(each, RequestError) and each is not RequestError),
        key=lambda each: each.code,
    )


def test_every_code_has_its_status_for_ever() -> None:
    """A new code is added here; an old one is neither renamed nor moved."""
    assert STABLE == {each.code: each.status for each in refusals()}


def test_no_two_refusals_share_a_code() -> None:
    """A code tells one situation."""
    assert len(refusals()) == len({each.code for each in refusals()})


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """What errors.py draws is what it defines."""
    drawn = re.findall(r"(\w+) +(\d{3}) (\w+)", kosine.errors.__doc__ or "")
    defined = [each for each in refusals() if each.__module__ == "kosine.errors"]

    assert {(each.__name__, str(each.status), each.code) for each in defined} == set(drawn)


def test_every_refusal_says_what_it_is() -> None:
    """A title for people, a docstring for us."""
    assert [] == [each for each in refusals() if not each.title or not each.__doc__]
