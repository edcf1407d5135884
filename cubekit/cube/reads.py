"""What a lazy cube will read: windows, bytes and requests, counted from its plan without opening a file."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from cubekit.cube.plan import MISSING, Plan, bounds_on
from cubekit.cube.resample import positions
from cubekit.typing import BoolArray, FloatArray, IntArray

_TILE = 512  # source pixels a side: the usual tile of a COG; a row of tiles is about one request


@dataclass(frozen=True, kw_only=True, eq=False)
class Reads:
    """What the wanted blocks of a cube read at most: a scene below others may turn out not to be needed."""

    windows: IntArray
    """Windows of files that are read of each scene, all layers together, shape (scene,)."""

    pixels: FloatArray
    """Source pixels of each asset, shape (scene, layer)."""

    size: int
    """Bytes of these pixels as stored in memory; compressed files take less."""

    requests: int
    """Range requests to servers: one for the head of each file, one for each row of 512-pixel tiles; tiles
    that two blocks share, and small files, are asked for once, which is fewer."""


def count_reads(plan: Plan, blocks: Iterable[tuple[int, ...]] | None = None) -> Reads:
    """Count what is read.

    Parameters
    ----------
    plan : Plan
        Of the whole cube.
    blocks : iterable of tuple of int, optional
        Numbers along time, band, y and x of the blocks that are wanted. Default: all.

    Returns
    -------
    Reads
        Of these blocks.
    """
    wanted = _wanted(plan, blocks)
    heights, widths = _overlaps(plan, 0), _overlaps(plan, 1)
    touches = (heights > 0).astype(float), (widths > 0).astype(float)
    scenes = len(plan.scenes)
    area, hits, rows = np.zeros(scenes), np.zeros(scenes), np.zeros(scenes)
    edges = np.cumsum((0, *plan.chunks[0]))
    for step, among in enumerate(wanted):
        part = slice(*np.searchsorted(plan.time_of, edges[step : step + 2]))
        high, wide = touches[0][part], touches[1][part]
        area[part] = np.einsum("si,sj,ij->s", heights[part], widths[part], among)
        hits[part] = np.einsum("si,sj,ij->s", high, wide, among)
        rows[part] = np.einsum("si,sj,ij->s", heights[part], wide, among)
    scales = np.array([scale_of(plan, form.geobox) for form in plan.forms] + [(0.0, 0.0)])
    sizes = np.array([np.dtype(form.dtype).itemsize for form in plan.forms] + [0])
    by_asset = scales[plan.form_of]  # MISSING picks the last: nothing
    pixels = area[:, None] * by_asset.prod(axis=-1)
    present = plan.form_of != MISSING
    remote = present & np.array([["://" in href for href in row] for row in plan.hrefs])
    tiles = np.maximum(rows[:, None] * by_asset[..., 0] / _TILE, hits[:, None])
    return Reads(
        windows=(hits[:, None] * present).sum(axis=1).astype(np.int64),
        pixels=pixels,
        size=round(float((pixels * sizes[plan.form_of]).sum())),
        requests=round(float(((tiles + 1) * (remote & (hits > 0)[:, None])).sum())),
    )


def _wanted(plan: Plan, blocks: Iterable[tuple[int, ...]] | None) -> BoolArray:
    """Tell which blocks are wanted, shape (time, y, x)."""
    shape = tuple(len(plan.chunks[axis]) for axis in (0, 2, 3))
    if blocks is None:
        return np.ones(shape, bool)
    wanted = np.zeros(shape, bool)
    for time, _, row, col in blocks:
        wanted[time, row, col] = True
    return wanted


def _overlaps(plan: Plan, axis: int) -> FloatArray:
    """Return how many rows (axis 0) or columns (1) scenes and blocks share, shape (scene, block)."""
    edges = np.cumsum((0, *plan.chunks[axis + 2]))
    first, last = plan.bounds[:, axis, None], plan.bounds[:, axis + 2, None]
    shared = np.minimum(last, edges[1:]) - np.maximum(first, edges[:-1])
    return np.asarray(np.maximum(shared, 0), float)


def scale_of(plan: Plan, source: GeoBox) -> tuple[float, float]:
    """Return how many rows and columns of a file lie under one row and column of the grid.

    Parameters
    ----------
    plan : Plan
        Holds the grid.
    source : odc.geo.geobox.GeoBox
        Grid of the file.

    Returns
    -------
    tuple of float
        In the middle of what the file covers; 0 where it covers nothing.
    """
    top, left, bottom, right = bounds_on(source, plan.grid)
    if bottom <= top or right <= left:
        return 0.0, 0.0
    middle = plan.grid.transform @ Affine.translation((left + right) // 2, (top + bottom) // 2)
    where = positions(source, GeoBox((2, 2), middle, plan.grid.crs))
    # Along both axes, for windows are rectangles of the source; on parallel axes one of the two is 0.
    steps = [
        sum(float(np.abs(np.diff(v, axis=a)).max(initial=0)) for a in (0, 1))
        for v in (where.rows, where.cols)
    ]
    return (steps[0], steps[1]) if np.isfinite(steps).all() else (1.0, 1.0)
