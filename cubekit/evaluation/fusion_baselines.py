"""Predictions that any fusion network has to beat, none of them trained: lazy, block by block."""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import dask.array as da
import numpy as np
import xarray as xr

from cubekit.cube.blocks import is_lazy
from cubekit.errors import OptionError, check_option
from cubekit.evaluation.fusion_filters import fit_fc_block, starfm_block

Baseline: TypeAlias = Literal["fine_t1", "coarse_t2", "change", "starfm", "fit_fc"]
"""Name of a baseline."""

BASELINES: Final[Mapping[Baseline, str]] = {
    "fine_t1": "copy of the earlier fine image",
    "coarse_t2": "coarse image of the wanted date, resampled",
    "change": "earlier fine image plus the change of the coarse ones",
    "starfm": "STARFM (Gao et al. 2006)",
    "fit_fc": "Fit-FC (Wang and Atkinson 2018)",
}
"""What each of them is, for tables."""


def predict_baseline(
    name: Baseline,
    coarse_t1: xr.DataArray,
    coarse_t2: xr.DataArray,
    fine_t1: xr.DataArray,
    *,
    ratio: float = 16.0,
) -> xr.DataArray:
    """Predict a fine image without training.

    Parameters
    ----------
    name : {"fine_t1", "coarse_t2", "change", "starfm", "fit_fc"}
        Which one, see :data:`BASELINES`.
    coarse_t1, coarse_t2, fine_t1 : xarray.DataArray
        Images ``(band, y, x)`` of one grid, reflectance, NaN where there is no data; such as those of a
        :class:`~cubekit.batching.pairs.Pair`. ``coarse_t2`` is as good as it was resampled: by
        :func:`~cubekit.batching.pairs.open_pairs` bicubic.
    ratio : float, optional
        Coarse pixel size divided by the fine one, for the window of Fit-FC's regression.

    Returns
    -------
    xarray.DataArray
        Float32 image like `fine_t1`, NaN where it cannot be predicted; as lazy as the images.

    Raises
    ------
    OptionError
        If the name is not known, or images differ in shape.
    """
    check_option("name", name, BASELINES)
    if name == "starfm":
        return starfm(coarse_t1, coarse_t2, fine_t1)
    if name == "fit_fc":
        return fit_fc(coarse_t1, coarse_t2, fine_t1, regression=_odd(5 * ratio))
    _check(coarse_t1, coarse_t2, fine_t1)
    data = {
        "fine_t1": lambda: fine_t1.data,
        "coarse_t2": lambda: coarse_t2.data,
        "change": lambda: fine_t1.data + (coarse_t2.data - coarse_t1.data),
    }[name]()
    return fine_t1.copy(data=data.astype("float32"))


