"""Several class maps of one place side by side, with one legend."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cubekit.cube.contract import geobox_of
from cubekit.errors import ExportError
from cubekit.exports.maps import coloured, thinned
from cubekit.exports.style import FAINT, new_figure, styled
from cubekit.exports.variable import NODATA, class_bytes, classes_of
from cubekit.labels import ClassTable
from cubekit.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 4
"""Most maps in a row."""

_SIDE = 2.3  # inches of the longer side of a map


def panels_figure(
    maps: Mapping[str, xr.DataArray], *, notes: Mapping[str, str] | None = None, title: str | None = None
) -> "Figure":
    """Draw class maps side by side.

    Parameters
    ----------
    maps : mapping
        Heading to a class map ``(y, x)`` with the attribute ``classes``; all of one grid. Classes are the
        same where their names are; colours and order are those of the last map.
    notes : mapping, optional
        Heading to a few words below it, such as a score.
    title : str, optional
        Heading of the whole.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot. Large maps are thinned.

    Raises
    ------
    ExportError
        If there is no map, one has no classes, or the maps lie on different grids.
    """
    _check(maps)
    table = _common(maps)
    shape = next(iter(maps.values())).shape
    width, height = (_SIDE * side / max(shape) for side in shape[::-1])
    across = min(ACROSS, len(maps))
    down = -(-len(maps) // across)
    legend = 0.35 + 0.22 * -(-len(table) // across)
    with styled():
        figure = new_figure(
            across * (max(width, 1.0) + 0.15) + 0.1, down * (height + 0.5) + legend + 0.3 * bool(title)
        )
        if title:
            figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
        for number, (name, data) in enumerate(maps.items(), 1):
            axes = figure.add_subplot(down, across, number)
            own = classes_of(data) or table
            few = _recoded(thinned(class_bytes(data)).compute().to_numpy(), own, table)
            if geobox_of(data).resolution.y > 0:  # rows from south to north
                few = few[::-1]
            axes.imshow(coloured(few, table), interpolation="nearest")
            axes.set_title(name, fontsize=8.5, pad=14)
            axes.set_xticks([])
            axes.set_yticks([])
            note = (notes or {}).get(name, "")
            axes.annotate(
                note, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=7,
                color=FAINT,
            )  # fmt: skip
        _legend(figure, table, across)
        return figure


def _check(maps: Mapping[str, xr.DataArray]) -> None:
    """Raise unless all are class maps of one grid."""
    if not maps:
        raise ExportError("There is no map to draw.")
    first = geobox_of(next(iter(maps.values())))
    for name, each in maps.items():
        if each.dims != ("y", "x") or "classes" not in each.attrs:
            raise ExportError(
                f"{name!r} is no class map: it has dims {each.dims} and attributes {[*each.attrs]}."
            )
        if geobox_of(each) != first:
            raise ExportError(f"{name!r} lies on another grid than {next(iter(maps))!r}.")


def _common(maps: Mapping[str, xr.DataArray]) -> ClassTable:
    """Return the classes of all maps by name, with the colours and order of the last map that has them."""
    colours: dict[str, str] = {}
    for each in reversed(maps.values()):
        table = classes_of(each) or ClassTable.of([])
        for name, colour in zip(table.names, table.colours, strict=True):
            colours.setdefault(name, colour)
    return ClassTable.of(list(colours), colours=colours)


def _recoded(values: Array, own: ClassTable, table: ClassTable) -> Array:
    """Give classes their numbers in another table; nodata stays."""
    numbers = np.full(NODATA + 1, NODATA, "uint8")
    numbers[: len(own)] = [table.names.index(name) for name in own.names]
    recoded: Array = numbers[values]
    return recoded


def _legend(figure: "Figure", table: ClassTable, across: int) -> None:
    """List the classes below all maps."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.4, label=name)
        for name, colour in zip(table.names, table.colours, strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=min(len(handles), across), handlelength=1.2
    )
