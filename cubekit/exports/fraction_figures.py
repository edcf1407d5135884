"""Figures of shares of classes: a map for each class, and predicted beside true shares."""

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr

from cubekit.cube.contract import to_physical
from cubekit.errors import ExportError
from cubekit.exports.maps import thinned
from cubekit.exports.style import EMPTY, FAINT, INK, new_figure, open_frame, styled
from cubekit.labels import ClassTable
from cubekit.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 3
"""Panels side by side."""

FEWEST = 5
"""Bins of fewer samples are not drawn: their mean says nothing."""


class BinsLike(Protocol):
    """What a reliability figure needs; :class:`cubekit.evaluation.fractions.ShareBins` is one."""

    @property
    def predicted(self) -> FloatArray:
        """Mean prediction in each bin ``(k, B)``."""

    @property
    def true(self) -> FloatArray:
        """Mean truth in each bin ``(k, B)``."""

    @property
    def counts(self) -> IntArray:
        """Samples in each bin ``(k, B)``."""

    @property
    def error(self) -> FloatArray:
        """Mean distance of both ``(k,)``."""


def fraction_maps_figure(
    fractions: xr.DataArray, classes: ClassTable, *, title: str = "Share of each class"
) -> "Figure":
    """Draw a small map for each class, from white (none) to the colour of the class (all of the pixel).

    Parameters
    ----------
    fractions : xarray.DataArray
        ``(category, y, x)``, coded or not; large maps are thinned.
    classes : ClassTable
        Names and colours.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot.

    Raises
    ------
    ExportError
        If there are not as many layers as classes.
    """
    if fractions.dims != ("category", "y", "x") or len(fractions) != len(classes):
        raise ExportError(
            f"Shares have dims {fractions.dims} and {fractions.shape[0]} layers, expected (category, y, x) "
            f"and {len(classes)} layers."
        )
    values = to_physical(thinned(fractions).compute()).to_numpy()
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = math.ceil(len(classes) / ACROSS), min(ACROSS, len(classes))
    width = 7.4 / ACROSS
    ratio = values.shape[1] / values.shape[2]
    with styled():
        figure = new_figure(width * columns, (width * ratio + 0.2) * rows + 0.3)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10.5)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, share, name, colour in zip(panels, values, classes.names, classes.colours, strict=False):
            ramp = LinearSegmentedColormap.from_list(name, ["white", colour])
            axes.set_facecolor(EMPTY)
            axes.imshow(np.ma.masked_invalid(share), cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(f"{name}, {np.nanmean(share):.0%} of the land", fontsize=8, fontweight="normal")
            axes.set(xticks=[], yticks=[])
        for axes in panels[len(classes) :]:
            axes.set_visible(False)
        return figure


def share_reliability_figure(
    bins: BinsLike, classes: ClassTable, *, title: str = "Are shares honest?"
) -> "Figure":
    """Draw, for each class, what was predicted against what is true.

    Parameters
    ----------
    bins : ShareBins
        Means by bins of the prediction.
    classes : ClassTable
        Names and colours.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        A dot a bin, larger for more samples; below the diagonal a class is overestimated.
    """
    rows, columns = math.ceil(len(classes) / ACROSS), min(ACROSS, len(classes))
    with styled():
        figure = new_figure(2.45 * columns, 2.5 * rows + 0.35)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10.5)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for index, (axes, name, colour) in enumerate(
            zip(panels, classes.names, classes.colours, strict=False)
        ):
            open_frame(axes)
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
            counts = bins.counts[index]
            shown = counts >= FEWEST
            size = 10 + 160 * counts[shown] / max(1, int(counts.sum()))
            axes.scatter(
                bins.predicted[index, shown], bins.true[index, shown], s=size, color=colour,
                edgecolor=INK, linewidth=0.4, zorder=3, clip_on=False,
            )  # fmt: skip
            axes.set_title(f"{name}: off by {bins.error[index]:.3f}", fontsize=8, fontweight="normal")
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        for axes in panels[len(classes) :]:
            axes.set_visible(False)
        figure.supxlabel("predicted share", fontsize=8.5)
        figure.supylabel("true share", fontsize=8.5)
        return figure
