"""One block of a scene with a model of pixel series: stored numbers in, coded layers out."""

from collections.abc import Iterator

import numpy as np

from cubekit.cube.contract import Encoding
from cubekit.errors import PredictionError
from cubekit.prediction.outputs import NODATA, pack
from cubekit.prediction.rule import BATCH, Rule
from cubekit.prediction.shipping import torch_threads
from cubekit.typing import Array, BoolArray, FloatArray, IntArray


def predict_block(stored: Array, where: tuple[int, int], rule: Rule, *layers: Array) -> Array:
    """Predict every pixel of one block.

    Parameters
    ----------
    stored : numpy.ndarray
        Stored numbers ``(time, band, y, x)``.
    where : tuple of int
        Row and column of the block in the scene's blocks, for messages.
    rule : Rule
        Model, coding of the numbers, and layers.
    *layers : numpy.ndarray
        Stored numbers ``(y, x)`` of the ancillary layers that the model takes, in its order.

    Returns
    -------
    numpy.ndarray
        ``(plane, y, x)`` uint8, layers in the order asked for; 255 where no value of the pixel is data, or
        where the model gave nothing finite. float32 and NaN for values.

    Raises
    ------
    PredictionError
        If the model fails or returns something else than ``(n, k)``; names the block.
    """
    times, bands, rows, columns = stored.shape
    series = stored.reshape(times, bands, rows * columns)
    packed = empty_planes(rule, rows * columns)
    with torch_threads():
        for pixels, padded in _batches(series, rule.codings[0]):
            inputs = _inputs(series, layers, padded, rule)
            try:
                values = _checked(rule.forward()(*inputs), rule)[: pixels.size].T
            except Exception as error:
                raise PredictionError(
                    f"Block {where} of {rows} x {columns} pixels, {times} times, {bands} bands, could not be "
                    f"predicted: {type(error).__name__}: {error}"
                ) from error
            packed[:, pixels] = packed_of(values, rule)
    return packed.reshape(-1, rows, columns)


def empty_planes(rule: Rule, pixels: int) -> Array:
    """Return planes of nodata.

    Parameters
    ----------
    rule : Rule
        With the layers.
    pixels : int
        Length of a plane.

    Returns
    -------
    numpy.ndarray
        ``(plane, pixels)``.
    """
    nodata = np.nan if rule.dtype == "float32" else NODATA
    return np.full((rule.planes, pixels), nodata, dtype=rule.dtype)


def packed_of(values: FloatArray, rule: Rule) -> Array:
    """Code what one or several members gave.

    Parameters
    ----------
    values : numpy.ndarray
        ``(k, n)``, or mean and standard deviation ``(2 k, n)``.
    rule : Rule
        With the layers.

    Returns
    -------
    numpy.ndarray
        ``(plane, n)``.
    """
    spread = values[rule.count :] if len(values) > rule.count else None
    return pack(values[: rule.count], rule.outputs, rule.kind, spread)


def physical_series(stored: Array, encoding: Encoding) -> tuple[FloatArray, BoolArray]:
    """Decode stored numbers as :func:`cubekit.cube.contract.to_physical` does, in one batch's memory.

    Parameters
    ----------
    stored : numpy.ndarray
        Any shape.
    encoding : Encoding
        Coding of the numbers.

    Returns
    -------
    physical : numpy.ndarray
        float32, NaN where there is no data.
    valid : numpy.ndarray
        Booleans of the same shape.
    """
    valid = is_data(stored, encoding.nodata)
    physical = stored.astype("float32") * np.float32(encoding.scale) + np.float32(encoding.offset)
    physical[~valid] = np.nan
    return physical, valid


def is_data(stored: Array, nodata: float | None) -> BoolArray:
    """Tell data from nodata; NaN is never data.

    Parameters
    ----------
    stored : numpy.ndarray
        Any shape.
    nodata : float or None
        Stored nodata value.

    Returns
    -------
    numpy.ndarray
        Booleans of the same shape.
    """
    valid = np.ones(stored.shape, dtype=bool)
    if stored.dtype.kind == "f":
        valid &= ~np.isnan(stored)
    if nodata is not None and not np.isnan(nodata):
        valid &= stored != stored.dtype.type(nodata)
    return valid


def observed(stored: Array, encoding: Encoding) -> BoolArray:
    """Tell which pixels hold data in any band at any time.

    Parameters
    ----------
    stored : numpy.ndarray
        ``(time, band, …)``.
    encoding : Encoding
        Coding of the numbers.

    Returns
    -------
    numpy.ndarray
        Booleans ``(…)``. One date at a time: the mask of a whole block would be half as large as the block.
    """
    found = np.zeros(stored.shape[2:], dtype=bool)
    for time in stored:
        found |= is_data(time, encoding.nodata).any(axis=0)
        if found.all():  # usually at the first clear date
            break
    return found


def _inputs(series: Array, layers: tuple[Array, ...], pixels: IntArray, rule: Rule) -> list[Array]:
    """Return what the model takes of pixels: stored numbers, or physical series ``(n, time, band)``.

    Physical numbers ``(n, a)`` of layers follow where it takes them.
    """
    if getattr(rule.forward(), "takes_stored", False):
        first, last = pixels[0], pixels[-1]
        aside = last - first == len(pixels) - 1  # neighbours, as most often: nothing is copied
        return [series[:, :, first : last + 1] if aside else series[:, :, pixels]]
    x, _ = physical_series(series[:, :, pixels], rule.codings[0])
    inputs: list[Array] = [np.ascontiguousarray(x.transpose(2, 0, 1))]
    if layers:
        columns = [
            physical_series(layer.ravel()[pixels], coding)[0]
            for layer, coding in zip(layers, rule.codings[1:], strict=True)
        ]
        inputs.append(np.stack(columns, axis=1))
    return inputs


def _batches(series: Array, encoding: Encoding) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pixel numbers, and the same filled up to `BATCH`, pixels without any data left out."""
    pixels = np.flatnonzero(observed(series, encoding))
    for start in range(0, pixels.size, BATCH):
        chosen = pixels[start : start + BATCH]
        yield chosen, np.resize(chosen, BATCH)  # the last batch repeats its own pixels up to full size


def _checked(values: FloatArray, rule: Rule) -> FloatArray:
    """Raise unless the model returned one row per series and one column per value."""
    table = values[:, None] if values.ndim == 1 else values
    if table.shape not in {(BATCH, rule.count), (BATCH, 2 * rule.count)}:
        raise PredictionError(f"the model returned shape {values.shape}, expected ({BATCH}, {rule.count})")
    return table
