"""The kubelet's decisions, as a real kubelet makes them, and the files of its volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kit.control_plane.kubelet.container_state import ContainerState, Ended, backoff, restarts
from tests.kit.control_plane.kubelet.environment import command, expanded
from tests.kit.control_plane.kubelet.pod_status import phase_of, pod_status
from tests.kit.control_plane.kubelet.probes import Verdict, after
from tests.kit.control_plane.kubelet.process import Mount, mounts
from tests.kit.control_plane.kubelet.resources import Container, EndpointSlice, Probe, Service, VolumeMount
from tests.kit.control_plane.kubelet.sandbox import pod_address
from tests.kit.control_plane.kubelet.service_proxy import routes
from tests.kit.control_plane.kubelet.volume_files import replace_files


@pytest.mark.parametrize(
    ("policy", "code", "init", "again"),
    [
        ("Always", 0, False, True),
        ("Always", 1, False, True),
        ("OnFailure", 0, False, False),
        ("OnFailure", 1, False, True),
        ("Never", 1, False, False),
        ("Always", 0, True, False),
        ("Always", 1, True, True),
        ("Never", 1, True, False),
    ],
)
def test_restart_policy(policy: str, code: int, init: bool, again: bool) -> None:
    """An init container that succeeded is done, whatever the policy."""
    assert again == restarts(policy, code, init=init)


def test_back_off_doubles_to_a_bound() -> None:
    """The first restart is at once."""
    assert [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] == [backoff(restart) for restart in range(1, 9)]


@pytest.mark.parametrize(
    ("start", "results", "passing"),
    [
        (False, "+", True),
        (True, "-", True),
        (True, "--", True),
        (True, "---", False),
        (True, "--+--", True),
        (False, "---+", True),
        (True, "---+-", True),
    ],
)
def test_a_verdict_changes_after_enough_results_in_a_row(start: bool, results: str, passing: bool) -> None:
    """One success by default, three failures."""
    verdict = Verdict(passing=start)
    for result in results:
        verdict = after(Probe(), verdict, success=result == "+")
    assert passing == verdict.passing


def state(*, running: bool = False, last: int | None = None, over: int | None = None) -> ContainerState:
    made = ContainerState("main", "image")
    made.running_since = "then" if running else None
    made.last = None if last is None else Ended(last, "then", "then")
    made.over = None if over is None else Ended(over, "then", "then")
    return made


@pytest.mark.parametrize(
    ("inits", "containers", "phase"),
    [
        ([], [state()], "Pending"),
        ([state(running=True)], [state()], "Pending"),
        ([], [state(running=True), state()], "Running"),
        ([], [state(last=1)], "Running"),
        ([], [state(over=0), state(running=True)], "Running"),
        ([], [state(over=0), state(over=0)], "Succeeded"),
        ([], [state(over=0), state(over=1)], "Failed"),
        ([state(over=1)], [state()], "Failed"),
    ],
)
def test_phase(inits: list[ContainerState], containers: list[ContainerState], phase: str) -> None:
    """A pod whose container is between two runs is Running."""
    assert phase == phase_of(inits, containers)


def test_a_condition_keeps_its_transition_time_until_it_changes() -> None:
    """MinReadySeconds counts from it."""
    container = state(running=True)

    def reported(previous: dict[str, Any], now: str) -> dict[str, Any]:
        return pod_status(
            phase="Running",
            reason=None,
            address="10.0.0.1",
            started="0",
            inits=[],
            containers=[container],
            previous=previous,
            now=now,
        )

    def since(status: dict[str, Any]) -> dict[str, str]:
        return {one["type"]: one["lastTransitionTime"] for one in status["conditions"]}

    first = reported({}, "1")
    second = reported(first, "2")
    container.ready = True
    third = reported(second, "3")
    assert first == second
    assert {"Ready": "3", "ContainersReady": "3"} == {k: v for k, v in since(third).items() if v != "1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("$(A)/x", "1/x"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A)$(A)", "11")],
)
def test_variables_are_expanded_as_the_api_says(text: str, value: str) -> None:
    """Unknown ones stay; two dollars are one."""
    assert value == expanded(text, {"A": "1"})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ("python", "-m", "kosine")),
        ({"args": ("serve",)}, ("python", "-m", "kosine", "serve")),
        ({"command": ("sh",)}, ("sh",)),
        ({"command": ("sh",), "args": ("-c", "echo $(A)")}, ("sh", "-c", "echo 1")),
    ],
)
def test_command_replaces_the_entrypoint_and_args_follow(
    fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    """As in a container runtime."""
    container = Container(name="main", image="kosine", **fields)
    assert words == command(container, ("python", "-m", "kosine"), {"A": "1"})


def test_what_of_the_image_a_volume_hides_is_mounted_over_it_again() -> None:
    """Outer paths come first; folders that no volume hides are left alone."""
    container = Container(
        name="main",
        image="kosine",
        volume_mounts=(
            VolumeMount(name="inner", mount_path="/tmp/inner"),  # noqa: S108
            VolumeMount(name="outer", mount_path="/tmp/", read_only=True),  # noqa: S108
        ),
    )
    volumes = {"inner": Path("/volumes/inner"), "outer": Path("/volumes/outer")}
    expected = (
        Mount(Path("/volumes/outer"), "/tmp", read_only=True),  # noqa: S108
        Mount(Path("/volumes/inner"), "/tmp/inner", read_only=False),  # noqa: S108
        Mount(Path("/tmp/sources"), "/tmp/sources", read_only=True),  # noqa: S108
    )
    assert expected == mounts(container, volumes, ("/tmp/sources", "/usr"))  # noqa: S108


def test_addresses_of_pods_are_distinct_and_none_is_the_node_s() -> None:
    """The first 256 addresses are kept for the node."""
    addresses = [pod_address(number) for number in range(1000)]
    assert 1000 == len(set(addresses))
    assert "10.123.1.0" == addresses[0]


def service_of(name: str, ip: str) -> Service:
    spec = {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}
    return msgspec.convert({"metadata": {"name": name, "namespace": "n"}, "spec": spec}, Service)


def slice_of(service: str, **ready: bool | None) -> EndpointSlice:
    labels = {"kubernetes.io/service-name": service}
    made = {
        "metadata": {"name": f"{service}-x", "namespace": "n", "labels": labels},
        "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}],
        "endpoints": [
            {"addresses": [address], "conditions": {} if word is None else {"ready": word}}
            for address, word in ready.items()
        ],
    }
    return msgspec.convert(made, EndpointSlice)


def test_only_ready_endpoints_of_a_service_s_own_slices_are_routed_to() -> None:
    """No word on readiness means ready; a Service without an address or an endpoint has no route."""
    services = [
        service_of("web", "10.96.0.2"),
        service_of("other", "10.96.0.3"),
        service_of("headless", "None"),
        service_of("empty", "10.96.0.4"),
    ]
    slices = [
        slice_of("web", a=True, b=False, c=None),
        slice_of("other", d=True),
        slice_of("headless", e=True),
        slice_of("empty", f=False),
    ]
    expected = {
        ("10.96.0.2", 80): (("a", 8080), ("c", 8080)),
        ("10.96.0.3", 80): (("d", 8080),),
    }
    assert expected == routes(services, slices)


def shown(folder: Path) -> dict[str, bytes]:
    """What a container sees: names without the hidden ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in folder.iterdir()
        if not top.name.startswith("..")
        for path in ([top] if top.is_file() else top.rglob("*"))
    }


def test_the_files_of_a_volume_are_what_was_last_put_there(tmp_path: Path) -> None:
    """Added, changed, removed and nested; the same again changes nothing."""
    for files in (
        {"a": b"1", "b": b"2"},
        {"a": b"3", "folder/c": b"4"},
        {},
        {"a": b"5"},
    ):
        assert replace_files(tmp_path, files)
        assert files == shown(tmp_path)
        target = (tmp_path / "..data").readlink()
        assert not replace_files(tmp_path, files)
        assert target == (tmp_path / "..data").readlink()
        assert [target.name] == [path.name for path in tmp_path.glob("..*") if not path.is_symlink()]
