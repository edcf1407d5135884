"""Plans of pixel series: all pixels, those of a mask such as labelled ones, or random ones."""

import numpy as np
import xarray as xr

from cubekit.batching.plan import ChunkPlan, check_space
from cubekit.batching.source import Reader
from cubekit.cube.contract import MAIN
from cubekit.errors import LabelError, OptionError
from cubekit.typing import BoolArray, IntArray


class PixelPlan(ChunkPlan):
    """Series of pixels: an ``xbatcher.BatchGenerator`` of the windows that hold any.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x).
    pixels : numpy.ndarray, xarray.DataArray or int, optional
        (y, x) bool: which pixels, such as ``labels["label"] >= 0``; or how many to draw at random. Default:
        all.
    seed : int, optional
        Of the draw.

    Raises
    ------
    OptionError
        If the mask has another shape than the cube, or there are fewer pixels than asked for.
    LabelError
        If the mask has no True.
    """

    def __init__(
        self, cube: xr.Dataset, pixels: BoolArray | xr.DataArray | int | None = None, *, seed: int = 0
    ) -> None:
        check_space(cube)
        data = cube[MAIN]
        self.mask = _mask(pixels, (data.sizes["y"], data.sizes["x"]), seed)
        sides = Reader(data).sides
        super().__init__(cube, block=None if sides is None else (sides[-2], sides[-1]), keep=self.mask)

    def counts(self) -> IntArray:
        """Return how many pixels each window holds.

        Returns
        -------
        numpy.ndarray
            (n,) int64.
        """
        if self.mask is None:
            top, bottom, left, right = self.edges.T.astype("int64")
            area: IntArray = (bottom - top) * (right - left)
            return area
        return np.array(
            [np.count_nonzero(self.mask[top:bottom, left:right]) for top, bottom, left, right in self.edges]
        )

    def __repr__(self) -> str:
        return f"PixelPlan: {int(self.counts().sum())} pixels in {len(self)} windows"


def _mask(
    pixels: BoolArray | xr.DataArray | int | None, shape: tuple[int, int], seed: int
) -> BoolArray | None:
    """Return which pixels are wanted; None for all."""
    if pixels is None:
        return None
    if isinstance(pixels, int | np.integer):
        if not 1 <= pixels <= shape[0] * shape[1]:
            raise OptionError(f"pixels={pixels!r}: the cube has {shape[0] * shape[1]} pixels.")
        mask = np.zeros(shape, bool)
        mask.flat[np.random.default_rng(seed).choice(mask.size, int(pixels), replace=False)] = True
        return mask
    mask = np.asarray(pixels).astype(bool)
    if mask.shape != shape:
        raise OptionError(f"pixels has shape {mask.shape}; the cube has {shape} rows and columns.")
    if not mask.any():
        raise LabelError("The mask of pixels has no True: there is no series to take.")
    return mask