def starfm(
    coarse_t1: xr.DataArray,
    coarse_t2: xr.DataArray,
    fine_t1: xr.DataArray,
    *,
    window: int = 31,
    classes: int = 4,
    fine_error: float = 0.002,
    coarse_error: float = 0.002,
    unit: float = 1e-4,
) -> xr.DataArray:
    """Predict by the spatial and temporal adaptive reflectance fusion model (STARFM), one pair.

    The prediction is a weighted mean of ``fine_t1 + coarse_t2 - coarse_t1`` over the pixels of a window whose
    fine values are like the centre's; weights fall with the difference between the sensors, the change of
    the coarse images, and the distance. Each band on its own.

    Parameters
    ----------
    coarse_t1, coarse_t2, fine_t1 : xarray.DataArray
        Images ``(band, y, x)`` of one grid, reflectance, NaN where there is no data.
    window : int, optional
        Pixels across the window, odd. The paper takes 1500 m.
    classes : int, optional
        Pixels are alike that differ by at most two standard deviations of the image over this number.
    fine_error, coarse_error : float, optional
        Uncertainty of the sensors: neighbours that tell less than the centre by more than this do not count.
    unit : float, optional
        Reflectance added to differences: one step of the published integers.

    Returns
    -------
    xarray.DataArray
        Float32, as lazy as the images. Where coarse images do not change, the fine image of t1; where fine
        and coarse are equal at t1, the coarse image of t2.

    Raises
    ------
    OptionError
        If images differ in shape, or a number is not positive.

    References
    ----------
    Gao, Masek, Schwaller and Hall 2006, doi:10.1109/TGRS.2006.872081.
    """
    _check(coarse_t1, coarse_t2, fine_t1)
    _check_window("window", window)
    if classes < 1 or unit <= 0:
        raise OptionError(f"classes={classes!r} and unit={unit!r} must be positive.")
    deviation = fine_t1.std(("y", "x"), skipna=True).data  # of the whole scene, whatever the blocks
    threshold = (2 * deviation / classes).astype("float32")[:, None, None]
    options = {"window": window, "fine_error": fine_error, "coarse_error": coarse_error, "unit": unit}
    return _filtered(starfm_block, (coarse_t1, coarse_t2, fine_t1), threshold, window // 2, options)


def fit_fc(
    coarse_t1: xr.DataArray,
    coarse_t2: xr.DataArray,
    fine_t1: xr.DataArray,
    *,
    window: int = 31,
    regression: int = 81,
    similar: int = 20,
) -> xr.DataArray:
    """Predict by regression model fitting, spatial filtering and residual compensation (Fit-FC).

    The line that turns the coarse image of t1 into that of t2 around a pixel turns the fine image as well;
    the result and what the line leaves over are averaged over the most similar pixels of a window.

    Parameters
    ----------
    coarse_t1, coarse_t2, fine_t1 : xarray.DataArray
        Images ``(band, y, x)`` of one grid, reflectance, NaN where there is no data.
    window : int, optional
        Fine pixels across the window of similar pixels, odd.
    regression : int, optional
        Fine pixels across the window of the line, odd: the paper takes 5 coarse pixels.
    similar : int, optional
        Similar pixels, by all bands together.

    Returns
    -------
    xarray.DataArray
        Float32, as lazy as the images.

    Raises
    ------
    OptionError
        If images differ in shape, or a number is not positive.

    References
    ----------
    Wang and Atkinson 2018, doi:10.1016/j.rse.2017.10.046.
    """
    _check(coarse_t1, coarse_t2, fine_t1)
    _check_window("window", window)
    _check_window("regression", regression)
    if similar < 1:
        raise OptionError(f"similar={similar!r} must be at least 1.")
    options = {"window": window, "regression": regression, "similar": similar}
    margin = window // 2 + regression // 2
    return _filtered(fit_fc_block, (coarse_t1, coarse_t2, fine_t1), None, margin, options)


def _filtered(
    kernel: Any,
    images: tuple[xr.DataArray, ...],
    threshold: Any,
    margin: int,
    options: Mapping[str, Any],
) -> xr.DataArray:
    """Apply a kernel that looks as far as a margin, block by block where images are lazy."""
    like = images[-1]
    arrays = [image.astype("float32").data for image in images]
    if not any(map(is_lazy, arrays)):
        extra = [] if threshold is None else [np.asarray(threshold)]
        return like.copy(data=kernel(*arrays, *extra, **options))
    chunks = next(array for array in arrays if is_lazy(array)).chunks[1:]
    lazy = [da.asarray(array).rechunk((-1, *chunks)) for array in arrays]  # type: ignore[no-untyped-call]
    near = [
        da.overlap.overlap(array, depth={0: 0, 1: margin, 2: margin}, boundary="none")  # type: ignore[no-untyped-call]
        for array in lazy
    ]
    if threshold is not None:
        near.append(da.asarray(threshold).rechunk(-1))  # type: ignore[no-untyped-call]
    found = da.map_blocks(  # type: ignore[no-untyped-call]
        kernel, *near, dtype="float32", chunks=near[0].chunks, meta=np.empty((0, 0, 0), "float32"), **options
    )
    found = da.overlap.trim_overlap(found, depth={0: 0, 1: margin, 2: margin}, boundary="none")  # type: ignore[no-untyped-call]
    return like.copy(data=found)


def _odd(size: float) -> int:
    """Return the odd number of pixels next to a size, 3 at least."""
    return max(3, 2 * round((size - 1) / 2) + 1)


def _check_window(name: str, size: int) -> None:
    if size < 3 or size % 2 == 0:  # noqa: PLR2004
        raise OptionError(f"{name}={size!r} must be an odd number of pixels, from 3 on.")


def _check(*images: xr.DataArray) -> None:
    shapes = [image.shape for image in images]
    dimensions = 3
    if len(set(shapes)) != 1 or len(shapes[0]) != dimensions:
        raise OptionError(f"Images have shapes {shapes}, expected three times (band, y, x).")
