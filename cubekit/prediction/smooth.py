"""Maps without specks: neighbours have a say, by Bayes' rule or by majority; small patches are dissolved."""

from functools import partial
from typing import Any, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr

from cubekit.cube.blocks import working_memory
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.prediction.outputs import NODATA, STEPS
from cubekit.typing import Array, FloatArray

Method = Literal["bayes", "majority"]

_LEAST = 0.5 / STEPS  # a stored probability of 0 or 1 may be this far from it: logits stay finite


def smooth(
    prediction: xr.Dataset,
    *,
    method: Method | None = "bayes",
    size: int = 7,
    smoothness: float = 20.0,
    share: float = 0.5,
    sieve: int = 0,
) -> xr.Dataset:
    """Take specks out of a class map.

    ``bayes`` pulls the logits of each class towards the mean of the neighbours that believe in it most, the
    more the less they differ among each other (Camara et al. 2024, https://doi.org/10.3390/rs16234572):
    ``(v x + s m) / (v + s)`` with the logit x, mean m and variance v of the neighbours, and the smoothness s.
    ``majority`` gives each pixel the class that most pixels around it have; where several are as frequent it
    keeps its own if that is among them, and takes the first of them if not. Both look over the edges of
    blocks, so that none show. ``sieve`` then merges patches of fewer pixels with their largest neighbour.

    Parameters
    ----------
    prediction : xarray.Dataset
        With ``class``, and for ``bayes`` with ``probability``, as `cubekit.predict` gives them.
    method : {"bayes", "majority"} or None, optional
        How neighbours are heard; None leaves them out.
    size : int, optional
        Pixels a side of the neighbourhood; odd.
    smoothness : float, optional
        Prior variance s of the logits, above 0; the larger, the smoother. Not used by ``majority``.
    share : float, optional
        Share of the neighbours that is heard by ``bayes``: the most convinced ones, which keeps edges sharp.
    sieve : int, optional
        Patches of fewer pixels than this, joined by sides, are merged; 0 leaves them. The whole class map is
        held in memory for that, a few bytes a pixel: a patch may cross any number of blocks.

    Returns
    -------
    xarray.Dataset
        The same layers, lazy: ``class``, and with ``bayes`` ``probability``, smoothed, coded as before. What
        was nodata stays so and is no neighbour. Entropy and margin stay those of the model.

    Raises
    ------
    OptionError
        For options that cannot be meant.
    CubeError
        If a layer is missing.
    """
    _check(prediction, method, size=size, smoothness=smoothness, share=share, sieve=sieve)
    made = prediction.copy()
    if method == "bayes":
        shares = _spread(
            prediction["probability"], size, partial(bayes_block, size=size, prior=smoothness, share=share)
        )
        made["probability"] = prediction["probability"].copy(data=shares)
        made["class"] = prediction["class"].copy(data=_classes(shares))
    elif method == "majority":
        count = len(prediction["class"].attrs["classes"])
        voted = _spread(prediction["class"], size, partial(majority_block, size=size, classes=count))
        made["class"] = prediction["class"].copy(data=voted)
    if sieve:
        made["class"] = made["class"].copy(data=_sieved(made["class"], sieve))
    steps = [f"{method} {size} px"] if method else []
    made.attrs["smoothing"] = ", ".join(steps + ([f"sieve {sieve} px"] if sieve else []))
    return made


def _check(
    prediction: xr.Dataset, method: Method | None, *, size: int, smoothness: float, share: float, sieve: int
) -> None:
    """Raise for options that cannot be meant."""
    if method is None and not sieve:
        raise OptionError("Nothing to do: give a method, or a sieve.")
    if method is not None:
        check_option("method", method, get_args(Method))
    if size < 3 or size % 2 == 0:  # noqa: PLR2004  (one pixel and its neighbours)
        raise OptionError(f"size={size!r}: a neighbourhood has an odd number of pixels a side, 3 or more.")
    if smoothness <= 0 or not 0 < share <= 1 or sieve < 0:
        raise OptionError(
            f"smoothness={smoothness!r}, share={share!r}, sieve={sieve!r}: smoothness lies above 0, share "
            "above 0 and up to 1, sieve at 0 or above."
        )
    for name in ("class", *(("probability",) if method == "bayes" else ())):
        if name not in prediction:
            raise CubeError(f"The prediction has no layer {name!r}: predict with outputs=(…, {name!r}).")


