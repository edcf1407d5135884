"""The series of one pixel: what was observed, what was filled, and where there is nothing."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN, check_cube, geobox_of, to_physical
from cubekit.errors import OptionError, UnknownNameError, did_you_mean
from cubekit.exports.style import ACCENT, FAINT, new_figure, open_frame, styled
from cubekit.look.coverage import date_axis
from cubekit.look.pictures import kept, unit_label, unit_of
from cubekit.typing import Array, BoolArray, StrPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LIGHT = dict.fromkeys(("blue", "B02", "B2"), ACCENT[0])
_LIGHT |= dict.fromkeys(("red", "B04", "B4"), ACCENT[1]) | dict.fromkeys(("green", "B03", "B3"), ACCENT[2])
_MOST = 6  # lines that can be told apart
_MANY = 60  # dates from which on marks become small


def point_series(
    cube: xr.Dataset,
    x: float,
    y: float,
    *,
    crs: str | None = None,
    bands: Sequence[str] | str | None = None,
    path: StrPath | None = None,
) -> "Figure":
    """Draw the series of the pixel at a point.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory. Only the blocks over the pixel are computed.
    x, y : float
        Coordinates of the point.
    crs : str, optional
        Of `x` and `y`, as ``"EPSG:4326"`` for longitude and latitude. Default: that of the cube.
    bands : sequence of str, optional
        One to six. Default: the first six.
    path : path, optional
        PNG to write too.

    Returns
    -------
    matplotlib.figure.Figure
        Full marks are observations. Where the cube has the variable ``filled``, open ones are dates of which
        some band was filled. Ticks at the bottom are dates without any data.

    Raises
    ------
    OptionError
        For a point outside the grid, or too many bands.
    UnknownNameError
        For a band that the cube lacks.
    """
    check_cube(cube)
    names = _names(cube, bands)
    row, col = _pixel(cube, x, y, crs)
    here = cube.isel(y=row, x=col).sel(band=names)
    wanted = [name for name in (MAIN, "filled") if name in here]
    here = here[wanted].compute()
    values = to_physical(here[MAIN]).to_numpy()
    filled = here["filled"].to_numpy() if "filled" in here else np.zeros(len(values), bool)
    with styled():
        figure = new_figure(7.4, 3.3)
        axes = figure.add_subplot()
        open_frame(axes)
        times, colours = here["time"].to_numpy(), _colours(cube, names)
        for number, name in enumerate(names):
            _line(axes, times, values[:, number], filled, (colours[number], name))
        _without(axes, times, ~np.isfinite(values).any(axis=1))
        if filled.any():
            style: dict[str, Any] = {"markerfacecolor": "white", "color": FAINT, "linestyle": ""}
            axes.plot([], [], "o", markersize=3.6, label="filled", **style)
        axes.set_ylabel(_label(cube, names))
        axes.set_title(_where(cube, row, col), pad=8)
        date_axis(axes)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, labelspacing=0.6)
    return kept(figure, path)


def _names(cube: xr.Dataset, bands: Sequence[str] | str | None) -> list[str]:
    present = [str(name) for name in cube.indexes["band"]]
    names = present[:_MOST] if bands is None else [bands] if isinstance(bands, str) else list(bands)
    for name in names:
        if name not in present:
            raise UnknownNameError(f"There is no band {name!r}. {did_you_mean(name, present)}")
    if not 1 <= len(names) <= _MOST:
        raise OptionError(f"bands={names}: a picture shows one to {_MOST} series.")
    return names


def _label(cube: xr.Dataset, names: list[str]) -> str:
    """Name the axis: by the band, or by the unit that all share."""
    units = {unit_of(cube, name) for name in names}
    if len(names) == 1:
        return unit_label(cube, names[0])
    return next(iter(units)).capitalize() or "Value" if len(units) == 1 else "Value, in the unit of each band"


def _colours(cube: xr.Dataset, names: list[str]) -> list[str]:
    """Choose colours: those that bands of light have by name, others for the rest."""
    common: dict[str, str] = json.loads(cube.attrs.get("common_names", "{}"))
    own = {_LIGHT.get(common.get(name, name)): name for name in reversed(names)}
    left = iter([colour for colour in ACCENT if colour not in own])
    chosen = {name: colour for colour, name in own.items() if colour is not None}
    return [chosen.get(name) or next(left) for name in names]


def _pixel(cube: xr.Dataset, x: float, y: float, crs: str | None) -> tuple[int, int]:
    """Return row and column of a point."""
    box = geobox_of(cube)
    if crs is not None:
        from pyproj import Transformer

        x, y = Transformer.from_crs(crs, str(box.crs), always_xy=True).transform(x, y)
    col, row = ~box.transform * (x, y)
    if not (0 <= row < box.shape.y and 0 <= col < box.shape.x):
        bounds = tuple(round(edge, 2) for edge in box.boundingbox.bbox)
        raise OptionError(
            f"The point ({x:g}, {y:g}) lies outside the cube, which covers {bounds} in {box.crs}. For "
            "longitude and latitude give crs='EPSG:4326'."
        )
    return int(row), int(col)


def _where(cube: xr.Dataset, row: int, col: int) -> str:
    """Name a pixel by its coordinates."""
    from pyproj import Transformer

    box = geobox_of(cube)
    x, y = box.transform * (col + 0.5, row + 0.5)
    lon, lat = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True).transform(x, y)
    place = f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"
    return f"Pixel at {place} (row {row}, column {col})"


def _line(axes: "Axes", times: Array, values: Array, filled: BoolArray, look: tuple[str, str]) -> None:
    """Draw one band; a line joins what there is."""
    known = np.isfinite(values)
    colour, name = look
    size = 2.4 if len(times) > _MANY else 3.6
    axes.plot(times[known], values[known], color=colour, linewidth=1.0, alpha=0.55)
    full, hollow = known & ~filled, known & filled
    axes.plot(times[full], values[full], "o", color=colour, markersize=size, label=name, linestyle="")
    axes.plot(
        times[hollow], values[hollow], "o", color=colour, markersize=size, markerfacecolor="white",
        markeredgewidth=0.9, linestyle="",
    )  # fmt: skip


def _without(axes: "Axes", times: Array, empty: BoolArray) -> None:
    """Mark dates without data."""
    if not empty.any():
        return
    axes.plot(
        times[empty], np.zeros(int(empty.sum())), "|", color=FAINT, markersize=5, markeredgewidth=0.8,
        transform=axes.get_xaxis_transform(), clip_on=False, label=f"no data ({int(empty.sum())})",
    )  # fmt: skip
