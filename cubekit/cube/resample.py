"""Where the pixels of a target grid lie in a source, and what their values are there.

Every step depends on a pixel's position in its CRS alone, never on the block it is computed in, so a cube is
the same for any chunk sizes. GDAL's warper does not promise that: it approximates the transformation along
each scan line of the block that it is given, which moves nearest neighbours between blocks.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from odc.geo.geobox import GeoBox

from cubekit.cube.compiled import is_on
from cubekit.cube.places import Meshed, Nodes, Positions, mesh_of
from cubekit.cube.project import project
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

Resampling: TypeAlias = Literal["nearest", "bilinear", "cubic", "average", "mode", "min", "max"]
"""How values between pixels are found; the last five run in GDAL."""

RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "mode", "min", "max")

_Pair: TypeAlias = tuple[IntArray, IntArray]

_SNAP = 1e-6  # of a pixel: positions this near to an edge are on it
_ROUNDING = 1e-9  # of a pixel: more than float64 can move a place between two nodes beyond both
_NODE_METRES = 1000.0  # the transformation is exact on nodes this far apart, linear between: under 0.02 m off
_DEGREE_METRES = 111_320.0
_HALF_TURN = 180.0


@dataclass(frozen=True)
class Window:
    """Rows and columns of a source, stop excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a block lies in a file; all files of one grid share it."""

    where: Positions
    """Places of the block's pixels in the file."""

    window: Window
    """Rows and columns of the file that are needed."""

    prepared: dict[str, Any] = field(default_factory=dict)
    """What kernels have worked out of it, by name: done once for all bands and dates."""


@dataclass(frozen=True)
class Pixels:
    """Values on a target grid, and which of them are data."""

    values: Array
    """Shape (y, x); arbitrary where not valid."""

    valid: BoolArray
    """Shape (y, x)."""


def positions(source: GeoBox, target: GeoBox) -> Positions:
    """Find the centres of a target's pixels in a source.

    Parameters
    ----------
    source : odc.geo.geobox.GeoBox
        Any affine grid: south-up and rotated ones too.
    target : odc.geo.geobox.GeoBox
        A block of an axis-parallel grid.

    Returns
    -------
    Positions
        Exact within one CRS; between two, within 0.02 m of PROJ.
    """
    affine = target.transform
    x_first, x_part = _numbering(affine.c, affine.a)
    y_first, y_part = _numbering(affine.f, affine.e)
    columns = x_first + np.arange(target.shape.x)
    lines = y_first + np.arange(target.shape.y)
    if source.crs == target.crs:
        x = (columns + (x_part + 0.5)) * affine.a
        y = (lines + (y_part + 0.5)) * affine.e
        return to_pixels(source, x[None, :], y[:, None])
    step = _node_step(target)
    while True:
        x_nodes, y_nodes = _nodes(columns, step), _nodes(lines, step)
        at = np.meshgrid((x_nodes + (x_part + 0.5)) * affine.a, (y_nodes + (y_part + 0.5)) * affine.e)
        x, y = project(str(target.crs), str(source.crs), *at)
        if step == 1 or not _jumps(x):
            break
        step = 1  # a jump at the 180° meridian cannot be interpolated
    found = to_pixels(source, x, y)
    if step == 1:
        return Positions(*(part[: lines.size, : columns.size] for part in (found.rows, found.cols)))
    past = (int(lines[0] - y_nodes[0]), int(columns[0] - x_nodes[0]))
    return Meshed(Nodes(found.rows, found.cols, step, past, target.shape.yx))


def _numbering(origin: float, size: float) -> tuple[int, float]:
    """Return a number counted from the zero of the CRS for the first pixel, and the rest all blocks share."""
    exact = origin / size
    first = int(np.floor(exact + _SNAP))
    return first, round(max(exact - first, 0.0), 6)


