"""The `kosine-operator` command: run in a cluster, or render without one.

What a person got wrong is one message on stderr and exit code 2, never a traceback. Every option of `run` can
also be set in the environment, which is what the chart does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from kosine_operator.logs import LogFormat, LogLevel
from kosine_operator.render import Defaults
from kosine_operator.resources import Size
from kosine_operator.settings import LeaseSettings, OperatorSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("main",)

_VERSION = version("kosine")
_LOST = 3
_FROM_ENVIRONMENT = {"auto_envvar_prefix": "KOSINE_OPERATOR", "help_option_names": ["-h", "--help"]}
_SECONDS = click.FloatRange(min=0.1, max=86_400)


class _Option(click.Option):
    """Says in which variable it is looked for, too."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **{"show_envvar": True, **how})


_option = partial(click.option, cls=_Option)


class _Refusal(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"kosine-operator: {self.format_message()}", file=file, err=file is None)


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    }
)
@click.version_option(_VERSION, prog_name="kosine-operator", message="%(prog)s %(version)s")
def main() -> None:
    """CosineIndex and CosineServer resources become Deployments that serve them."""


def _pool_options(command: Any) -> Any:
    """What decides how a resource is rendered."""
    for option in (
        _option(
            "--operator-namespace",
            default="kosine-system",
            metavar="NAME",
            help="Where the operator runs: NetworkPolicies let it through.",
        ),
        _option(
            "--allow-service-account",
            "service_accounts",
            multiple=True,
            metavar="NAME",
            help="ServiceAccount that a resource may name; * allows every one.",
        ),
        _option(
            "--memory",
            default="none",
            metavar="SIZE",
            help="Memory limit where a resource says nothing about memory; none: no limit.",
        ),
        _option(
            "--image-pull-policy",
            type=click.Choice(["Always", "IfNotPresent", "Never"]),
            default="IfNotPresent",
            help="Of that image.",
        ),
        _option(
            "--image",
            default=f"kosine:{_VERSION}",
            metavar="IMAGE",
            help="What serves where a resource does not name an image.",
        ),
    ):
        command = option(command)
    return command


@main.command("run", context_settings=_FROM_ENVIRONMENT)
@_option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Namespace to work in; may be repeated.",
)
@_option("--cluster-wide", is_flag=True, help="Work in every namespace; needs a ClusterRole.")
@_pool_options
@_option("--resync", type=_SECONDS, default=60.0, help="Seconds between complete lists.")
@_option("--pending", type=_SECONDS, default=1.0, help="Seconds between questions to pods that are not done.")
@_option("--workers", type=click.IntRange(1, 256), default=8, help="Pools worked on at once.")
@_option("--api-timeout", type=_SECONDS, default=15.0, help="Seconds that the API server has to answer.")
@_option("--pod-timeout", type=_SECONDS, default=2.0, help="Seconds that a pod has to answer.")
@_option(
    "--lease",
    metavar="NAMESPACE/NAME",
    help="Lease that decides which of several replicas works.  [default: there is one replica]",
)
@_option("--lease-seconds", type=click.IntRange(2, 3600), default=15, help="Before others take over.")
@_option("--identity", metavar="NAME", help="Of this replica.  [default: host and process]")
@_option("--host", default="0.0.0.0", metavar="ADDRESS", help="Of /livez, /readyz and /metrics.")  # noqa: S104
@_option("--port", type=click.IntRange(0, 65_535), default=8081, help="Of /livez, /readyz and /metrics.")
@_option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="auto",
    help="auto: for people on a terminal, JSON otherwise.",
)
@_option("--log-level", type=click.Choice(get_args(LogLevel)), default="info", help="Least level to log.")
def run_command(*, log_format: LogFormat, log_level: LogLevel, **options: Any) -> None:
    """Work until SIGTERM or Ctrl-C.

    Talks to the cluster that its pod runs in, or else to that of KUBECONFIG.
    """
    settings = _settings(**options)
    # Imported here: the client of Kubernetes takes a second, which `--help` and `render` need not wait for.
    import structlog

    from kosine_operator import app, logs
    from kosine_operator.api_errors import ApiError
    from kosine_operator.leader import LeaseLost

    logs.configure(form=log_format, level=log_level)
    log = structlog.get_logger("kosine_operator")
    log.info("starting", version=_VERSION, namespaces=list(settings.namespaces) or "all")
    try:
        asyncio.run(app.run(settings, started=lambda port: log.info("listening", port=port)))
    except LeaseLost:
        raise click.exceptions.Exit(_LOST) from None
    except (ApiError, OSError) as error:
        raise _Refusal(str(error)) from error


@main.command("render", context_settings=_FROM_ENVIRONMENT)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@_option("--namespace", default="default", metavar="NAME", help="Of resources that name none.")
@_pool_options
@_option(
    "--with",
    "installed",
    multiple=True,
    type=click.Choice(["ServiceMonitor", "HTTPRoute", "ScaledObject"]),
    help="Kind of a CRD that the cluster has; may be repeated.",
)
def render_command(
    *, files: Sequence[Path], namespace: str, installed: Sequence[str], **options: Any
) -> None:
    """Print what the resources in FILES would become in an empty cluster."""
    from kosine_operator.offline import OfflineError, render_files

    try:
        click.echo(
            render_files(files, namespace=namespace, defaults=_defaults(**options), installed=installed),
            nl=False,
        )
    except OfflineError as error:
        raise _Refusal(str(error)) from error


def _settings(
    *,
    namespaces: Sequence[str],
    cluster_wide: bool,
    lease: str | None,
    lease_seconds: int,
    identity: str | None,
    resync: float,
    pending: float,
    workers: int,
    api_timeout: float,
    pod_timeout: float,
    host: str,
    port: int,
    **options: Any,
) -> OperatorSettings:
    if bool(namespaces) == cluster_wide:
        raise click.UsageError("say where to work: --namespace NAME, once or more, or else --cluster-wide")
    return OperatorSettings(
        identity=identity or f"{socket.gethostname()}-{os.getpid()}",
        namespaces=tuple(namespaces),
        defaults=_defaults(**options),
        resync=resync,
        pending=pending,
        workers=workers,
        api_timeout=api_timeout,
        pod_timeout=pod_timeout,
        host=host,
        port=port,
        lease=None if lease is None else _lease(lease, lease_seconds),
    )


def _size(text: str) -> Size:
    try:
        return msgspec.convert(text, Size)
    except msgspec.ValidationError:
        said = f"{text!r} is neither a size such as 512Mi or 2Gi nor none"
        raise click.BadParameter(said, param_hint="--memory") from None


def _lease(text: str, seconds: int) -> LeaseSettings:
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise click.BadParameter(f"{text!r} is not NAMESPACE/NAME", param_hint="--lease")
    return LeaseSettings(namespace=namespace, name=name, duration=float(seconds))


def _defaults(
    *,
    image: str,
    image_pull_policy: str,
    memory: str,
    service_accounts: Sequence[str],
    operator_namespace: str,
) -> Defaults:
    return Defaults(
        image=image,
        image_pull_policy=image_pull_policy,
        memory=None if memory == "none" else _size(memory),
        service_accounts=frozenset(service_accounts),
        operator_namespace=operator_namespace,
    )
