"""One block of a scene: stored numbers in, coded class, probability, entropy and margin out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cubekit.cube.contract import Encoding
from cubekit.errors import PredictionError
from cubekit.prediction.shipping import ShippedModel, one_torch_thread
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

Output = Literal["class", "probability", "entropy", "margin"]

NODATA = 255
"""Stored value of every output where nothing was predicted."""

STEPS = 250
"""Stored steps between 0 and 1: probability, entropy and margin are stored as ``round(value * 250)``."""

BATCH = 1024
"""Series per call of the model. Every call gets exactly this many: a network's rounding may depend on the
shape of its batch, and a map must not depend on how a scene was cut. Larger batches fall out of the cache."""


@dataclass(frozen=True)
class BlockRule:
    """All that a task needs beside the numbers; small, picklable, deterministically tokenised."""

    model: ShippedModel
    encoding: Encoding
    outputs: tuple[Output, ...]
    classes: int

    @property
    def planes(self) -> int:
        """Planes of the packed result: one per output, one per class for ``probability``."""
        return sum(planes_of(output, self.classes) for output in self.outputs)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (
            self.model.token,
            self.encoding.attrs(),
            self.encoding.dtype,
            self.outputs,
            self.classes,
            BATCH,
        )


def planes_of(output: Output, classes: int) -> int:
    """Return how many planes an output takes.

    Parameters
    ----------
    output : str
        Name of the output.
    classes : int
        Number of classes.

    Returns
    -------
    int
        One per class for ``probability``, else one.
    """
    return classes if output == "probability" else 1


def predict_block(stored: Array, where: tuple[int, int], rule: BlockRule) -> IntArray:
    """Predict every pixel of one block.

    Parameters
    ----------
    stored : numpy.ndarray
        Stored numbers ``(time, band, y, x)``.
    where : tuple of int
        Row and column of the block in the scene's blocks, for messages.
    rule : BlockRule
        Model, coding of the numbers, and outputs.

    Returns
    -------
    numpy.ndarray
        ``(plane, y, x)`` uint8, outputs in the order asked for; 255 where no value of the pixel is data, or
        where the model gave no finite probabilities.

    Raises
    ------
    PredictionError
        If the model fails or returns something else than ``(n, classes)``; names the block.
    """
    times, bands, rows, columns = stored.shape
    series = stored.reshape(times, bands, rows * columns)
    packed = np.full((rule.planes, rows * columns), NODATA, dtype="uint8")
    with one_torch_thread():
        for pixels, x in _batches(series, rule.encoding):
            try:
                probabilities = _checked(rule.model.get().probabilities(x), rule.classes)
            except Exception as error:
                raise PredictionError(
                    f"Block {where} of {rows} x {columns} pixels, {times} times, {bands} bands, could not be "
                    f"predicted: {type(error).__name__}: {error}"
                ) from error
            packed[:, pixels] = _pack(probabilities[: pixels.size], rule.outputs)
    return packed.reshape(-1, rows, columns)


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
    valid = _valid(stored, encoding.nodata)
    physical = stored.astype("float32") * np.float32(encoding.scale) + np.float32(encoding.offset)
    physical[~valid] = np.nan
    return physical, valid


def _valid(stored: Array, nodata: float | None) -> BoolArray:
    """Tell data from nodata; NaN is never data."""
    valid = np.ones(stored.shape, dtype=bool)
    if stored.dtype.kind == "f":
        valid &= ~np.isnan(stored)
    if nodata is not None and not np.isnan(nodata):
        valid &= stored != stored.dtype.type(nodata)
    return valid


def _batches(series: Array, encoding: Encoding) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield pixel numbers and their series ``(BATCH, time, band)``, pixels without any data left out."""
    observed = np.zeros(series.shape[-1], dtype=bool)
    for time in series:  # one date at a time: the mask of a whole block would be half as large as the block
        observed |= _valid(time, encoding.nodata).any(axis=0)
    pixels = np.flatnonzero(observed)
    for start in range(0, pixels.size, BATCH):
        chosen = pixels[start : start + BATCH]
        padded = np.resize(chosen, BATCH)  # the last batch repeats its own pixels up to full size
        x, _ = physical_series(series[:, :, padded], encoding)
        yield chosen, np.ascontiguousarray(x.transpose(2, 0, 1))


def _checked(probabilities: FloatArray, classes: int) -> FloatArray:
    """Raise unless the model returned one row per series and one column per class."""
    if probabilities.shape != (BATCH, classes):
        raise PredictionError(
            f"the model returned shape {probabilities.shape}, expected ({BATCH}, {classes})"
        )
    return probabilities


def _pack(probabilities: FloatArray, outputs: Sequence[Output]) -> Array:
    """Code probabilities ``(n, classes)`` as planes ``(plane, n)`` of uint8."""
    known = np.asarray(np.isfinite(probabilities).all(axis=1))
    clean = np.where(known[:, None], probabilities, 0)
    planes: dict[Output, Array] = {}
    if "class" in outputs:
        planes["class"] = clean.argmax(axis=1)[None].astype("uint8")
    if "probability" in outputs:
        planes["probability"] = _steps(clean.T)
    if "entropy" in outputs:
        planes["entropy"] = _steps(_entropy(clean))[None]
    if "margin" in outputs:
        best = np.sort(clean, axis=1)[:, -2:]
        planes["margin"] = _steps(best[:, 1] - best[:, 0])[None]
    packed: Array = np.concatenate([planes[output] for output in outputs])
    packed[:, ~known] = NODATA
    return packed


def _entropy(probabilities: FloatArray) -> FloatArray:
    """Return Shannon's entropy over its largest possible value, 0 (sure) to 1 (no idea)."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    entropy: FloatArray = -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])
    return entropy


def _steps(values: FloatArray) -> Array:
    """Store 0-1 as 0-250."""
    return np.rint(np.clip(values, 0, 1) * STEPS).astype("uint8")