def _nodes(numbers: IntArray, step: int) -> IntArray:
    """Return the multiples of a step around numbers, at least two; the same ones for any block."""
    first = numbers[0] // step
    return np.arange(first, max((numbers[-1] - 1) // step, first) + 2) * step


def _node_step(target: GeoBox) -> int:
    degrees = target.crs is not None and target.crs.geographic
    size = abs(target.resolution.x) * (_DEGREE_METRES if degrees else 1.0)
    return int(2 ** np.clip(np.floor(np.log2(_NODE_METRES / size)), 0, 6))


def _jumps(x: FloatArray) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((np.abs(np.diff(x, axis=1)) > _HALF_TURN).any()) and bool(
            np.nanmax(np.abs(x), initial=0) <= 2 * _HALF_TURN
        )


def to_pixels(source: GeoBox, x: FloatArray, y: FloatArray) -> Positions:
    """Turn places in the CRS of a grid into places in its pixels.

    Parameters
    ----------
    source : odc.geo.geobox.GeoBox
        Any affine grid.
    x, y : numpy.ndarray
        Coordinates; of shapes (1, x) and (y, 1), or equal ones.

    Returns
    -------
    Positions
        Of the same shapes on parallel axes, else of the common shape.
    """
    inverse = ~source.transform
    if inverse.b == 0 and inverse.d == 0:
        return Positions(rows=inverse.e * y + inverse.f, cols=inverse.a * x + inverse.c)
    return Positions(
        rows=inverse.d * x + inverse.e * y + inverse.f, cols=inverse.a * x + inverse.b * y + inverse.c
    )


def window_of(where: Positions, shape: tuple[int, int], margin: int) -> Window | None:
    """Return the part of a source that positions need.

    Parameters
    ----------
    where : Positions
        From :func:`positions`.
    shape : tuple of int
        Rows and columns of the source.
    margin : int
        Pixels to add on each side for kernels that look around.

    Returns
    -------
    Window or None
        None where no position falls into the source.
    """
    if isinstance(where, Meshed):
        corners = where.nodes.corners()
        if covered(corners, shape).all():
            where = corners  # what lies between them is no further out
        elif is_on():
            return _window_compiled(where, shape, margin)
    spans = []
    for values, size in ((where.rows, shape[0]), (where.cols, shape[1])):
        with np.errstate(invalid="ignore"):
            inside = np.isfinite(values) & (values > -_SNAP) & (values < size + _SNAP)
        spans.append((inside, values, size))
    if where.rows.shape == where.cols.shape:
        both = spans[0][0] & spans[1][0]
        spans = [(both, values, size) for _, values, size in spans]
    edges = []
    for inside, values, size in spans:
        if not inside.any():
            return None
        low, high = values[inside].min() - _ROUNDING, values[inside].max() + _ROUNDING
        first = int(np.clip(np.floor(low + _SNAP) - margin, 0, size - 1))
        edges.append((first, int(np.clip(np.floor(high + _SNAP) + 1 + margin, first + 1, size))))
    return Window(edges[0][0], edges[1][0], edges[0][1], edges[1][1])


def _window_compiled(where: Meshed, shape: tuple[int, int], margin: int) -> Window | None:
    """Do as `window_of`, without places of all pixels in memory."""
    from cubekit.cube import warp_kernels

    reach: Any = warp_kernels.reach
    target = where.nodes.shape
    first, last, left, right = (int(number) for number in reach(*mesh_of(where, target), shape, target))
    if last < 0:
        return None
    top, bottom = max(first - margin, 0), min(last + 1 + margin, shape[0])
    return Window(top, max(left - margin, 0), bottom, min(right + 1 + margin, shape[1]))


def covered(where: Positions, shape: tuple[int, int]) -> BoolArray:
    """Tell which positions fall into a source.

    Parameters
    ----------
    where : Positions
        From :func:`positions`.
    shape : tuple of int
        Rows and columns of the source.

    Returns
    -------
    numpy.ndarray of bool
        Shape (y, x).
    """
    return np.asarray(index_of(where.rows, 0, shape[0])[1] & index_of(where.cols, 0, shape[1])[1])


def sample_nearest(pixels: Pixels, window: Window, where: Positions) -> Pixels:
    """Take the pixel that each position falls into.

    Parameters
    ----------
    pixels : Pixels
        Of the window.
    window : Window
        Its place in the source.
    where : Positions
        In pixels of the source.

    Returns
    -------
    Pixels
        Shape of the positions, dtype of the source.
    """
    rows, rows_in = index_of(where.rows, window.top, window.bottom)
    cols, cols_in = index_of(where.cols, window.left, window.right)
    if rows.shape == cols.shape:
        inside = rows_in & cols_in
        return Pixels(pixels.values[rows, cols], pixels.valid[rows, cols] & inside)
    inside = rows_in & cols_in
    r, c = rows[:, 0], cols[0, :]
    return Pixels(_outer(pixels.values, r, c), _outer(pixels.valid, r, c) & inside)


def _outer(values: Array, rows: IntArray, cols: IntArray) -> Array:
    """Pick rows and columns; nothing is copied where they are a plain run."""
    for axis, index in enumerate((rows, cols)):
        if (np.diff(index) == 1).all():
            run = slice(int(index[0]), int(index[-1]) + 1)
            values = values[run] if axis == 0 else values[:, run]
        else:
            values = np.take(values, index, axis=axis)
    return values


def index_of(values: FloatArray, start: int, stop: int) -> tuple[IntArray, BoolArray]:
    """Turn places into pixel numbers of a window, and tell which lie inside.

    Parameters
    ----------
    values : numpy.ndarray
        Rows or columns of the source.
    start, stop : int
        Ends of the window.

    Returns
    -------
    tuple of numpy.ndarray
        Numbers from the start of the window, 0 outside of it; and which lie inside.
    """
    with np.errstate(invalid="ignore"):
        index = np.floor(values + _SNAP)
        # The last edge belongs to the last pixel, as the first does to the first.
        index = np.where((index == stop) & (values < stop + _SNAP) & (values > stop - 1), stop - 1, index)
        inside = (index >= start) & (index < stop)
    return np.where(inside, index - start, 0).astype(np.intp), inside


def sample_bilinear(pixels: Pixels, window: Window, where: Positions) -> Pixels:
    """Weigh the four pixels around each position; those without data do not count.

    Parameters
    ----------
    pixels : Pixels
        Of the window.
    window : Window
        Its place in the source.
    where : Positions
        In pixels of the source.

    Returns
    -------
    Pixels
        Floats (float64 for integers wider than 16 bits); valid where the pixel that the position falls into
        is.
    """
    kind = np.result_type(pixels.values.dtype, np.float32)
    weighted = np.where(pixels.valid, pixels.values, 0).astype(kind)
    weight = pixels.valid.astype(kind)
    *r, down = neighbours(where.rows - 0.5 - window.top, weight.shape[0], kind)
    *c, right = neighbours(where.cols - 0.5 - window.left, weight.shape[1], kind)
    # On parallel axes rows are blended before columns are picked: less work, the same numbers.
    blend = _blend_axes if where.on_axes else _blend
    total, share = (blend(part, (r[0], r[1]), (c[0], c[1]), down, right) for part in (weighted, weight))
    valid = sample_nearest(pixels, window, where).valid
    with np.errstate(invalid="ignore", divide="ignore"):
        return Pixels(np.where(valid, total / share, 0).astype(kind), valid)


def neighbours(
    places: FloatArray, size: int, kind: "np.dtype[Any] | type"
) -> tuple[IntArray, IntArray, Array]:
    """Return the pixels before and behind each place, and the share of the one behind.

    Parameters
    ----------
    places : numpy.ndarray
        Along one axis, the centre of the first pixel being 0.
    size : int
        Pixels along that axis; neighbours beyond the rim are moved to it.
    kind : numpy.dtype
        Float type of the share.

    Returns
    -------
    tuple of numpy.ndarray
        Of the shape of `places`.
    """
    first = _base(places, size)
    before, behind = (np.clip(first + step, 0, size - 1).astype(np.intp) for step in (0, 1))
    return before, behind, (places - first).astype(kind)


def _blend(values: Array, rows: _Pair, cols: _Pair, down: Array, right: Array) -> Array:
    """Weigh the four pixels around each place."""
    left, beyond = (values[rows[0], c] * (1 - down) + values[rows[1], c] * down for c in cols)
    return np.asarray(left * (1 - right) + beyond * right)


def _blend_axes(values: Array, rows: _Pair, cols: _Pair, down: Array, right: Array) -> Array:
    """Do as `_blend`, to the last bit, for rows of shape (y, 1) and columns of shape (1, x)."""
    above, below = (np.take(values, r[:, 0], axis=0) for r in rows)
    lines = above * (1 - down) + below * down
    left, beyond = (np.take(lines, c[0], axis=1) for c in cols)
    return np.asarray(left * (1 - right) + beyond * right)


def _base(values: FloatArray, size: int) -> FloatArray:
    """Return the pixel before a place; places outside go to the rim, where they are not valid anyway."""
    whole = np.nan_to_num(np.floor(values), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.clip(whole, -1, size - 1))


def warp(pixels: Pixels, source: GeoBox, target: GeoBox, resampling: str) -> Pixels:
    """Resample with GDAL, for kernels that weigh areas.

    Parameters
    ----------
    pixels : Pixels
        Of the whole of `source`.
    source : odc.geo.geobox.GeoBox
        Grid of the pixels that were read.
    target : odc.geo.geobox.GeoBox
        Wanted grid.
    resampling : str
        Name of a GDAL kernel.

    Returns
    -------
    Pixels
        Floats. Validity goes through GDAL as NaN, so that no legal value is taken for "no data" by any
        release of GDAL (OSGeo/gdal#11711).
    """
    import rasterio.warp
    from rasterio.enums import Resampling as Kernel

    kind = np.result_type(pixels.values.dtype, np.float32)
    values = np.where(pixels.valid, pixels.values, np.nan).astype(kind)
    result = np.full(target.shape, np.nan, kind)
    rasterio.warp.reproject(
        values,
        result,
        src_transform=source.transform,
        src_crs=str(source.crs),
        src_nodata=np.nan,
        dst_transform=target.transform,
        dst_crs=str(target.crs),
        dst_nodata=np.nan,
        resampling=Kernel[resampling],
    )
    return Pixels(result, ~np.isnan(result))
