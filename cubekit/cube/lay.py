"""What was read of a scene is laid onto a block where the block still lacks data, in the block's coding."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from cubekit.cube import lay_numba
from cubekit.cube.contract import Encoding
from cubekit.cube.kernels import off_nodata, valid_in
from cubekit.cube.plan import Plan
from cubekit.cube.reader import Source
from cubekit.cube.resample import Pixels, Place, sample_bilinear, sample_nearest
from cubekit.cube.status import READ
from cubekit.errors import SourceError
from cubekit.typing import Array, BoolArray


@dataclass(frozen=True)
class Loaded:
    """Stored numbers of a file for a block."""

    values: Array
    """Shape (y, x): of the window, or of the block where `place` is None."""

    nodata: float | None
    """Stored number that means "no data"."""

    place: Place | None = None
    """Where the block lies in the file."""

    method: str = "nearest"
    """Resampling that is still to be done."""

    valid: BoolArray | None = None
    """Which values are data, where that is known already."""

    @classmethod
    def placed(cls, pixels: Pixels) -> Self:
        """Return pixels that lie on the block already."""
        return cls(pixels.values, None, valid=pixels.valid)


@dataclass(frozen=True, kw_only=True)
class Recode:
    """How stored numbers of one band of one scene become those of the cube."""

    coding: Encoding
    """Of the cube."""

    scale: float
    """Of the file."""

    offset: float
    """Of the file."""

    shift: int
    """Added to whole numbers."""

    exact: bool
    """Whether numbers are taken as they are, not weighed."""

    nodata: float | None
    """Of the file, as its metadata says it."""

    source: Source | str
    """The asset, or the item that lacks it, for messages."""

    @classmethod
    def of(cls, plan: Plan, scene: int, band: int) -> Self:
        """Look up the rule of one asset of a plan.

        Parameters
        ----------
        plan : Plan
            Of the whole cube.
        scene, band : int
            Numbers of both.

        Returns
        -------
        Recode
            For :func:`lay`.
        """
        form, source = plan.forms[plan.form_of[scene, band]], plan.source(scene, band)
        return cls(
            coding=plan.encoding,
            scale=form.scale,
            offset=form.offset,
            shift=int(plan.shifts[scene, band]),
            exact=plan.resampling[band] == "nearest",
            nodata=form.nodata,
            source=plan.scenes[scene] if source is None else source,
        )

    @property
    def label(self) -> str:
        """Say which item and asset."""
        return self.source if isinstance(self.source, str) else self.source.label

    @property
    def may_clash(self) -> bool:
        """Whether data of the file could be what means "no data" in the cube."""
        return self.exact and self.nodata != self.coding.nodata


def lay(loaded: Loaded, rule: Recode, out: Array, status: Array | None, hidden: BoolArray | None) -> None:
    """Fill the pixels of a block that lack data and are not hidden.

    Parameters
    ----------
    loaded : Loaded
        Stored numbers of a file.
    rule : Recode
        How they become those of the cube.
    out : numpy.ndarray
        Shape (y, x), in the dtype of the cube; changed in place.
    status : numpy.ndarray of uint8 or None
        Same shape; pixels that get data become :data:`cubekit.cube.status.READ`, which are left alone. None
        where the whole block lacks data still, and nobody asks afterwards.
    hidden : numpy.ndarray of bool or None
        Pixels that the mask takes out.

    Raises
    ------
    SourceError
        Where data of the file is the number that means "no data" in the cube; nothing is filled then.
    """
    if lay_numba.lay(loaded, rule, out, status, hidden):
        return
    pixels = _sampled(loaded)
    take = pixels.valid if status is None else pixels.valid & (status != READ)
    if hidden is not None:
        take = take & ~hidden
    np.copyto(out, recode(rule, pixels.values, take), where=take)
    if status is not None:
        status[take] = READ


def _sampled(loaded: Loaded) -> Pixels:
    valid = valid_in(loaded.values, loaded.nodata) if loaded.valid is None else loaded.valid
    pixels = Pixels(loaded.values, valid)
    if loaded.place is None:
        return pixels
    sample = sample_nearest if loaded.method == "nearest" else sample_bilinear
    return sample(pixels, loaded.place.window, loaded.place.where)


def recode(rule: Recode, values: Array, valid: BoolArray) -> Array:
    """Bring stored numbers of a scene to the coding of the cube.

    Parameters
    ----------
    rule : Recode
        Of the scene and band.
    values : numpy.ndarray
        Stored numbers, or weighed ones as floats.
    valid : numpy.ndarray of bool
        Which of them will be used.

    Returns
    -------
    numpy.ndarray
        Same shape, dtype of the cube.

    Raises
    ------
    SourceError
        As :func:`lay`.
    """
    coding = rule.coding
    dtype = np.dtype(coding.dtype)
    if dtype.kind == "f":
        if (rule.scale, rule.offset) == (coding.scale, coding.offset):
            return values.astype(dtype, copy=False)
        physical = values * rule.scale + rule.offset
        return np.asarray((physical - coding.offset) / coding.scale, dtype)
    result = values
    if values.dtype != dtype or rule.shift:
        limits = np.iinfo(dtype)
        # What will not be used may be NaN, which has no integer.
        whole = values.astype(np.int64) if values.dtype.kind in "ui" else np.rint(np.where(valid, values, 0))
        # Saturated pixels stay at the end of the range instead of wrapping round.
        result = np.clip(whole + rule.shift, limits.min, limits.max).astype(dtype)
    if not rule.exact:
        return off_nodata(result, coding.nodata)
    if rule.may_clash and bool((valid & (result == coding.nodata)).any()):
        raise clash(rule)
    return result


def clash(rule: Recode) -> SourceError:
    """Say that a scene holds as data what means "no data" in the cube."""
    return SourceError(
        f"{rule.label}: holds {rule.coding.nodata:g} as data, which means 'no data' in this cube. State the "
        "true nodata of the files (open_archive(nodata=…) or raster:bands), or open with dtype='float32'."
    )
