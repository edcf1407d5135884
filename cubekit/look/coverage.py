"""When was how much observed: a calendar of months, and every date."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cubekit.cube.contract import check_cube, encoding_of, is_valid
from cubekit.exports.style import ACCENT, FAINT, INK, new_figure, open_frame, styled
from cubekit.look.pictures import kept
from cubekit.look.sample import sample
from cubekit.typing import BoolArray, FloatArray, StrPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS = 128
"""Along the longer side of the pixels that are looked at."""

_MANY = 150  # dates from which on marks run together
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def coverage_calendar(cube: xr.Dataset, *, path: StrPath | None = None) -> "Figure":
    """Draw how much of the area has data, month by month and date by date.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory. Up to 128 x 128 pixels stand for all.
    path : path, optional
        PNG to write too.

    Returns
    -------
    matplotlib.figure.Figure
        Above, a cell for each month: the share of pixels with data at least once, as colour, and the number
        of dates. Below, the share of
        pixels with data in any band at each date.
    """
    check_cube(cube)
    thin, _, note = sample(cube, longest=PIXELS)
    valid = is_valid(thin, encoding_of(thin).nodata).any("band").to_numpy().reshape(thin.sizes["time"], -1)
    times = pd.DatetimeIndex(thin.indexes["time"])
    shares, counts = _by_month(valid, times)
    years = len(shares)
    with styled():
        figure = new_figure(7.2, 0.3 * years + 3.1)
        above, below = figure.subplots(2, 1, height_ratios=[0.3 * years + 0.35, 1.6])
        _calendar(figure, above, shares, counts, times)
        above.set_title("Pixels with data at least once a month" + (f" ({note})" if note else ""), pad=8)
        _dates(below, times, valid.mean(axis=1))
    return kept(figure, path)


def _by_month(valid: BoolArray, times: pd.DatetimeIndex) -> tuple[FloatArray, FloatArray]:
    """Return share seen at least once, and number of dates, by year and month; NaN outside the period."""
    first = times[0].year
    shape = (times[-1].year - first + 1, 12)
    shares, counts = np.full(shape, np.nan), np.full(shape, np.nan)
    for number in range(times[0].month - 1, (times[-1].year - first) * 12 + times[-1].month):
        year, month = divmod(number, 12)
        inside = np.asarray((times.year == first + year) & (times.month == month + 1))
        counts[year, month] = inside.sum()
        shares[year, month] = valid[inside].any(axis=0).mean() if inside.any() else 0
    return shares, counts


def _calendar(
    figure: "Figure", axes: "Axes", shares: FloatArray, counts: FloatArray, times: pd.DatetimeIndex
) -> None:
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(12), _MONTHS)
    axes.set_yticks(range(len(shares)), [str(times[0].year + year) for year in range(len(shares))])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(0.5, 11), minor=True)
    axes.set_yticks(np.arange(0.5, len(shares) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for (year, month), count in np.ndenumerate(counts):
        if np.isfinite(count):
            dark = shares[year, month] < 0.55  # noqa: PLR2004
            axes.text(
                month, year, f"{count:.0f}" if count else "none", ha="center", va="center", fontsize=7.5,
                color="white" if dark else INK,
            )  # fmt: skip
    tall = 0.3 * len(shares) + 0.35  # inches
    bar = figure.colorbar(
        image, ax=axes, shrink=min(1, 1.2 / tall), aspect=9, pad=0.015, ticks=[0, 0.5, 1], anchor=(0, 1)
    )
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    bar.outline.set_visible(False)
    axes.annotate(
        "number: dates of the month", (1, 1), (0, 3), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="bottom", fontsize=7, color=FAINT,
    )  # fmt: skip


def _dates(axes: "Axes", times: pd.DatetimeIndex, shares: FloatArray) -> None:
    open_frame(axes)
    days, empty = times.to_numpy(), shares == 0
    many = len(times) > _MANY
    axes.vlines(days, 0, shares, color=ACCENT[0], linewidth=0.4 if many else 0.9)
    if not many:
        axes.plot(days[~empty], shares[~empty], "o", color=ACCENT[0], markersize=2.6, clip_on=False, zorder=3)
    axes.plot(
        days[empty], shares[empty], "o", color=ACCENT[1], markersize=2.6, markerfacecolor="white",
        clip_on=False, zorder=3,
    )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.set_title(f"Pixels with data, each of {len(times)} dates", pad=8)
    if empty.any():
        axes.annotate(
            f"○ {int(empty.sum())} without any", (1, 1), (0, 5), xycoords="axes fraction",
            textcoords="offset points", ha="right", va="bottom", fontsize=7, color=ACCENT[1],
        )  # fmt: skip
    date_axis(axes)


def date_axis(axes: "Axes") -> None:
    """Label dates as shortly as they can be told apart.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    # Years alone in the corner: the month that stands there by default is only that of the last label.
    formatter: Any = ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator, offset_formats=["", "%Y", "%Y", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M"]
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.margins(x=0.015)
