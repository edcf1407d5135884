"""The frame around a map: coordinates, scale bar, north arrow, and the name of the grid."""

import math
from typing import TYPE_CHECKING, Any

import xarray as xr

from cubekit.cube.contract import geobox_of
from cubekit.exports.style import EMPTY, FAINT, INK, new_figure
from cubekit.typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAP_WIDTH, MAP_HEIGHT = 5.0, 5.6
"""Largest size of the map itself, in inches."""


def map_axes(variable: xr.DataArray, title: str, *, beside: float) -> tuple["Figure", "Axes"]:
    """Return a figure whose axes carry the coordinates of a grid and the name of its CRS.

    Parameters
    ----------
    variable : xarray.DataArray
        On a grid.
    title : str
        Heading.
    beside : float
        Inches kept free to the right, for a legend.

    Returns
    -------
    matplotlib.figure.Figure, matplotlib.axes.Axes
        Sized to the shape of the grid.
    """
    bounds = geobox_of(variable).extent.boundingbox
    ratio = bounds.span_x / bounds.span_y
    width = min(MAP_WIDTH, MAP_HEIGHT * ratio)
    # a strip one pixel high still needs room for its title and ticks
    figure = new_figure(max(width, 1.2) + 0.65 + beside, max(width / ratio, 1.2) + 0.75)
    axes = figure.add_subplot(facecolor=EMPTY)
    axes.set_title(title, pad=8)
    _coordinates(axes, variable)
    return figure, axes


def show_image(
    axes: "Axes",
    image: Array,
    variable: xr.DataArray,
    *,
    cmap: str | None = None,
    limits: tuple[float, float] = (0, 1),
) -> "AxesImage":
    """Draw an image over the extent of a grid, with a scale bar and a north arrow.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        From :func:`map_axes`.
    image : numpy.ndarray
        ``(y, x)`` numbers or ``(y, x, 3)`` colours, of any resolution.
    variable : xarray.DataArray
        On the grid.
    cmap : str, optional
        Colour scale of numbers.
    limits : tuple of float, optional
        Numbers at the ends of the colour scale.

    Returns
    -------
    matplotlib.image.AxesImage
        What was drawn.
    """
    bounds = geobox_of(variable).extent.boundingbox
    extent = (bounds.left, bounds.right, bounds.bottom, bounds.top)
    upside_down = geobox_of(variable).resolution.y > 0
    shown = axes.imshow(
        image, extent=extent, interpolation="nearest", origin="lower" if upside_down else "upper",
        cmap=cmap, vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    _scale_bar(axes, variable)
    return shown


def _coordinates(axes: "Axes", variable: xr.DataArray) -> None:
    """Label the axes: kilometres where the CRS counts in lengths, else degrees."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    metres = _metres(variable)
    size, unit = (1.0, "°") if metres is None else (1000 / metres, "km")
    names = ("Longitude", "Latitude") if metres is None else ("Easting", "Northing")
    for axis, name in zip((axes.xaxis, axes.yaxis), names, strict=True):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / size:,.10g}"))
        axis.set_label_text(f"{name} ({unit})")
    axes.tick_params(axis="y", labelrotation=90)
    for tick in axes.get_yticklabels():
        tick.set_verticalalignment("center")
    axes.annotate(
        _grid_note(variable), (1, 0), (0, -26), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="top", fontsize=7, color=FAINT, annotation_clip=False,
    )  # fmt: skip


def _grid_note(variable: xr.DataArray) -> str:
    """Name CRS and pixel size."""
    box = geobox_of(variable)
    code = "custom projection" if box.crs is None or box.crs.epsg is None else f"EPSG:{box.crs.epsg}"
    return f"{code} · {abs(box.resolution.x):.6g}{'°' if _metres(variable) is None else ' m'} pixels"


def _scale_bar(axes: "Axes", variable: xr.DataArray) -> None:
    """Draw a bar of a round length in the lower left corner, with a north arrow above it."""
    metres = _metres(variable)
    if metres is None:
        return
    bounds = geobox_of(variable).extent.boundingbox
    length = _round_down(bounds.span_x * metres / 4)
    x, y = bounds.left + 0.03 * bounds.span_x, bounds.bottom + 0.03 * bounds.span_y
    halo = _halo(2.6)
    axes.plot(
        [x, x + length / metres], [y, y], color=INK, linewidth=2.4, solid_capstyle="butt",
        path_effects=_halo(5.2),
    )  # fmt: skip
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"  # noqa: PLR2004  (metres a kilometre)
    axes.annotate(text, (x + length / metres / 2, y), (0, 3.5), textcoords="offset points", ha="center",
                  va="bottom", fontsize=8, path_effects=halo)  # fmt: skip
    axes.set_xlim(bounds.left, bounds.right)
    axes.set_ylim(bounds.bottom, bounds.top)
    axes.annotate(
        "N", (0.965, 0.965), (0, -26), xycoords="axes fraction", textcoords="offset points",
        ha="center", va="bottom", fontsize=8.5, weight="bold", path_effects=halo,
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0,
                    "path_effects": _halo(3.2)},
    )  # fmt: skip


def _halo(width: float) -> list[Any]:
    """Return a white rim that keeps marks readable on any map."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width, foreground="white", alpha=0.9), Normal()]


def _round_down(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10 ** math.floor(math.log10(length))
    return float(power * max(step for step in (1, 2, 5) if step * power <= length))


def _metres(variable: xr.DataArray | xr.Dataset) -> float | None:
    """Return how many metres a unit of the CRS has, None for degrees."""
    crs = geobox_of(variable).crs
    if crs is None or crs.geographic:
        return None
    return float(crs.proj.axis_info[0].unit_conversion_factor)


def pixel_area(variable: xr.DataArray | xr.Dataset) -> float | None:
    """Return the area of a pixel.

    Parameters
    ----------
    variable : xarray.DataArray or xarray.Dataset
        On a grid.

    Returns
    -------
    float or None
        Square kilometres; None where the CRS counts in degrees.
    """
    box = geobox_of(variable)
    metres = _metres(variable)
    if metres is None:
        return None
    return abs(float(box.resolution.x) * float(box.resolution.y)) * (metres / 1000) ** 2


def area_text(square_kilometres: float) -> str:
    """Write an area in the unit that suits its size: hectares below one square kilometre.

    Parameters
    ----------
    square_kilometres : float
        The area.

    Returns
    -------
    str
        Number and unit.
    """
    if square_kilometres < 1:
        return f"{100 * square_kilometres:,.1f} ha"
    return f"{square_kilometres:,.2f} km²"
