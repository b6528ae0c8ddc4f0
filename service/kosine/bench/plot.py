"""Latency over time as a picture, one panel per load, with the reloads marked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kosine.bench.measure import Measured

__all__ = ("check_plot", "draw")

_WIDTH, _PANEL_HEIGHT = 11.0, 3.2
_INCHES_MOST = 200
_SLICES = 120
_DOTS_PER_INCH = 110


def check_plot(path: Path) -> None:
    """Raises StartupError before anything is measured, where a plot could not be written at the end."""
    try:
        import_module("matplotlib")
    except ImportError:
        raise StartupError("--plot needs matplotlib: pip install 'kosine[bench]'") from None
    if path.suffix.lower() != ".png":
        raise StartupError(f"--plot: expected a file name that ends in .png, got {path.name}")
    if not path.absolute().parent.is_dir():
        raise StartupError(f"--plot: expected a folder, {path.parent} is none")


def draw(measured: Sequence[Measured], path: Path) -> None:
    """Write `path`. Loads without single requests are left out."""
    shown = [each for each in measured if each.samples is not None]
    height = min(_INCHES_MOST, _PANEL_HEIGHT * max(1, len(shown)))
    figure = import_module("matplotlib.figure").Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = figure.subplots(max(1, len(shown)), 1, squeeze=False)[:, 0]
    for panel, each in zip(panels, shown, strict=False):
        _panel(panel, each)
    try:
        figure.savefig(path, dpi=_DOTS_PER_INCH, format="png")
    except OSError as error:
        raise StartupError(f"--plot: cannot write {path}: {error.strerror}") from error


def _panel(panel: Any, each: Measured) -> None:
    samples = each.samples
    if samples is None:
        return
    times, milliseconds = samples.intended[samples.ok], samples.latency * 1e3
    panel.plot(times, milliseconds, ".", color="tab:blue", markersize=2, alpha=0.3, rasterized=True)
    for percent, colour in ((50, "tab:green"), (99, "tab:red")):
        at, values = sliced(times, milliseconds, percent=percent)
        panel.plot(at, values, "-", linewidth=1, color=colour, label=f"p{percent}")
    reloads = each.report.reload.reloads if each.report.reload else []
    for number, reload in enumerate(reloads):
        label = "reload: renamed .. seen" if number == 0 else None
        panel.axvspan(reload.renamed, reload.seen, color="tab:orange", alpha=0.25, label=label)
    panel.set_xlim(0, each.report.seconds)
    panel.set_title(each.load.title, loc="left", fontsize=10)
    panel.set_xlabel("intended send, seconds from the start")
    panel.set_ylabel("latency, ms")
    panel.set_yscale("log")
    panel.legend(loc="upper right", fontsize=8)


def sliced(
    times: NDArray[np.float64], values: NDArray[np.float64], *, percent: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The percentile of `values` in each of equal slices of time that has any."""
    if not len(times):
        return times, values
    edges = np.linspace(times.min(), times.max(), _SLICES + 1)
    number = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, _SLICES - 1)
    filled = np.unique(number)
    found = [np.percentile(values[number == each], percent, method="inverted_cdf") for each in filled]
    return (edges[filled] + edges[filled + 1]) / 2, np.asarray(found, dtype=np.float64)
