"""Pictures of a cube: one date as a map, many dates side by side."""

import json
import os
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cubekit.cube.contract import check_cube, encoding_of, is_valid, to_physical
from cubekit.errors import OptionError, UnknownNameError, did_you_mean
from cubekit.exports.cartography import map_axes, show_image
from cubekit.exports.style import EMPTY, FAINT, INK, new_figure, save_figure, styled
from cubekit.exports.variable import rgb_of
from cubekit.look.sample import sample
from cubekit.typing import Array, FloatArray, IntArray, StrPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 1200
"""Pixels along the longer side of a quicklook."""

SMALL = 240
"""Pixels along the longer side of one picture of a strip."""

DATES = 24
"""Pictures of a strip."""

GAMMA = 1.4
"""Lifts the dark half of colour pictures, where vegetation and water lie."""

_TRUE_COLOUR = (("red", "B04", "B4"), ("green", "B03", "B3"), ("blue", "B02", "B2"))
_SCALE = "viridis"
_ACROSS = 6
_TINY = 64  # pixels along the longer side from which dates are judged


def quicklook(
    cube: xr.Dataset,
    *,
    time: int | str | None = None,
    bands: Sequence[str] | str | None = None,
    path: StrPath | None = None,
) -> "Figure":
    """Draw one date of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory. Every n-th pixel is drawn, and of cubes of which
        that would read over 2 GB, the middle.
    time : int or str, optional
        Place of a date, or a day of which the nearest date is taken. Default: the date with most data, of
        several the darkest, which has the fewest clouds.
    bands : sequence of str, optional
        Three for red, green and blue, or one. Default: true colour where the cube has its bands, else the
        first band.
    path : path, optional
        PNG to write too.

    Returns
    -------
    matplotlib.figure.Figure
        Colours run from the 2nd to the 98th percentile of each band; grey is no data. Not known to pyplot.

    Raises
    ------
    UnknownNameError
        For a band that the cube lacks.
    OptionError
        For two, or more than three bands, or a date that is none.
    """
    check_cube(cube)
    names = picture_bands(cube, bands)
    place = _clearest(cube, names) if time is None else _place(cube, time)
    thin, area, note = sample(cube, longest=LONGEST, times=[place], bands=names)
    values = to_physical(thin).transpose("time", "y", "x", "band").to_numpy()
    low, high = limits(values)
    day = _days(cube, cube.indexes["time"].to_numpy()[[place]])[0]
    heading = f"{_called(names, bands)}, {day}" + (f" ({note})" if note else "")
    with styled():
        flat = area.isel(time=0, band=0)
        figure, axes = map_axes(flat, heading, beside=0.1 if len(names) > 1 else 0.9)
        if len(names) > 1:
            show_image(axes, coloured(values[0], low, high), flat)
        else:
            ends = (float(low[0]), float(high[0]))
            image = show_image(axes, values[0, :, :, 0], flat, cmap=_SCALE, limits=ends)
            _bar(figure, image, axes, unit_label(cube, names[0]))
    return kept(figure, path)


