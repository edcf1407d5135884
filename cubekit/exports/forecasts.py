"""Figures of forecasts: true, forecast and difference maps; true against forecast by zone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cubekit.errors import ExportError
from cubekit.exports.cartography import show_image
from cubekit.exports.style import ACCENT, EMPTY, FAINT, INK, new_figure, open_frame, styled
from cubekit.typing import BoolArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 3000
"""Points of a scatter plot, at most, in a zone; lines are fitted to all pixels."""

_ZONES = (ACCENT[1], ACCENT[0], *ACCENT[2:])  # the first zone, such as a mine, in vermilion; the next in blue
_Z = 1.959963984540054  # half the width of the middle 95 % of a normal distribution, in standard deviations


def forecast_maps_figure(
    truth: xr.DataArray, predicted: xr.DataArray, *, title: str, label: str = "value"
) -> "Figure":
    """Draw the true map, the forecast and their difference side by side.

    Parameters
    ----------
    truth, predicted : xarray.DataArray
        ``(y, x)`` on one grid, physical, NaN where there is no data.
    title : str
        Heading.
    label : str, optional
        What the numbers are, with their unit.

    Returns
    -------
    matplotlib.figure.Figure
        Both maps share a colour scale (2nd to 98th percentile of the truth); the difference, forecast minus
        truth, has its own, white at zero.

    Raises
    ------
    ExportError
        If no pixel is known in both.
    """
    true, found = np.asarray(truth, "float64"), np.asarray(predicted, "float64")
    apart = found - true
    if not np.isfinite(apart).any():
        raise ExportError("No pixel is known in both maps, so there is nothing to draw.")
    low, high = np.nanpercentile(true, (2, 98))
    widest = max(float(np.nanpercentile(np.abs(apart), 98)), 1e-12)
    with styled():
        height = 2.9 * min(max(true.shape[0] / true.shape[1], 0.5), 1.8)
        figure = new_figure(10.2, height + 0.6)
        panels: list[tuple[str, FloatArray, str, tuple[float, float]]] = [
            ("true", true, "viridis", (float(low), float(max(high, low + 1e-12)))),
            ("forecast", found, "viridis", (float(low), float(max(high, low + 1e-12)))),
            ("forecast - true", apart, "RdBu", (-widest, widest)),
        ]
        for column, (name, values, cmap, limits) in enumerate(panels):
            axes = figure.add_subplot(1, 3, column + 1, facecolor=EMPTY)
            image = show_image(axes, values, truth, cmap=cmap, limits=limits)
            axes.set_title(name, fontsize=9)
            axes.set(xticks=[], yticks=[])
            bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25, extend="both")
            bar.set_label(label if column < 2 else f"difference of {label}")  # noqa: PLR2004  (two maps)
            bar.outline.set_visible(False)
        figure.suptitle(title, x=0.005, ha="left", fontsize=10.5, fontweight="bold")
        return figure


def forecast_scatter_figure(
    truth: FloatArray,
    predicted: FloatArray,
    *,
    zones: Mapping[str, BoolArray] | None = None,
    title: str,
    label: str = "value",
) -> "Figure":
    """Draw forecast against true values, one colour a zone, with the fitted line.

    Parameters
    ----------
    truth, predicted : numpy.ndarray
        ``(..., y, x)``, physical; pixels that are not finite in both are left out.
    zones : mapping, optional
        Name to ``(y, x)`` bool, the first on top where they overlap; pixels in none are drawn as the rest.
    title : str
        Heading.
    label : str, optional
        What the numbers are, with their unit.

    Returns
    -------
    matplotlib.figure.Figure
        Regular samples of points; over all pixels the regression of forecast on truth, the band that 95 % of
        pixels are expected in (normal residuals), and the line of equality.

    Raises
    ------
    ExportError
        If fewer than three pixels are known in both.
    """
    known = np.isfinite(truth) & np.isfinite(predicted)
    if known.sum() < 3:  # noqa: PLR2004  (a line and its scatter)
        raise ExportError("Fewer than three pixels are known in both maps, so there is no line to fit.")
    with styled():
        figure = new_figure(4.6, 4.4)
        axes = figure.add_subplot()
        open_frame(axes, grid=False)
        _points(axes, truth, predicted, known, zones or {})
        _line(axes, truth[known].astype("f8"), predicted[known].astype("f8"))
        both = np.concatenate([truth[known], predicted[known]])
        low, high = np.percentile(both, (0.1, 99.9))
        room = 0.04 * (high - low) or 1.0
        axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
        ends = [low - room, high + room]
        axes.plot(ends, ends, color=FAINT, lw=0.9, ls=(0, (4, 3)), label="y = x")
        axes.set(xlabel=f"true {label}", ylabel=f"forecast {label}", aspect="equal")
        axes.set_title(title)
        legend = axes.legend(loc="upper left", handletextpad=0.4, borderaxespad=0.2)
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_alpha(1)
                handle.set_sizes([18])
        return figure


def _points(
    axes: "Axes", truth: FloatArray, predicted: FloatArray, known: BoolArray, zones: Mapping[str, BoolArray]
) -> None:
    """Draw a regular sample of the pixels of each zone, and of those in none."""
    rest, layers = known.copy(), []
    for (name, inside), colour in zip(zones.items(), _ZONES, strict=False):
        layers.append((name, rest & inside, colour))
        rest &= ~np.asarray(inside, bool)
    layers.append(("elsewhere" if zones else "pixels", rest, FAINT if zones else ACCENT[0]))
    for name, chosen, colour in reversed(layers):
        x, y = truth[chosen], predicted[chosen]
        if x.size:
            step = -(-x.size // SHOWN)
            axes.scatter(
                x[::step], y[::step], s=5, color=colour, alpha=0.35, linewidths=0, label=name, rasterized=True
            )


def _line(axes: "Axes", x: FloatArray, y: FloatArray) -> None:
    """Draw the regression line and the band that 95 % of pixels are expected in."""
    spread: Any = np.square(x - x.mean()).sum()
    if not spread > 0:
        return
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    low, high = np.percentile(x, (0.1, 99.9))
    at = np.linspace(float(low), float(high), 50)
    fitted = y.mean() + slope * (at - x.mean())
    scatter = np.sqrt(np.square(y - y.mean() - slope * (x - x.mean())).sum() / (len(x) - 2))
    half = _Z * scatter * np.sqrt(1 + 1 / len(x) + np.square(at - x.mean()) / spread)
    offset = y.mean() - slope * x.mean()
    axes.fill_between(at, fitted - half, fitted + half, color=INK, alpha=0.08, lw=0, label="95 % of pixels")
    axes.plot(at, fitted, color=INK, lw=1.3, label=f"{slope:.3f} true {offset:+.3g}")
