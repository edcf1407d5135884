"""Figures with a map in them: classes or values with legend, true-colour quicklooks, and splits."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN, to_physical
from cubekit.errors import ExportError, UnknownNameError, did_you_mean
from cubekit.exports.cartography import MAP_HEIGHT, MAP_WIDTH, area_text, map_axes, pixel_area, show_image
from cubekit.exports.style import ACCENT, EMPTY, FAINT, new_figure, open_frame, styled
from cubekit.exports.variable import NODATA, choose, class_bytes, classes_of, rgb_of
from cubekit.labels import ClassTable
from cubekit.typing import Array, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 1400
"""Pixels along the longer side of an image in a figure; larger maps are thinned."""

MIDDLE = 1024
"""Pixels a side of the window in which the clearest date is looked for."""

GAMMA = 1.4
"""Lifts the dark half of true-colour images, where vegetation and water lie."""

TRUE_COLOUR = (("red", "B04", "B4"), ("green", "B03", "B3"), ("blue", "B02", "B2"))
"""Names under which the bands of a true-colour image are looked for."""


class Placed(Protocol):
    """What a split map needs of samples; :class:`cubekit.batching.samples.Samples` is one."""

    @property
    def position(self) -> FloatArray:
        """Positions ``(n, 2)``: x, y."""

    def __len__(self) -> int: ...


def map_figure(
    data: xr.Dataset | xr.DataArray, *, variable: str | None = None, title: str | None = None
) -> "Figure":
    """Draw a map with legend, scale bar and coordinates.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        ``(y, x)``, on a grid. A class map (attribute ``classes``) gets a legend with each class's share of
        the classified area and its size; any other variable is decoded and gets a colour bar. Large maps are
        thinned for the picture, not for the shares. If lazy, every block is computed once.
    variable : str, optional
        Which variable of a dataset. Default: ``class``, else the only one.
    title : str, optional
        Default: the title in the attributes, else the name of the variable.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot; :func:`save_figure` writes it.

    Raises
    ------
    ExportError
        If the variable has other dimensions.
    """
    chosen = choose(data, variable)
    if chosen.dims != ("y", "x"):
        raise ExportError(
            f"Variable {chosen.name!r} has dims {chosen.dims}; a map shows (y, x). Select one of the others, "
            "such as .isel(time=0)."
        )
    heading = title or str(chosen.attrs.get("title", chosen.name))
    table = classes_of(chosen)
    with styled():
        return _value_map(chosen, heading) if table is None else _class_map(chosen, table, heading)


def rgb_figure(
    cube: xr.Dataset,
    *,
    time: int | str | None = None,
    bands: Sequence[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw one date of a cube in true colour, stretched between the 2nd and the 98th percentile.

    Parameters
    ----------
    cube : xarray.Dataset
        Cube, lazy or not; only thinned pixels of the needed bands are computed.
    time : int or str, optional
        Index or date. Default: the darkest of the dates with most data, which has the fewest clouds.
    bands : sequence of str, optional
        Three bands for red, green, blue, or one. Default: the true-colour bands under their usual names;
        where the cube has none, its first band in a colour scale.
    title : str, optional
        Default: bands and date.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot.

    Raises
    ------
    UnknownNameError
        If a band is not there.
    ExportError
        If two, or more than three bands are given.
    """
    chosen = _quicklook_bands(cube, bands)
    stored = cube[MAIN].sel(band=list(chosen))
    few = thinned(stored.isel(time=_clearest(stored)) if time is None else _at(stored, time)).compute()
    shown = "true colour" if bands is None and len(chosen) > 1 else ", ".join(chosen)
    heading = title or f"{_spoken(shown)}, {np.datetime_as_string(few['time'].to_numpy(), unit='D')}"
    with styled():
        if len(chosen) == 1:
            flat = few.isel(band=0, drop=True).drop_vars("time").assign_attrs(cube[MAIN].attrs)
            return _value_map(flat.rename(_spoken(chosen[0])), heading)
        physical = to_physical(few).transpose("y", "x", "band").to_numpy()
        figure, axes = map_axes(few, heading, beside=0.1)
        show_image(axes, _stretched(physical), few)
        return figure


