"""Which maps of a yearly series train, validate and test a forecast: years held out, pixels kept apart."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from scipy import ndimage

from cubekit.cube.contract import MAIN, check_cube, encoding_of, is_valid
from cubekit.errors import OptionError, check_option
from cubekit.typing import Array, BoolArray, IntArray

By = Literal["blocks", "years"]
"""What validation is kept apart by: blocks of land, or the last years before those held out."""

OUTSIDE, TRAIN, VALID = 0, 1, 2
"""Roles of pixels: in no part, trained on, validated on."""

_TARGETS = 0.05  # of a patch at least have to be targets of its part
_BLOCKS = 4  # along the shorter side of a map that is small beside a patch
_SMALLEST = 4  # pixels a side of a block


@dataclass(frozen=True, kw_only=True, eq=False)
class YearSplit:
    """Windows of past years, and which targets belong to training, validation and test.

    A pixel of a validation block is never a target of training, though past years of it may be seen beside
    targets: the network looks around.
    """

    window: int
    """Past years that predict the next."""

    patch: int
    """Pixels a side of a patch."""

    train: tuple[int, ...]
    """Positions in time of the target years of training."""

    valid: tuple[int, ...]
    """Those of validation; the same where blocks of land are kept apart."""

    test: tuple[int, ...]
    """Those held out: the last ones, never an input of a training target."""

    role: IntArray
    """``(y, x)`` uint8: 0 in no part, 1 trained on, 2 validated on."""

    corners: dict[Literal["train", "valid"], IntArray]
    """``(n, 2)`` int32 first row and column of every patch that has few enough masked pixels."""

    def targets(self, part: Literal["train", "valid"]) -> BoolArray:
        """Return which pixels are targets of a part.

        Parameters
        ----------
        part : {"train", "valid"}
            Part.

        Returns
        -------
        numpy.ndarray
            ``(y, x)`` bool.
        """
        if self.train != self.valid:  # years are kept apart, so every pixel serves both
            return np.asarray(self.role != OUTSIDE)
        return np.asarray(self.role == (TRAIN if part == "train" else VALID))


def split_years(  # noqa: PLR0913
    cube: xr.Dataset,
    *,
    window: int = 8,
    patch: int = 64,
    hold_out: int = 1,
    by: By = "blocks",
    valid: float = 0.2,
    valid_years: int = 1,
    block: int | None = None,
    masked: float = 0.3,
    zone: xr.DataArray | BoolArray | None = None,
    seed: int = 0,
) -> YearSplit:
    """Plan the training of a forecast from a cube of yearly maps.

    The last `hold_out` years are targets of the test alone. Whatever is a target of training or validation
    lies before them, and so do its inputs.

    Parameters
    ----------
    cube : xarray.Dataset
        Yearly maps ``(time, band, y, x)`` without holes in the years. Read once, to find pixels without data.
    window : int, optional
        Past years that predict the next.
    patch : int, optional
        Pixels a side of a patch; a multiple of 4 suits ``convlstm_unet``.
    hold_out : int, optional
        Last years, kept for the test.
    by : {"blocks", "years"}, optional
        What validation is kept apart by.
    valid : float, optional
        Share of the land in validation blocks, with ``by="blocks"``.
    valid_years : int, optional
        Target years of validation, with ``by="years"``.
    block : int, optional
        Pixels a side of a block. Default: a patch, or a quarter of the map where that is smaller.
    masked : float, optional
        Largest share of a patch that may lie outside the zone or hold no data in any year.
    zone : xarray.DataArray or numpy.ndarray, optional
        ``(y, x)`` bool: pixels that count.
    seed : int, optional
        Draws the blocks.

    Returns
    -------
    YearSplit
        Small: streams are made of it with :func:`cubekit.batching.torch.years.year_batches`.

    Raises
    ------
    OptionError
        If there are too few years, the years have holes, or no patch is admissible; says what to change.
    CubeError
        If the dataset is no cube.
    """
    check_option("by", by, ["blocks", "years"])
    check_cube(cube)
    check_yearly(cube)
    if not (0 < valid < 1 and 0 <= masked < 1):
        raise OptionError(f"valid={valid!r} must lie between 0 and 1, masked={masked!r} from 0 to below 1.")
    if min(window, hold_out, valid_years) < 1:
        raise OptionError(
            f"window={window}, hold_out={hold_out}, valid_years={valid_years}: at least 1 each."
        )
    train, held = _target_years(cube.sizes["time"], window, hold_out)
    inside = _inside(cube, zone, cube.sizes["time"] - hold_out)
    role = np.where(inside, TRAIN, OUTSIDE).astype("uint8")
    validating = train
    if by == "blocks":
        role[_blocks(inside, valid, block or _block_of(inside, patch), seed)] = VALID
    else:
        if len(train) <= valid_years:
            raise OptionError(
                f"{len(train)} target years leave none for training: lower valid_years= or window=."
            )
        train, validating = train[:-valid_years], train[-valid_years:]
    split = YearSplit(
        window=window, patch=patch, train=train, valid=validating, test=held, role=role, corners={}
    )
    for part in ("train", "valid"):
        split.corners[part] = _corners(inside, split.targets(part), patch, masked, part)
    return split


def check_yearly(cube: xr.Dataset) -> None:
    """Raise unless maps are one year apart, without a hole.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``time``; nothing is computed.

    Raises
    ------
    OptionError
        Naming the years that are missing or come twice.
    """
    years = cube["time"].dt.year.to_numpy()
    if len(years) and not np.array_equal(years, np.arange(years[0], years[0] + len(years))):
        missing = sorted(set(range(int(years[0]), int(years[-1]) + 1)) - set(years.tolist()))
        twice = sorted({int(year) for year in years if (years == year).sum() > 1})
        raise OptionError(
            f"The maps are not one a year: missing {missing}, more than once {twice}. A hole would "
            "shift every window behind it; open_yearly(..., missing='nan') fills holes with empty maps."
        )


def _target_years(count: int, window: int, hold_out: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return positions of the target years before those held out, and of these."""
    train, held = tuple(range(window, count - hold_out)), tuple(range(count - hold_out, count))
    if not train or held[0] < window:
        raise OptionError(
            f"{count} years: a window of {window} with {hold_out} held out leaves no target year for "
            f"training; at least {window + hold_out + 1} years are needed."
        )
    return train, held