def time_strip(
    cube: xr.Dataset,
    *,
    dates: int = DATES,
    bands: Sequence[str] | str | None = None,
    path: StrPath | None = None,
) -> "Figure":
    """Draw many dates of a cube side by side, in one stretch of colours.

    Parameters
    ----------
    cube : xarray.Dataset
        As for :func:`quicklook`.
    dates : int, optional
        Pictures at most; longer cubes are cut into as many equal spans of time, of each of which the date
        with most data is drawn.
    bands : sequence of str, optional
        As for :func:`quicklook`.
    path : path, optional
        PNG to write too.

    Returns
    -------
    matplotlib.figure.Figure
        Above each picture its date and the share of its pixels that have data. Of colours, the ends of the
        scale are those of middling dates, so that a few cloudy ones do not darken the others.

    Raises
    ------
    UnknownNameError, OptionError
        As :func:`quicklook`; and for less than one picture.
    """
    check_cube(cube)
    if dates < 1:
        raise OptionError(f"dates={dates!r}: give the number of pictures, at least 1.")
    names = picture_bands(cube, bands)
    count = cube.sizes["time"]
    places = _best_of_spans(cube, dates, names)
    thin, _, note = sample(cube, longest=SMALL, times=places.tolist(), bands=names)
    shares = is_valid(thin, encoding_of(thin).nodata).any("band").mean(("y", "x")).to_numpy()
    values = to_physical(thin).transpose("time", "y", "x", "band").to_numpy()
    low, high = limits(values)
    days = _days(cube, thin["time"].to_numpy())
    shown = f"{len(places)} dates" if len(places) == count else f"{len(places)} of {count} dates"
    heading = f"{_called(names, bands)}: {shown}" + (f", {note}" if note else "")
    flip = bool(thin["y"][-1] > thin["y"][0]) if thin.sizes["y"] > 1 else False
    with styled():
        figure, panels = _panels(len(places), thin.sizes["y"] / thin.sizes["x"])
        figure.suptitle(heading, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        image = None
        for axes, picture, day, share in zip(panels, values, days, shares, strict=True):
            axes.set_facecolor(EMPTY)
            options: dict[str, Any] = {"interpolation": "nearest", "origin": "lower" if flip else "upper"}
            if len(names) > 1:
                axes.imshow(coloured(picture, low, high), **options)
            else:
                image = axes.imshow(picture[:, :, 0], cmap=_SCALE, vmin=low[0], vmax=high[0], **options)
            axes.set_title(day, fontsize=7.5, fontweight="normal", pad=3)
            axes.set_title(
                f"{100 * share:.0f} %", loc="right", fontsize=6.5, fontweight="normal", color=FAINT, pad=3
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("#cccccc")
        if image is not None:
            _bar(figure, image, panels, unit_label(cube, names[0]))
    return kept(figure, path)


def _best_of_spans(cube: xr.Dataset, dates: int, names: tuple[str, ...]) -> IntArray:
    """Return the places of the dates to draw."""
    count = cube.sizes["time"]
    if count <= dates:
        return np.arange(count)
    thin, _, _ = sample(cube, longest=_TINY, bands=names[:1])
    shares = is_valid(thin, encoding_of(thin).nodata).mean(("band", "y", "x")).to_numpy()
    times = cube.indexes["time"].to_numpy()
    span = ((times - times[0]) / (times[-1] - times[0]) * dates).astype(int).clip(max=dates - 1)
    best = [
        int(places[shares[places].argmax()]) for n in range(dates) if len(places := np.flatnonzero(span == n))
    ]
    return np.array(best)


def _panels(count: int, ratio: float) -> tuple["Figure", list[Any]]:
    """Return a figure with as many frames of one shape."""
    across = min(_ACROSS, count)
    down = ceil(count / across)
    width = 1.25 if count > 1 else 3.0
    height = min(max(width * ratio, 0.3), 3 * width)
    figure = new_figure(max(across * (width + 0.12) + 0.2, 3.6), down * (height + 0.3) + 0.45)
    return figure, [figure.add_subplot(down, across, number + 1) for number in range(count)]


def picture_bands(cube: xr.Dataset, bands: Sequence[str] | str | None) -> tuple[str, ...]:
    """Choose what to draw.

    Parameters
    ----------
    cube : xarray.Dataset
        Cube.
    bands : sequence of str or None
        Names as the user gave them.

    Returns
    -------
    tuple of str
        One band or three, true colour where nothing is asked for.

    Raises
    ------
    UnknownNameError
        For a band that the cube lacks.
    OptionError
        For another number of bands.
    """
    present = [str(name) for name in cube.indexes["band"]]
    if bands is not None:
        names = (bands,) if isinstance(bands, str) else tuple(bands)
        for name in names:
            if name not in present:
                raise UnknownNameError(f"There is no band {name!r}. {did_you_mean(name, present)}")
        if len(names) not in {1, len(_TRUE_COLOUR)}:
            raise OptionError(f"bands={list(names)}: a picture shows three bands, or one.")
        return names
    common: dict[str, str] = json.loads(cube.attrs.get("common_names", "{}"))
    found = [
        next((name for name in present if name in names or common.get(name) == names[0]), None)
        for names in _TRUE_COLOUR
    ]
    return tuple(str(name) for name in found) if all(found) else (present[0],)


def limits(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the colour scales.

    Parameters
    ----------
    values : numpy.ndarray
        (time, y, x, band), NaN without data.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        One band: the 2nd and the 98th percentile of all pixels. Three: of these percentiles date by date, the
        lower fifth and the median, among dates with at least half as much data as the fullest. 0 and 1
        without any data.
    """
    dates = [date[np.isfinite(date).all(axis=-1)] for date in values]
    most = max(map(len, dates))
    if not most:
        return np.zeros(values.shape[-1]), np.ones(values.shape[-1])
    if values.shape[-1] == 1:
        dates = [np.concatenate(dates)]
    ends = np.stack([np.percentile(date, (2, 98), axis=0) for date in dates if 2 * len(date) >= most])
    low, high = np.quantile(ends[:, 0], 0.2, axis=0), np.median(ends[:, 1], axis=0)
    return np.asarray(low), np.maximum(high, low + 1e-9)


def coloured(values: FloatArray, low: FloatArray, high: FloatArray) -> Array:
    """Return bands as colours.

    Parameters
    ----------
    values : numpy.ndarray
        (y, x, 3), NaN without data.
    low, high : numpy.ndarray
        Ends of the scales, shape (3,).

    Returns
    -------
    numpy.ndarray
        (y, x, 3), 0 to 1, brightened; grey where a band has no data.
    """
    known = np.isfinite(values).all(axis=-1, keepdims=True)
    scaled = np.clip((np.where(known, values, 0) - low) / (high - low), 0, 1) ** (1 / GAMMA)
    return np.where(known, scaled, np.array(rgb_of(EMPTY)) / 255)


def unit_label(cube: xr.Dataset, name: str) -> str:
    """Say what the numbers of a band are, with their unit where the cube or the catalog knows it.

    Parameters
    ----------
    cube : xarray.Dataset
        Cube.
    name : str
        Band.

    Returns
    -------
    str
        Such as ``"B04 (reflectance)"``.
    """
    unit = unit_of(cube, name)
    return f"{name} ({unit})" if unit else name


def unit_of(cube: xr.Dataset, name: str) -> str:
    """Return the unit of a band.

    Parameters
    ----------
    cube : xarray.Dataset
        Cube.
    name : str
        Band.

    Returns
    -------
    str
        From the attributes, else from the catalog; empty where neither knows it.
    """
    from cubekit.catalog import open_catalog

    if (units := cube["data"].attrs.get("units", "1")) != "1":
        return str(units)
    try:
        band = open_catalog().collection(str(cube.attrs.get("collection", ""))).band(name)
    except UnknownNameError:
        return ""
    return band.unit if band.unit != "1" else "reflectance" if band.wavelength else ""


def _bar(figure: "Figure", image: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, extend="both", label=label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK)


def _called(names: tuple[str, ...], bands: Sequence[str] | str | None) -> str:
    """Name what is drawn."""
    if len(names) == 1:
        return names[0]
    return "True colour" if bands is None else f"{', '.join(names)} as red, green, blue"


def _days(cube: xr.Dataset, times: Array) -> list[str]:
    """Write dates; composites of months by their month, seasons by their name."""
    if "season" in cube.coords:
        return [str(name) for name in cube["season"].sel(time=times).to_numpy()]
    months = str(cube.attrs.get("composite", "")).endswith(("every 1MS", "every MS"))
    return [str(day) for day in np.datetime_as_string(times, unit="M" if months else "D")]


def _place(cube: xr.Dataset, time: int | str) -> int:
    count = cube.sizes["time"]
    if isinstance(time, int):
        if not -count <= time < count:
            raise OptionError(f"time={time}: the cube has {count} dates, 0 to {count - 1}.")
        return time % count
    try:
        wanted = np.datetime64(time)
    except ValueError as error:
        raise OptionError(f"time={time!r} is not a date; write '2023-05-14'.") from error
    return int(np.abs(cube.indexes["time"].to_numpy() - wanted).argmin())


def _clearest(cube: xr.Dataset, names: tuple[str, ...]) -> int:
    """Return the darkest of the dates that have nearly as much data as any: unmasked clouds are bright."""
    if cube.sizes["time"] == 1:
        return 0
    thin, _, _ = sample(cube, longest=_TINY, bands=names[-1:])
    values = to_physical(thin).to_numpy().reshape(thin.sizes["time"], -1)
    count = np.isfinite(values).sum(axis=1)
    candidates = np.flatnonzero(count >= 0.95 * count.max()) if count.any() else np.array([], int)
    if not candidates.size:
        return 0
    if len(names) == 1:  # of an index, bright is not cloudy
        return int(count.argmax())
    return int(candidates[np.nanmedian(values[candidates], axis=1).argmin()])


def kept(figure: "Figure", path: StrPath | None) -> "Figure":
    """Write a figure where a path is given.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure.
    path : path or None
        PNG to write.

    Returns
    -------
    matplotlib.figure.Figure
        The same.
    """
    if path is not None:
        save_figure(figure, os.fspath(path))
    return figure