def split_figure(
    parts: Mapping[str, Placed],
    *,
    background: xr.DataArray | None = None,
    title: str = "Where the samples lie",
) -> "Figure":
    """Draw where the samples of each part of a split lie.

    Parameters
    ----------
    parts : mapping
        Name of the part (``training``, ``validation``, ``test``) to samples with ``position`` ``(n, 2)``.
    background : xarray.DataArray, optional
        Class map, in the positions' CRS, drawn pale beneath.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot.
    """
    places = {name: np.asarray(part.position, dtype="float64") for name, part in parts.items()}
    known = {name: place[np.isfinite(place).all(axis=1)] for name, place in places.items()}
    with styled():
        if background is not None:
            figure, axes = map_axes(background, title, beside=1.5)
            few = thinned(class_bytes(background))
            table = classes_of(background) or ClassTable.of([])
            pale = coloured(few.to_numpy(), table).astype("float64") * 0.22 + 255 * 0.78
            show_image(axes, pale.astype("uint8"), background)
        else:
            figure, axes = _point_axes(known, title)
        size = float(np.clip(6000 / max(1, sum(map(len, known.values()))), 3, 16))
        for (name, place), colour in zip(known.items(), ACCENT, strict=False):
            axes.scatter(
                place[:, 0], place[:, 1], s=size, color=colour, linewidths=0, label=f"{name} ({len(place):,})"
            )
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, markerscale=(30 / size) ** 0.5
        )
        return figure


def class_areas(variable: xr.DataArray) -> IntArray:
    """Count the pixels of each class.

    Parameters
    ----------
    variable : xarray.DataArray
        Class map with the attribute ``classes``; if lazy, each block is computed once.

    Returns
    -------
    numpy.ndarray
        int64, one number per class.
    """
    table = classes_of(variable) or ClassTable.of([])
    return np.asarray(_histogram(class_bytes(variable)).compute().to_numpy()[: len(table)])


def _class_map(variable: xr.DataArray, table: ClassTable, title: str) -> "Figure":
    """Draw a class map."""
    from dask.base import compute

    coded = class_bytes(variable)
    # together, so that each block is computed once
    few, counts = compute(thinned(coded), _histogram(coded))  # type: ignore[no-untyped-call]
    figure, axes = map_axes(variable, title, beside=1.6)
    show_image(axes, coloured(few.to_numpy(), table), variable)
    _class_legend(axes, table, counts.to_numpy(), pixel_area(variable))
    return figure


def _value_map(variable: xr.DataArray, title: str) -> "Figure":
    """Draw numbers with a colour bar between their 2nd and 98th percentile."""
    values = to_physical(thinned(variable).compute()).to_numpy()
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 1.0)
    figure, axes = map_axes(variable, title, beside=0.9)
    axes.set_facecolor(EMPTY)
    image = show_image(axes, values, variable, cmap="viridis", limits=(low, max(high, low + 1e-12)))
    name = str(variable.attrs.get("long_name", variable.name))
    units = f" ({variable.attrs['units']})" if variable.attrs.get("units") else ""
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, extend="both", label=name + units)
    bar.outline.set_visible(False)
    return figure


def _histogram(coded: xr.DataArray) -> xr.DataArray:
    """Count how often each byte occurs, as lazily as the map."""
    import dask.array as da

    if not coded.chunks:
        return xr.DataArray(np.bincount(coded.to_numpy().ravel(), minlength=NODATA + 1))
    counts, _ = da.histogram(  # type: ignore[no-untyped-call]
        coded.data, bins=np.arange(NODATA + 2)
    )
    return xr.DataArray(counts)