def _spread(layer: xr.DataArray, size: int, function: Any) -> da.Array:
    """Apply a function to blocks with as much around them as a neighbourhood needs."""
    blocks = layer.data if layer.chunks else layer.chunk({"y": 512, "x": 512}).data
    blocks = blocks.rechunk(dict.fromkeys(range(blocks.ndim - 2), -1))
    depth = {blocks.ndim - 2: size // 2, blocks.ndim - 1: size // 2}
    result: da.Array = da.map_overlap(  # type: ignore[no-untyped-call]
        function,
        blocks,
        depth=depth,
        boundary="none",
        dtype="uint8",
        meta=np.empty((0,) * blocks.ndim, "uint8"),
    )
    return result


@working_memory(each=64)
def bayes_block(stored: Array, *, size: int, prior: float, share: float) -> Array:
    """Smooth probabilities of one block.

    Parameters
    ----------
    stored : numpy.ndarray
        ``(class, y, x)`` uint8, steps of 1/250, 255 is nodata.
    size : int
        Pixels a side of the neighbourhood.
    prior : float
        Smoothness.
    share : float
        Share of the neighbours that is heard.

    Returns
    -------
    numpy.ndarray
        The same shape and coding.
    """
    known = (stored != NODATA).all(axis=0)
    logits = np.empty(stored.shape, "float32")
    for number, layer in enumerate(stored):
        p = np.clip(layer.astype("float32") / STEPS, _LEAST, 1 - _LEAST)
        own = np.where(known, np.log(p / (1 - p)), np.nan)
        for first in range(0, len(own), _ROWS):  # a neighbourhood a pixel: a few rows at a time
            rows = slice(first, min(first + _ROWS, len(own)))
            logits[number, rows] = _pulled(own, rows, size, prior, share)
    p = 1 / (1 + np.exp(-logits))
    p /= p.sum(axis=0)
    return np.where(known, np.rint(np.nan_to_num(p) * STEPS), NODATA).astype("uint8")


_ROWS = 32


def _pulled(own: FloatArray, rows: slice, size: int, prior: float, share: float) -> FloatArray:
    """Pull logits towards the mean of the most convinced neighbours."""
    half = size // 2
    width = own.shape[1]
    around = np.full((rows.stop - rows.start + 2 * half, width + 2 * half), np.nan, "float32")
    first, last = max(0, rows.start - half), min(len(own), rows.stop + half)
    start = first - rows.start + half
    around[start : start + last - first, half : half + width] = own[first:last]
    views = np.lib.stride_tricks.sliding_window_view(around, (size, size))
    ordered = np.sort(-views.reshape(*views.shape[:2], -1), axis=-1)  # nodata last
    count = np.isfinite(ordered).sum(axis=-1)
    heard = np.maximum(1, np.ceil(count * share)).astype(int)
    chosen = np.arange(ordered.shape[-1]) < np.minimum(heard, np.maximum(count, 1))[..., None]
    values = np.where(chosen, -np.nan_to_num(ordered), 0)
    mean = values.sum(axis=-1) / heard
    variance = (np.where(chosen, values - mean[..., None], 0) ** 2).sum(axis=-1) / np.maximum(heard - 1, 1)
    pulled: FloatArray = (variance * own[rows] + prior * mean) / (variance + prior)
    return pulled


@working_memory(each=16)
def majority_block(stored: Array, *, size: int, classes: int) -> Array:
    """Give each pixel of one block the commonest class around it.

    Parameters
    ----------
    stored : numpy.ndarray
        ``(y, x)`` uint8 class index, 255 is nodata.
    size : int
        Pixels a side of the neighbourhood.
    classes : int
        Number of classes.

    Returns
    -------
    numpy.ndarray
        The same shape and coding.
    """
    from scipy.ndimage import convolve1d

    ones = np.ones(size, "int32")
    best = np.full(stored.shape, -1, "int32")
    winner = stored.copy()
    for number in range(classes):
        mine = stored == number
        votes = convolve1d(
            convolve1d(mine.astype("int32"), ones, 0, mode="constant"), ones, 1, mode="constant"
        )
        votes = 2 * votes + mine  # of the commonest ones its own
        winner[votes > best] = number
        best = np.maximum(best, votes)
    winner[stored == NODATA] = NODATA
    return winner


def _classes(shares: da.Array) -> da.Array:
    """Return the likeliest class of stored probabilities."""

    def likeliest(block: Array) -> Array:
        return np.where(block[0] == NODATA, NODATA, block.argmax(axis=0)).astype("uint8")

    whole = shares.rechunk({0: -1})  # type: ignore[no-untyped-call]
    result: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        likeliest, whole, drop_axis=0, dtype="uint8", meta=np.empty((0, 0), "uint8")
    )
    return result


def _sieved(classes: xr.DataArray, least: int) -> da.Array:
    """Merge small patches; the map is one block while that happens."""
    chunks = classes.chunks
    whole = (classes.data if chunks else classes.chunk().data).rechunk(-1)
    merged: da.Array = da.map_blocks(sieve_block, whole, least=least, dtype="uint8")  # type: ignore[no-untyped-call]
    return merged.rechunk(chunks) if chunks else merged  # type: ignore[no-untyped-call]


def sieve_block(stored: Array, *, least: int) -> Array:
    """Merge patches of a class map with their largest neighbour.

    Parameters
    ----------
    stored : numpy.ndarray
        ``(y, x)`` uint8 class index, 255 is nodata.
    least : int
        Patches of fewer pixels, joined by sides, are merged.

    Returns
    -------
    numpy.ndarray
        The same shape and coding.
    """
    from rasterio.features import sieve

    known = stored != NODATA
    if not known.any():
        return stored
    merged: Array = sieve(np.ascontiguousarray(stored), least, mask=known, connectivity=4)
    return np.where(known, merged, NODATA).astype("uint8")
