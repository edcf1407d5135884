"""The same split for networks that see patches: whose a pixel is, and which patches see no one else's."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cubekit.batching.patches import PatchPlan
from cubekit.batching.samples import Samples
from cubekit.cube.contract import geobox_of
from cubekit.errors import LabelError, OptionError
from cubekit.typing import IntArray

UNLABELLED = -1

_TOLERANCE = (
    0.01  # pixels that a sample may lie off the middle of one: rounding of coordinates, never a shift
)


def pixels_of(samples: Samples, cube: xr.Dataset) -> tuple[IntArray, IntArray]:
    """Find the pixels of a cube that samples were extracted from.

    Parameters
    ----------
    samples : Samples
        With positions.
    cube : xarray.Dataset
        Cube or map; only its grid is looked at.

    Returns
    -------
    rows, columns : numpy.ndarray
        (n,) int64.

    Raises
    ------
    OptionError
        If a sample is not the middle of a pixel: it comes from another cube, or from a table.
    """
    grid = geobox_of(cube)
    x, y = samples.position.T
    if samples.crs is not None and grid.crs is not None and grid.crs != samples.crs:
        from pyproj import Transformer

        x, y = Transformer.from_crs(samples.crs, str(grid.crs), always_xy=True).transform(x, y)
    inverse = ~grid.transform
    columns = inverse.a * x + inverse.b * y + inverse.c - 0.5
    rows = inverse.d * x + inverse.e * y + inverse.f - 0.5
    near = [np.rint(np.nan_to_num(each, nan=-1)).astype("int64") for each in (rows, columns)]
    inside = (near[0] >= 0) & (near[0] < grid.shape.y) & (near[1] >= 0) & (near[1] < grid.shape.x)
    exact = np.maximum(np.abs(rows - near[0]), np.abs(columns - near[1])) <= _TOLERANCE
    if not (inside & exact).all():
        raise OptionError(
            f"{int((~(inside & exact)).sum())} of {len(samples)} samples are no pixels of this cube of "
            f"{grid.shape.y} x {grid.shape.x}: give the cube that they were extracted from."
        )
    return near[0], near[1]


def label_raster(samples: Samples, cube: xr.Dataset) -> xr.DataArray:
    """Put the classes of samples back where they come from.

    Parameters
    ----------
    samples : Samples
        With one class each.
    cube : xarray.Dataset
        Cube that they were extracted from.

    Returns
    -------
    xarray.DataArray
        (y, x) int16 class index, -1 elsewhere, with the classes in its attributes: ``labels`` of
        :func:`cubekit.batches`.

    Raises
    ------
    OptionError
        If samples are no pixels of the cube, or have shares of classes.
    """
    if samples.y.ndim != 1:
        raise OptionError("The samples have shares of classes; a raster holds one class a pixel.")
    values = np.full((cube.sizes["y"], cube.sizes["x"]), UNLABELLED, "int16")
    values[pixels_of(samples, cube)] = samples.y
    coords = {dim: cube[dim] for dim in ("y", "x")}
    return xr.DataArray(values, coords, ("y", "x"), name="label", attrs=samples.classes.attrs())


def patches_of(
    part: Samples,
    others: Sequence[Samples],
    cube: xr.Dataset,
    *,
    size: int = 32,
    stride: int | None = None,
) -> tuple[PatchPlan, xr.DataArray]:
    """Plan patches that hold samples of one part of a split and see no sample of the others.

    A network that trains on them, with the labels returned, has met exactly the labels of that part, and no
    value of a pixel that it is tested on.

    Parameters
    ----------
    part : Samples
        One part, from :func:`cubekit.split` of a cube.
    others : sequence of Samples
        Parts that must not be seen; none where patches may lie anywhere.
    cube : xarray.Dataset
        Cube that they were extracted from.
    size : int, optional
        Pixels a side of a patch.
    stride : int, optional
        Pixels from one patch to the next. Default: half of `size`; smaller finds more patches between blocks.

    Returns
    -------
    plan : PatchPlan
        Patches with at least one sample.
    labels : xarray.DataArray
        (y, x) int16 class index of the part's own samples, -1 elsewhere.

    Raises
    ------
    LabelError
        If no patch holds a sample without seeing one of the others.
    OptionError
        If samples are no pixels of the cube, or a patch is larger than it.

    Examples
    --------
    >>> train, valid, test = ck.split(cube, labels, by="blocks", block=640)  # doctest: +SKIP
    >>> plan, known = patches_of(train, [valid, test], cube, size=32)  # doctest: +SKIP
    >>> ck.fit("unet", ck.batches(cube, plan, labels=known, shuffle=True))  # doctest: +SKIP
    """
    labels = label_raster(part, cube)
    foreign = np.zeros(labels.shape, bool)
    for other in others:
        foreign[pixels_of(other, cube)] = True
    plan = PatchPlan(cube, size, stride=max(1, size // 2) if stride is None else stride)
    own = plan.share(labels.to_numpy() != UNLABELLED) > 0
    chosen = own & (plan.share(foreign) == 0)
    if not chosen.any():
        raise LabelError(
            f"None of {len(plan)} patches of {size} x {size} pixels holds samples of one part and none of "
            f"the others ({int(own.sum())} hold samples): use smaller patches, a smaller stride, or larger "
            "blocks."
        )
    return plan.take(chosen), labels
