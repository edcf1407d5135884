"""A second choice for what was never seen clearly."""

import numpy as np
import xarray as xr

from cubekit.cube.blocks import chunks_of, is_lazy, on_blocks, working_memory
from cubekit.cube.contract import DIMS, MAIN, RECIPE, check_cube, encoding_of
from cubekit.cube.kernels import valid_in
from cubekit.errors import CubeError
from cubekit.typing import Array


def fall_back(cube: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Take pixels from another cube at dates where this one has no data in any band.

    For composites of which some pixels had no clear date: the composite without the mask lends them its
    values, clouds and all. Filling in time (:func:`cubekit.fill_gaps`) is the better rule where series are
    dense; this one keeps to what was measured in the period.

    Parameters
    ----------
    cube : xarray.Dataset
        Preferred.
    other : xarray.Dataset
        On the same grid and dates, with the same bands and coding. Both are read: scenes behind both are read
        twice.

    Returns
    -------
    xarray.Dataset
        The first, with ``data`` completed, nodata where neither has any; as lazy as it was. Pixels that have
        some bands are left as they are. Other variables, such as ``observations``, stay those of the first.

    Raises
    ------
    CubeError
        If the cubes differ in grid, dates, bands or coding, or have no nodata value.
    """
    for each in (cube, other):
        check_cube(each)
    ours, theirs = encoding_of(cube[MAIN]), encoding_of(other[MAIN])
    alike = all(cube[name].equals(other[name]) for name in ("time", "band", "y", "x"))
    if not alike or repr(ours) != repr(theirs):  # NaN differs from itself
        raise CubeError(
            "The two cubes differ in grid, dates, bands or coding: open the same scenes on the same grid, "
            "and composite them alike."
        )
    if ours.nodata is None:
        raise CubeError("The cube has no nodata value (_FillValue): nothing says what was not seen.")
    first, second = cube[MAIN].data, other[MAIN].data
    if is_lazy(first):
        first = first.rechunk({1: -1})
        second = other.chunk().data_vars[MAIN].data.rechunk(first.chunks)
    data = on_blocks(
        _second_choice, first, second, chunks=chunks_of(first), dtype=first.dtype,
        options={"nodata": ours.nodata},
    )  # fmt: skip
    result = cube.assign({MAIN: (DIMS, data, cube[MAIN].attrs)})
    # The steps noted so far do not make this cube: its dates cannot be made again from them.
    result.attrs.pop(RECIPE, None)
    return result


@working_memory(each=2)
def _second_choice(first: Array, second: Array, nodata: float) -> Array:
    empty = ~valid_in(first, nodata).any(axis=1, keepdims=True)
    return np.where(empty, second, first)
