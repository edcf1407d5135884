"""Seeded changes to training batches: flips and turns of patches, lost dates, noise."""

from dataclasses import dataclass

import numpy as np

from cubekit.errors import OptionError
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

_TRANSPOSED = 4  # bit of a turn that swaps rows and columns; bits 1 and 2 flip them


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is changed at random in training batches; labels follow the pixels.

    Drawn from the seed of the stream, the epoch and the number of the item: equal for any number of workers.
    """

    flip: bool = False
    """Mirror patches up-down and left-right, each with probability one half."""

    rotate: bool = False
    """Turn square patches by 0, 90, 180 or 270 degrees."""

    drop_dates: float = 0.0
    """Probability that a date of a sample is taken away: its values become NaN and invalid."""

    jitter: float = 0.0
    """Standard deviation of noise added to every value, in physical units (0.01 for reflectance)."""

    gain: float = 0.0
    """Standard deviation of the factor around 1 that each band of a sample is multiplied by."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_dates < 1:
            raise OptionError(f"drop_dates={self.drop_dates!r} must be a probability below 1.")
        if min(self.jitter, self.gain) < 0:
            raise OptionError(f"jitter={self.jitter!r} and gain={self.gain!r} must not be negative.")

    def turns(self, count: int, seed: tuple[int, ...]) -> IntArray:
        """Draw how each patch is turned.

        Parameters
        ----------
        count : int
            Patches in an epoch.
        seed : tuple of int
            Of the stream and the epoch.

        Returns
        -------
        numpy.ndarray
            (count,) uint8 for :func:`turned`.
        """
        random = np.random.default_rng((*seed, 2))
        codes = np.zeros(count, "uint8")
        if self.rotate:  # quarter turns are a transposition with one flip
            codes = np.array([0, _TRANSPOSED | 1, 3, _TRANSPOSED | 2], "uint8")[random.integers(0, 4, count)]
        if self.flip:
            codes ^= random.integers(0, 4, count).astype("uint8")
        return codes

    def altered(
        self, x: FloatArray, valid: BoolArray, numbers: IntArray, seed: tuple[int, ...]
    ) -> tuple[FloatArray, BoolArray]:
        """Take dates away and add noise.

        Parameters
        ----------
        x : numpy.ndarray
            (n, time, band, ...) physical values.
        valid : numpy.ndarray
            Same shape; what is data.
        numbers : numpy.ndarray
            (n,) numbers of the items.
        seed : tuple of int
            Of the stream and the epoch.

        Returns
        -------
        x : numpy.ndarray
            Changed copy, NaN on dates taken away; every sample that had data keeps a date of it.
        valid : numpy.ndarray
            False there.
        """
        x, valid = x.copy(), valid.copy()
        for each, number in enumerate(numbers.tolist()):
            random = np.random.default_rng((*seed, 3, number))
            if self.gain:
                factor = 1 + self.gain * random.standard_normal((x.shape[2], *[1] * (x.ndim - 3)), "float32")
                x[each] *= factor
            if self.jitter:
                x[each] += self.jitter * random.standard_normal(x.shape[1:], dtype="float32")
            if self.drop_dates:
                lost = np.less(random.random(x.shape[1]), self.drop_dates)
                seen = valid[each].reshape(x.shape[1], -1).any(axis=1)
                if seen.any() and not (seen & ~lost).any():
                    lost[random.choice(np.flatnonzero(seen))] = False
                x[each][lost] = np.nan
                valid[each][lost] = False
        return x, valid


def turned(values: Array, code: int) -> Array:
    """Flip and transpose the last two dimensions.

    Parameters
    ----------
    values : numpy.ndarray
        (..., y, x).
    code : int
        Bit 1 flips rows, bit 2 columns, bit 4 swaps both before.

    Returns
    -------
    numpy.ndarray
        A view.
    """
    if code & _TRANSPOSED:
        values = values.swapaxes(-1, -2)
    if code & 1:
        values = values[..., ::-1, :]
    return values[..., ::-1] if code & 2 else values
