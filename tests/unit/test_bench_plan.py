"""What goes together on the command line of `kosine bench`, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kosine.bench.filters import FilterPlan
from kosine.bench.plan import BenchPlan, IndexPlan, filtered_loads, plan_indexes, plan_loads
from kosine.errors import StartupError

ITEMS = IndexPlan(name="items", weight=1.0, file=None)
KNOWN = IndexPlan(name="items", weight=1.0, file=Path("items.npy"))
URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("weights", "files", "expected"),
    [
        ([], [], [("items", 1.0, None)]),
        ([], ["x.npy"], [("items", 1.0, "x.npy")]),
        ([], ["a=x.npy", "b=y.npy"], [("a", 1.0, "x.npy"), ("b", 1.0, "y.npy")]),
        (["users"], ["x.npy"], [("users", 1.0, "x.npy")]),
        (["a=3", "b=0.5"], ["b=y.npy"], [("a", 3.0, None), ("b", 0.5, "y.npy")]),
        ([], ["./with=sign.npy"], [("items", 1.0, "with=sign.npy")]),
    ],
)
def test_indexes_and_files_find_each_other(
    weights: list[str], files: list[str], expected: list[tuple[str, float, str | None]]
) -> None:
    """One index needs no name; a file without a name belongs to the only one."""
    found = plan_indexes(weights, files)
    assert expected == [(each.name, each.weight, each.file and str(each.file)) for each in found]


@pytest.mark.parametrize(
    ("weights", "files", "said"),
    [
        (["a", "a=2"], [], "expected each name once"),
        (["a=0"], [], "a number above 0"),
        (["a=much"], [], "a number above 0"),
        (["a=inf"], [], "a number above 0"),
        (["Items"], [], "small letters"),
        (["a", "b"], ["x.npy"], "expected NAME=FILE, because there are 2 indexes"),
        (["a"], ["b=x.npy"], "no --index b; expected one of a"),
        ([], ["a=x.npy", "a=y.npy"], "one file for index a, got two"),
    ],
)
def test_what_does_not_fit_is_named(weights: list[str], files: list[str], said: str) -> None:
    """With the option to correct."""
    with pytest.raises(StartupError, match=said):
        plan_indexes(weights, files)


@pytest.mark.parametrize(
    ("concurrency", "rates", "titles"),
    [
        ([], [], ["closed c=1", "closed c=16", "closed c=64", "closed c=256"]),
        ([4], [], ["closed c=4"]),
        ([], [100.0], ["open 100/s"]),
        ([4], [2.5], ["closed c=4", "open 2.5/s"]),
    ],
)
def test_rates_alone_mean_no_closed_loop(
    concurrency: list[int], rates: list[float], titles: list[str]
) -> None:
    """Nothing is measured that was not asked for."""
    assert titles == [load.title for load in plan_loads(concurrency, rates, connections=8)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pid": 1}, "give its --url too"),
        ({"url": URL, "edits": ("defaults.k=1",)}, "a service that the bench starts"),
        ({"url": URL, "reload_every": 1.0}, "needs --file"),
        ({"url": URL, "reload_every": 1.0, "indexes": (KNOWN,)}, "add --allow-rewrite"),
        ({"generator": "wrk", "reload_every": 1.0}, "use --generator own"),
        ({"generator": "wrk", "keeps_samples": True}, "use --generator own"),
        ({"generator": "wrk", "loads": plan_loads([], [9.0], connections=1)}, "no open loop"),
        ({"rounds": 3}, "give --exclude or --mask, too"),
        ({"filter": FilterPlan(exclude=1), "body": "npy"}, "use --body json or base64, not npy"),
        ({"filter": FilterPlan(exclude=1), "reload_every": 1.0}, "leave --exclude and --mask away"),
        ({"filter": FilterPlan(mask="a"), "indexes": (ITEMS, ITEMS)}, "--mask is of one index"),
        ({"filter": FilterPlan(mask="a", mask_share=0.1), "url": URL}, "give its --mask-file"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_before_anything_starts(
    options: dict[str, Any], said: str
) -> None:
    """A file of somebody else is replaced only where that was typed."""
    given = {"url": None, "indexes": (ITEMS,), "loads": plan_loads([], [], connections=1), **options}
    with pytest.raises(StartupError, match=said):
        BenchPlan(**given)


def test_a_rewrite_that_was_typed_is_allowed() -> None:
    """The other side of the check above."""
    loads = plan_loads([], [], connections=1)
    plan = BenchPlan(url=URL, indexes=(KNOWN,), loads=loads, reload_every=1.0, allow_rewrite=True)
    assert 1.0 == plan.reload_every


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": "a", "not_mask": "b"}, "expected one of them"),
        ({"mask_share": 0.5}, "name it with --mask"),
        ({"exclude": 3, "mask_file": Path("x.npy")}, "name it with --mask"),
        ({"mask": "In Stock"}, "got 'In Stock'"),
        ({"mask": "a", "mask_file": Path("x.npy"), "mask_share": 0.5}, "leave it or --mask-file away"),
    ],
)
def test_a_filter_is_one_that_can_be_asked_for(options: dict[str, Any], said: str) -> None:
    """Before anything is made or started."""
    with pytest.raises(StartupError, match=said):
        FilterPlan(**options)


def test_compared_loads_run_in_turn() -> None:
    """Each by itself, plain and filtered, and neither always first."""
    loads = filtered_loads(plan_loads([1, 8], [], connections=1), rounds=2)
    plain, filtered = "closed c={}", "closed c={} filtered"
    turns = [plain, filtered, filtered, plain]
    assert [turn.format(count) for count in (1, 8) for turn in turns] == [load.title for load in loads]


def test_without_rounds_every_load_is_filtered() -> None:
    """As it was asked for."""
    loads = filtered_loads(plan_loads([8], [9.0], connections=4), rounds=0)
    assert ["closed c=8 filtered", "open 9/s filtered"] == [load.title for load in loads]
