"""A figure of the dates that a network with attention looks at."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cubekit.exports.charts import date_axis
from cubekit.exports.style import FAINT, new_figure, open_frame, styled
from cubekit.labels import ClassTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACROSS = 2


def attention_figure(attention: xr.Dataset, *, title: str = "Attention by date") -> "Figure":
    """Draw the mean attention of each class over the dates, one standard deviation to either side.

    Parameters
    ----------
    attention : xarray.Dataset
        From :func:`cubekit.date_attention`.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a class that has samples, in its colour, all on one scale; the dotted line is where
        attention would lie if all dates were alike.
    """
    table = ClassTable.from_attrs(attention.attrs)
    shown = np.flatnonzero(attention["samples"].to_numpy())
    times, weight, spread = (attention[name].to_numpy() for name in ("time", "weight", "spread"))
    across = min(_ACROSS, max(1, len(shown)))
    down = -(-max(1, len(shown)) // across)
    with styled():
        figure = new_figure(3.6 * across, 1.55 * down + 0.5)
        figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes, index in zip(panels, shown, strict=False):
            open_frame(axes)
            low, high = weight[index] - spread[index], weight[index] + spread[index]
            axes.fill_between(times, low.clip(0), high, color=table.colours[index], alpha=0.3, linewidth=0)
            axes.plot(times, weight[index], color=table.colours[index], marker="o", markersize=2.6)
            axes.axhline(1 / len(times), color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)))
            count = int(attention["samples"][index])
            axes.set_title(f"{table.names[index]} ({count:,})", fontsize=8.5, fontweight="normal")
            date_axis(axes)
        panels[0].set_ylim(bottom=0)
        return figure