def thinned(variable: xr.DataArray) -> xr.DataArray:
    """Take every n-th pixel, so that the longer side fits a figure.

    Parameters
    ----------
    variable : xarray.DataArray
        With dims ``y`` and ``x``; lazy or not.

    Returns
    -------
    xarray.DataArray
        As lazy, of at most `LONGEST` pixels a side.
    """
    step = max(1, math.ceil(max(variable.sizes["y"], variable.sizes["x"]) / LONGEST))
    return variable.isel(y=slice(step // 2, None, step), x=slice(step // 2, None, step))


def coloured(values: Array, table: ClassTable) -> Array:
    """Return a class map as colours.

    Parameters
    ----------
    values : numpy.ndarray
        ``(y, x)`` uint8 class index, 255 is nodata.
    table : ClassTable
        With the colours.

    Returns
    -------
    numpy.ndarray
        ``(y, x, 3)`` uint8.
    """
    colours = np.full((NODATA + 1, 3), rgb_of(EMPTY), dtype="uint8")
    for index, colour in enumerate(table.colours):
        colours[index] = rgb_of(colour)
    return np.asarray(colours[values])


def _stretched(values: FloatArray) -> FloatArray:
    """Stretch each colour of ``(y, x, 3)`` between its percentiles; pixels without data become grey."""
    known = np.asarray(np.isfinite(values).all(axis=-1))
    if not known.any():
        return np.full(values.shape, np.array(rgb_of(EMPTY)) / 255)
    low, high = np.percentile(values[known], (2, 98), axis=0)
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1) ** (1 / GAMMA)
    return np.where(known[..., None], scaled, np.array(rgb_of(EMPTY)) / 255)


def _quicklook_bands(cube: xr.Dataset, bands: Sequence[str] | None) -> tuple[str, ...]:
    """Return the bands to draw."""
    present = [str(name) for name in cube["band"].to_numpy()]
    if bands is not None:
        for name in bands:
            if name not in present:
                raise UnknownNameError(f"There is no band {name!r}. {did_you_mean(name, present)}")
        if len(bands) not in {1, len(TRUE_COLOUR)}:
            raise ExportError(f"bands={list(bands)}: a picture shows three bands, or one.")
        return tuple(bands)
    found = [next((name for name in names if name in present), None) for names in TRUE_COLOUR]
    return tuple(str(name) for name in found) if all(found) else (present[0],)


def _spoken(name: str) -> str:
    """Write a band as a heading: indices in capitals, words with one."""
    return name.upper() if name in {"ndvi", "evi", "ndwi", "savi"} else name[:1].upper() + name[1:]


def _clearest(variable: xr.DataArray) -> int:
    """Return the darkest of the dates that have nearly as much data as any: unmasked clouds are bright.

    Only the middle of the scene is looked at, since every date of it must be read.
    """
    middle = {
        dim: slice(max(0, variable.sizes[dim] // 2 - MIDDLE // 2), variable.sizes[dim] // 2 + MIDDLE // 2, 8)
        for dim in ("y", "x")
    }
    physical = to_physical(variable.isel(band=-1).isel(middle)).to_numpy().reshape(variable.sizes["time"], -1)
    count = np.isfinite(physical).sum(axis=1)
    if not count.any():
        return 0
    candidates = np.flatnonzero(count >= 0.95 * count.max())
    return int(candidates[np.nanmedian(physical[candidates], axis=1).argmin()])


def _at(variable: xr.DataArray, time: int | str) -> xr.DataArray:
    """Select one date, by index or the nearest to a day."""
    if isinstance(time, int):
        return variable.isel(time=time)
    return variable.sel(time=np.datetime64(time), method="nearest")


def _point_axes(places: Mapping[str, FloatArray], title: str) -> tuple["Figure", "Axes"]:
    """Return a figure for points without a grid."""
    figure = new_figure(MAP_WIDTH + 1.6, MAP_HEIGHT - 1)
    axes = figure.add_subplot()
    axes.set_title(title, pad=8)
    axes.set(xlabel="x", ylabel="y", aspect="equal")
    open_frame(axes, grid=False)
    axes.ticklabel_format(useOffset=False)
    axes.set_aspect("equal", adjustable="datalim")
    del places
    return figure, axes


def _class_legend(axes: "Axes", table: ClassTable, counts: IntArray, area: float | None) -> None:
    """List classes with their colours, shares of the classified area, and areas."""
    from matplotlib.patches import Patch

    known = counts[: len(table)]
    total = max(1, int(known.sum()))
    handles = [Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.4) for colour in table.colours]
    texts = [_entry(name, count, total, area) for name, count in zip(table.names, known, strict=True)]
    missing = int(counts.sum() - known.sum())
    if missing:
        handles.append(Patch(facecolor=EMPTY, edgecolor=FAINT, linewidth=0.4))
        texts.append(f"no data\n{missing / int(counts.sum()):.1%} of the map")
    axes.legend(
        handles, texts, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, labelspacing=0.75,
        handlelength=1.5, handleheight=1.5, title="Share of classified area", title_fontsize=8,
        alignment="left",
    )  # fmt: skip


def _entry(name: str, count: int, total: int, area: float | None) -> str:
    """Write one class of the legend."""
    share = f"{count / total:.1%}"
    return f"{name}\n{share}" if area is None else f"{name}\n{share} · {area_text(count * area)}"
