"""Masks from quality bands: class codes (Sentinel-2 SCL) or bit flags (Landsat QA_PIXEL)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, cos, radians
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from odc.geo.geobox import GeoBox

from cubekit.catalog import bit_test
from cubekit.errors import OptionError
from cubekit.typing import Array, BoolArray

if TYPE_CHECKING:
    from cubekit.catalog import Quality


_DISTANCE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(m|km)")
_ROUNDING = 1e-6  # of a pixel: 60 m on 20.000001 m are three pixels
_DEGREE = 111_320  # metres


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """Which pixels of a quality band hide the pixels below them."""

    kind: Literal["classes", "bits"]
    """One code a pixel, or flags."""

    select: tuple[int | str, ...]
    """Codes (any of), or flags (any of) as `cubekit.catalog.bit_test` reads them."""

    dilate: int = 0
    """Pixels of the target grid by which masked areas grow, in all eight directions."""

    opening: int = 0
    """Pixels by which masked areas shrink and grow back before that, so that narrower ones vanish."""

    @property
    def reach(self) -> int:
        """Pixels beyond a block that bear on what is masked in it."""
        return self.dilate + 2 * self.opening


def mask_rule(
    quality: "Quality", names: str | Iterable[str], *, dilate: int = 0, opening: int = 0
) -> MaskRule:
    """Look up what a named mask takes out.

    Parameters
    ----------
    quality : Quality
        Record of the catalog.
    names : str or iterable of str
        Masks such as ``"clouds"``; several add up. Codes that are never data are part of each.
    dilate : int, optional
        Pixels by which masked areas grow.
    opening : int, optional
        Pixels by which they shrink and grow back first: specks up to twice as wide vanish.

    Returns
    -------
    MaskRule
        Small and picklable.

    Raises
    ------
    UnknownNameError
        With the nearest mask.
    OptionError
        For a negative `dilate` or `opening`.
    """
    if dilate < 0:
        raise OptionError(
            f"dilate={dilate}: give the number of pixels by which masked areas grow, 0 or more."
        )
    if opening < 0:
        raise OptionError(
            f"opening={opening}: give the number of pixels by which masked areas shrink, 0 or more."
        )
    return MaskRule(kind=quality.kind, select=tuple(quality.select(names)), dilate=dilate, opening=opening)


def in_pixels(what: str, distance: int | str, grid: GeoBox) -> int:
    """Return a distance in pixels of a grid.

    Parameters
    ----------
    what : str
        Name of the argument, for messages.
    distance : int or str
        Pixels, or metres as in ``"60 m"`` or ``"1.5 km"``; parts of a pixel count as a whole one.
    grid : odc.geo.geobox.GeoBox
        Grid. On one in degrees, metres are those of its middle.

    Returns
    -------
    int
        Pixels; the larger number where pixels are not square.

    Raises
    ------
    OptionError
        For anything else, or less than 0.
    """
    if isinstance(distance, str) and (found := _DISTANCE.fullmatch(distance.strip())):
        metres = float(found[1]) * (1000 if found[2] == "km" else 1)
        return ceil(metres / _pixel_metres(grid) - _ROUNDING)
    if isinstance(distance, bool) or not isinstance(distance, int) or distance < 0:
        raise OptionError(f"{what}={distance!r}: give pixels, 0 or more, or a length such as '60 m'.")
    return distance


def _pixel_metres(grid: GeoBox) -> float:
    """Return the shorter side of a pixel in metres."""
    x, y = abs(grid.resolution.x), abs(grid.resolution.y)
    if grid.crs is None:
        raise OptionError("The grid has no CRS, so metres cannot be told in pixels.")
    if grid.crs.geographic:
        bounds = grid.boundingbox
        x *= cos(radians((bounds.bottom + bounds.top) / 2))
        return float(min(x, y) * _DEGREE)
    return float(min(x, y) * grid.crs.proj.axis_info[0].unit_conversion_factor)


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
    if codes.dtype.itemsize <= 2:  # noqa: PLR2004  (few codes: each is judged once)
        return np.asarray(_judged(rule, codes.dtype)[codes.view(f"u{codes.dtype.itemsize}")])
    return _masked(codes, rule)


@lru_cache(maxsize=32)
def _judged(rule: MaskRule, dtype: "np.dtype[Any]") -> BoolArray:
    """Tell which of all codes of a small type a rule masks."""
    codes = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}")
    return _masked(codes.view(dtype), rule)


def _masked(codes: Array, rule: MaskRule) -> BoolArray:
    if rule.kind == "bits":
        return _any_flag(codes, rule.select)
    return np.isin(codes, [code for code in rule.select if _fits(code, codes.dtype)])


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


def shaped(masked: BoolArray, covered: BoolArray, rule: MaskRule) -> BoolArray:
    """Open masked areas, then let them grow.

    Parameters
    ----------
    masked : numpy.ndarray of bool
        From :func:`masked_by`, shape (y, x).
    covered : numpy.ndarray of bool
        Where the quality band has values; areas at its edge count as going on beyond it.
    rule : MaskRule
        How far.

    Returns
    -------
    numpy.ndarray of bool
        Same shape; right at least :attr:`MaskRule.reach` pixels away from the edges.
    """
    if rule.opening:
        kept = ~grow(~masked & covered, rule.opening)
        masked = grow(kept, rule.opening) & masked
    return grow(masked, rule.dilate) if rule.dilate else masked


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
