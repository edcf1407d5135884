"""Few pixels of large cubes: every n-th one, and of cubes too large even for that, the middle."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN, encoding_of, is_valid
from cubekit.typing import IntArray

BUDGET = 2 * 2**30
"""Bytes of blocks, before compression, that a picture may read; it shows the middle of larger cubes."""


def sample(
    cube: xr.Dataset, *, longest: int, times: Sequence[int] | None = None, bands: Sequence[str] | None = None
) -> tuple[xr.DataArray, xr.DataArray, str]:
    """Choose the pixels that a picture needs.

    Parameters
    ----------
    cube : xarray.Dataset
        Lazy or not.
    longest : int
        Pixels along the longer side.
    times : sequence of int, optional
        Places of dates. Default: all.
    bands : sequence of str, optional
        Names. Default: all.

    Returns
    -------
    xarray.DataArray, xarray.DataArray, str
        Stored numbers (time, band, y, x) of each n-th pixel, in memory; the area that they stand for, not
        computed; and what a caption should say about it, empty where the area is whole.
    """
    data = cube[MAIN]
    dates = np.arange(data.sizes["time"]) if times is None else np.asarray(times)
    names = list(data.indexes["band"]) if bands is None else list(bands)
    sides = _sides(data, dates, names)
    middle = {
        dim: slice((data.sizes[dim] - side) // 2, (data.sizes[dim] - side) // 2 + side)
        for dim, side in sides.items()
    }
    area = data.isel(time=dates).sel(band=names).isel(middle)
    step = max(1, ceil(max(sides.values()) / longest))
    thin = area.isel(y=slice(step // 2, None, step), x=slice(step // 2, None, step)).compute()
    whole = all(side == data.sizes[dim] for dim, side in sides.items())
    return thin, area, "" if whole else "middle of the area"


def _sides(data: xr.DataArray, dates: IntArray, bands: Sequence[str]) -> dict[str, int]:
    """Return how many rows and columns, around the middle, can be read within the budget."""
    full = {dim: int(data.sizes[dim]) for dim in ("y", "x")}
    if data.chunks is None:
        return full
    chunks = dict(zip(data.dims, data.chunks, strict=True))
    numbers = data.indexes["band"].get_indexer(list(bands))
    deep = _touched(chunks["time"], dates) * _touched(chunks["band"], numbers)
    share = BUDGET / (deep * full["y"] * full["x"] * data.dtype.itemsize)
    if share >= 1:
        return full
    return {
        dim: min(side, max(int(side * sqrt(share)), max(chunks[dim]) // 2, 1)) for dim, side in full.items()
    }


def _touched(sizes: tuple[int, ...], places: IntArray) -> int:
    """Add up the lengths of the blocks that hold some places."""
    block = np.searchsorted(np.cumsum(sizes), places, side="right")
    return int(np.asarray(sizes)[np.unique(block)].sum())


def valid_share(cube: xr.Dataset) -> xr.DataArray:
    """Return the share of pixels with data.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory.

    Returns
    -------
    xarray.DataArray
        float32 (time, band), 0 to 1, of all pixels of the grid; as lazy as the cube. Every block is read when
        it is computed.
    """
    data = cube[MAIN]
    share: xr.DataArray = is_valid(data, encoding_of(data).nodata).mean(("y", "x"), dtype="float32")
    return share.rename("valid_share").assign_attrs(long_name="share of pixels with data", units="1")