def _inside(cube: xr.Dataset, zone: xr.DataArray | BoolArray | None, years: int) -> BoolArray:
    """Return pixels of the zone that have data in any of the first years."""
    data = cube[MAIN].isel(time=slice(0, years))
    seen: Array = is_valid(data, encoding_of(data).nodata).any(("time", "band")).to_numpy()
    if zone is not None:
        given = np.asarray(zone).astype(bool)
        if given.shape != seen.shape:
            raise OptionError(f"zone has shape {given.shape}; the cube has {seen.shape} rows and columns.")
        seen = seen & given
    if not seen.any():
        raise OptionError("No pixel of the zone holds data in the years before those held out.")
    return seen


def _block_of(inside: BoolArray, patch: int) -> int:
    """Return the usual side of a block."""
    return int(max(_SMALLEST, min(patch, min(inside.shape) // _BLOCKS)))


def _blocks(inside: BoolArray, share: float, side: int, seed: int) -> BoolArray:
    """Draw whole blocks until they hold about a share of the pixels."""
    rows, columns = (np.arange(size) // side for size in inside.shape)
    number = rows[:, None] * (columns[-1] + 1) + columns[None, :]
    pixels = np.bincount(number[inside], minlength=int(number[-1, -1]) + 1)
    order = np.random.default_rng((seed, 11)).permutation(np.flatnonzero(pixels))
    if len(order) < 2:  # noqa: PLR2004  (one for each part)
        raise OptionError(f"block={side}: all pixels lie in one block. Give smaller blocks, or by='years'.")
    total = np.cumsum(pixels[order])
    count = int(np.clip(np.searchsorted(total, share * total[-1]) + 1, 1, len(order) - 1))
    return np.isin(number, order[:count]) & inside


def _corners(inside: BoolArray, targets: BoolArray, patch: int, masked: float, part: str) -> IntArray:
    """List the corners of patches with enough pixels inside, and enough targets of a part."""
    if patch > min(inside.shape):
        raise OptionError(f"patch={patch} is larger than the map of {inside.shape} pixels: lower it.")
    known, aimed = (_share(mask, patch) for mask in (inside, targets))
    fits = (known >= 1 - masked - 1e-6) & (aimed >= min(_TARGETS, aimed.max(initial=0) or 1))
    corners: IntArray = np.argwhere(fits).astype("int32")
    if not len(corners):
        raise OptionError(
            f"No patch of {patch} x {patch} pixels for part {part!r} has at most {masked:.0%} masked pixels: "
            f"the best has {1 - known.max():.0%}. Raise masked=, or lower patch=."
        )
    return corners


def _share(mask: BoolArray, patch: int) -> Array:
    """Return the share of True of the patch that begins at each pixel."""
    mean = ndimage.uniform_filter(mask.astype("float64"), patch, mode="constant")
    first = patch // 2  # where the filter centres the patch that begins at 0
    rows, columns = (size - patch + 1 for size in mask.shape)
    return np.asarray(mean[first : first + rows, first : first + columns])
