"""Masks from quality bands: class codes (Sentinel-2 SCL) or bit flags (Landsat QA_PIXEL)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cubekit.catalog import bit_test
from cubekit.errors import OptionError
from cubekit.typing import Array, BoolArray

if TYPE_CHECKING:
    from cubekit.catalog import Quality


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """Which pixels of a quality band hide the pixels below them."""

    kind: Literal["classes", "bits"]
    """One code a pixel, or flags."""

    select: tuple[int | str, ...]
    """Codes (any of), or flags (any of) as `cubekit.catalog.bit_test` reads them."""

    dilate: int = 0
    """Pixels of the target grid by which masked areas grow, in all eight directions."""


def mask_rule(quality: "Quality", names: str | Iterable[str], *, dilate: int = 0) -> MaskRule:
    """Look up what a named mask takes out.

    Parameters
    ----------
    quality : Quality
        Record of the catalog.
    names : str or iterable of str
        Masks such as ``"clouds"``; several add up. Codes that are never data are part of each.
    dilate : int, optional
        Pixels by which masked areas grow.

    Returns
    -------
    MaskRule
        Small and picklable.

    Raises
    ------
    UnknownNameError
        With the nearest mask.
    OptionError
        For a negative `dilate`.
    """
    if dilate < 0:
        raise OptionError(
            f"dilate={dilate}: give the number of pixels by which masked areas grow, 0 or more."
        )
    return MaskRule(kind=quality.kind, select=tuple(quality.select(names)), dilate=dilate)


def masked_by(codes: Array, rule: MaskRule) -> BoolArray:
    """Tell which pixels a rule masks, before areas grow.

    Parameters
    ----------
    codes : numpy.ndarray
        Stored integers of the quality band, shape (y, x).
    rule : MaskRule
        From :func:`mask_rule`.

    Returns
    -------
    numpy.ndarray of bool
        True where the data below must not be used.

    Raises
    ------
    OptionError
        For codes that are not integers.
    """
    if codes.dtype.kind not in "ui":
        raise OptionError(f"Quality codes must be integers, found {codes.dtype}.")
    if rule.kind == "bits":
        masked = _any_flag(codes, rule.select)
    else:
        masked = np.isin(codes, [code for code in rule.select if _fits(code, codes.dtype)])
    return np.asarray(masked)


def _any_flag(codes: Array, flags: Iterable[int | str]) -> BoolArray:
    """Tell where any flag holds; single bits are tested together."""
    bits, masked = codes.astype(np.int64), np.zeros(codes.shape, bool)
    tests = [bit_test(flag) for flag in flags]
    together = sum({mask for mask, value in tests if mask == value and mask.bit_count() == 1})
    masked |= (bits & together) != 0
    for mask, value in tests:
        if mask != value or mask.bit_count() > 1:
            masked |= (bits & mask) == value
    return masked


def _fits(code: int | str, dtype: "np.dtype[Any]") -> bool:
    limits = np.iinfo(dtype)
    return isinstance(code, int) and bool(limits.min <= code <= limits.max)


def grow(masked: BoolArray, by: int) -> BoolArray:
    """Let masked areas grow in all eight directions.

    Parameters
    ----------
    masked : numpy.ndarray of bool
        Shape (y, x).
    by : int
        Pixels.

    Returns
    -------
    numpy.ndarray of bool
        Same shape; what lies beyond the array does not grow into it.
    """
    # A square is two passes of a running maximum: its cost does not depend on its size.
    from scipy.ndimage import maximum_filter1d

    grown = masked.view(np.uint8)
    for axis in (0, 1):
        grown = maximum_filter1d(grown, 2 * by + 1, axis=axis, mode="constant", cval=0)
    return np.asarray(grown, bool)
