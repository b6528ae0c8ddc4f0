"""`kosine inspect` of objects and of manifests in a store, and what it asks of the store for that."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from kosine.cli import main
from tests.kit.fault_proxy import Fault, fault_proxy
from tests.kit.npy_files import npy_bytes, unit_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.kit.fault_proxy import FaultProxy, Request
    from tests.kit.object_stores import ObjectServer

ROWS = unit_rows(20_000, 8).astype(np.float32)
VECTORS, IDS = npy_bytes(ROWS), npy_bytes(np.arange(len(ROWS)))


class Bench(NamedTuple):
    """A store with items.npy, ids.npy and items.json, a proxy before it, and the configuration file."""

    server: ObjectServer
    proxy: FaultProxy
    config: Path

    def inspect(self, key: str, *options: str) -> Result:
        """The command, as a person types it."""
        arguments = ["inspect", self.server.uri(key), "--config", str(self.config), *options]
        return CliRunner().invoke(main, arguments, prog_name="kosine")

    def bytes_read(self) -> list[tuple[int, int]]:
        """Ranges that were asked for, [start, stop)."""
        spans = (request.headers.get("range", "") for request in self.proxy.seen())
        found = (re.fullmatch(r"bytes=(\d+)-(\d+)", span) for span in spans)
        return sorted((int(one[1]), int(one[2]) + 1) for one in found if one is not None)


@pytest.fixture(params=["moto", "emulator"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    server: ObjectServer = request.getfixturevalue(request.param)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.put("inspected/items.npy", VECTORS)
    server.put("inspected/ids.npy", IDS)
    manifest = {"vectors": "items.npy", "ids": "ids.npy", "rows": len(ROWS), "dim": 8}
    server.put("inspected/items.json", json.dumps(manifest).encode())
    with fault_proxy(server.endpoint) as proxy:
        section = "s3" if server.kind == "s3" else "gcs"
        stores: dict[str, Any] = {
            "s3": {"endpoint_url": proxy.endpoint, "region": "us-east-1"},
            "gcs": {"endpoint_url": proxy.endpoint, "anon": True},
        }
        config = tmp_path / "kosine.yaml"
        config.write_text(yaml.safe_dump({"service": {"stores": {section: stores[section]}}}))
        yield Bench(server, proxy, config)


def test_an_object_is_inspected_like_a_file(bench: Bench, tmp_path: Path) -> None:
    """The same facts, but for the memory of ranges in flight; every byte is asked for once."""
    (tmp_path / "items.npy").write_bytes(VECTORS)
    done = bench.inspect("inspected/items.npy", "--json")
    local = CliRunner().invoke(main, ["inspect", str(tmp_path / "items.npy"), "--json"])
    assert (0, 0) == (done.exit_code, local.exit_code), done.output
    there, here = json.loads(done.output), json.loads(local.output)
    for one in (there, here):
        for own in ("file", "suggestion", "memory"):
            one.pop(own)
    assert here == there
    spans = bench.bytes_read()
    assert [0, *(stop for _, stop in spans[:-1])] == [start for start, _ in spans]
    assert len(VECTORS) == spans[-1][1]


def test_a_manifest_is_inspected_with_what_it_names(bench: Bench) -> None:
    """Vectors and ids behind it; the configuration names the manifest, by its URI."""
    done = bench.inspect("inspected/items.json")
    assert 0 == done.exit_code, done.output
    assert "inspected/ids.npy" in done.output
    suggested = yaml.safe_load(done.output[done.output.index("indexes:") :])
    assert {"indexes": {"items": {"uri": bench.server.uri("inspected/items.json")}}} == suggested


def test_headers_cost_a_range_each(bench: Bench) -> None:
    """However large the objects are: what the gate reads, and nothing behind it."""
    done = bench.inspect("inspected/items.json", "--header-only")
    assert 0 == done.exit_code, done.output
    assert "20000 items of dim 8" in done.output
    assert sum(stop - start for start, stop in bench.bytes_read()) <= 2 * 64 * 2**10 + 1000


def test_what_the_header_refuses_is_not_read(bench: Bench) -> None:
    """Exit code 1 with the code of a load, after one range of either."""
    done = bench.inspect("inspected/items.npy", "--layout", "transposed", "--dim", "8")
    assert (1, True) == (done.exit_code, "bad_shape" in done.output)
    assert 1 == len(bench.bytes_read())


@pytest.mark.parametrize(
    ("status", "code"), [(403, "source_forbidden"), (404, "source_missing"), (405, "source_unreadable")]
)
def test_what_the_store_refuses_is_told(bench: Bench, status: int, code: str) -> None:
    """The code that the status of an index would show."""
    bench.proxy.script = lambda _: Fault(status=status)
    for key in ("inspected/items.npy", "inspected/items.json"):
        done = bench.inspect(key)
        assert (1, True) == (done.exit_code, code in done.output), done.output


def test_an_object_that_changes_meanwhile_is_not_called_good(bench: Bench) -> None:
    """Facts of two generations are facts of none."""

    def replace(request: Request) -> None:
        if "range" in request.headers and not request.headers["range"].startswith("bytes=0-"):
            bench.server.put("inspected/items.npy", VECTORS[:-4] + bytes(4))

    bench.proxy.script = replace
    done = bench.inspect("inspected/items.npy")
    assert (1, True) == (done.exit_code, "changed_while_reading" in done.output), done.output


def test_a_bad_configuration_file_is_exit_code_2(bench: Bench) -> None:
    """Nothing is asked of a store that nobody named."""
    bench.config.write_text("service: {stores: {s3: {endpoint: x}}}")
    done = bench.inspect("inspected/items.npy")
    assert (2, True) == (done.exit_code, "service.stores.s3.endpoint" in done.output), done.output
    assert [] == bench.proxy.seen()
