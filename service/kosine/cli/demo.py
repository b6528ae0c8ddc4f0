"""`kosine demo`: cities and colours, served, with curl lines to paste and what to expect of them."""

from __future__ import annotations

import json
import shlex
import tempfile
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING

import click

from kosine import configuration, logs
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kosine.demo import Collection

__all__ = ("demo_command",)

_CITIES, _CITY_NAMES = "cities.npy", "city-names.npy"
_COLOURS, _COLOUR_NAMES, _NEXT_COLOURS = "colours.npy", "colour-names.npy", "colours-next.npy"
_K = 5
_POLL_SECONDS = 0.05


@click.command("demo")
@click.option("--port", default="8080", show_default=True, metavar="PORT", help="0 takes a free one.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep the files here; default: a temporary folder.",
)
def demo_command(*, port: str, folder: Path | None) -> None:
    """Serve two small indexes of things a person recognises.

    Prints curl lines to paste; Ctrl-C stops it.
    """
    logs.configure(level="warning")
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kosine-")))
        load = partial(configuration.load, None, overrides=_overrides(folder, port))
        settings = load()
        demo = _prepare(folder.absolute())
        click.echo(demo.introduction())
        done = stack.enter_context(_progress("Starting TensorFlow and loading the indexes"))

        def announce(url: str) -> None:
            _wait_until_ready(url)
            done()
            click.echo(demo.invitation(url))

        def started(url: str) -> None:
            Thread(target=announce, args=(url,), name="kosine-demo", daemon=True).start()

        from kosine import app

        try:
            app.serve(settings, config_path=None, load_settings=load, started=started)
        except StartupError as error:
            raise _for_the_demo(error, settings.service.port) from error
    click.echo("\nStopped.")


def _for_the_demo(error: StartupError, port: int) -> StartupError:
    if f":{port}:" not in error.detail:
        return error
    return StartupError(f"{error.detail}\nfor the demo: kosine demo --port PORT, or make demo PORT=...")


def _overrides(folder: Path, port: str) -> list[str]:
    files = {
        "indexes.cities.uri": _CITIES,
        "indexes.cities.ids": _CITY_NAMES,
        "indexes.colours.uri": _COLOURS,
        "indexes.colours.ids": _COLOUR_NAMES,
    }
    edits = [f"{key}={json.dumps(str(folder / name))}" for key, name in files.items()]
    return [*edits, f"service.port={port}", "defaults.max_k=100", "default_index=cities"]


def _prepare(folder: Path) -> _Demo:
    from kosine.demo import cities, colours, save

    demo = _Demo(folder, cities(), colours(), colours(brightness=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(demo.cities, folder / _CITIES, folder / _CITY_NAMES)
        save(demo.colours, folder / _COLOURS, folder / _COLOUR_NAMES)
        save(demo.flat_colours, folder / _NEXT_COLOURS)
    except OSError as error:
        raise click.BadParameter(f"cannot write to {folder}: {error.strerror}", param_hint="--dir") from error
    return demo


@dataclass(frozen=True, slots=True)
class _Demo:
    """What is served, and what is said about it."""

    folder: Path
    cities: Collection
    colours: Collection
    flat_colours: Collection
    """The file to replace `colours` with: brightness does not count in it."""

    def introduction(self) -> str:
        return f"""\
Two indexes in {self.folder}:
  cities   {len(self.cities.names)} cities as points on the globe; the cosine is how near they are
  colours  {len(self.colours.names)} colours named in CSS; the cosine is how alike they look
"""

    def invitation(self, url: str) -> str:
        near, alike = self.cities.nearest("Paris", _K - 1), self.colours.nearest("tomato", _K - 1)
        return f"""\
Serving at {url}. Paste these into another terminal.

Which cities are near Paris?
{_curl(url, "cities", self.cities.vector("Paris"))}
  Expect Paris itself, then {_listed(near)}.

Which colours look like tomato?
{_curl(url, "colours", self.colours.vector("tomato"))}
  Expect tomato itself, then {_listed(alike)}.

Replace a file under the running service (brightness does not count in the new one):
mv {_quoted(self.folder / _NEXT_COLOURS)} {_quoted(self.folder / _COLOURS)}
  Then paste the line of the colours again: `version` is another one, and the best
  are {_listed(self.flat_colours.best(self.colours.vector("tomato"), _K))}.

Ctrl-C stops the service."""


def _curl(url: str, index: str, vector: list[float]) -> str:
    body = json.dumps({"embedding": vector, "k": _K})
    return f"curl -s {url}/indexes/{index}/cos -H 'Content-Type: application/json' -d '{body}'"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _wait_until_ready(url: str) -> None:
    address = url.removeprefix("http://")
    while True:
        with closing(HTTPConnection(address, timeout=5)) as connection, suppress(OSError):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        sleep(_POLL_SECONDS)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[], None]]:
    """Show that something is going on until the yielded function is called, or the block ends."""
    from rich.console import Console

    status = Console(stderr=True).status(f"{what} ...")
    status.start()
    try:
        yield status.stop
    finally:
        status.stop()
