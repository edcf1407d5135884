"""Statistics of numbers that come block by block: mean and spread, and percentiles in bounded memory."""

import numpy as np
import numpy.typing as npt

from cubekit.typing import Array, FloatArray, IntArray

_MOST = 1 << 16  # distinct values that a percentile is counted by: more are put together, 0.01 % apart
_SMALL = 2  # bytes of whole numbers that are counted in a table


class Moments:
    """Mean and standard deviation, merged block by block.

    Chan, Golub and LeVeque (1979), http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.least, self.most = np.inf, -np.inf
        self._squares = 0.0

    def add(self, values: Array) -> None:
        """Count numbers in.

        Parameters
        ----------
        values : numpy.ndarray
            (n,) numbers, no NaN.
        """
        if not values.size:
            return
        wide = values.astype("float64")
        mean, count = float(wide.mean()), wide.size
        shift, total = mean - self.mean, self.count + count
        self._squares += float(np.square(wide - mean).sum()) + shift * shift * self.count * count / total
        self.mean += shift * count / total
        self.count = total
        self.least, self.most = min(self.least, float(wide.min())), max(self.most, float(wide.max()))

    @property
    def std(self) -> float:
        """Standard deviation of all numbers so far, as of a population."""
        return float(np.sqrt(self._squares / max(1, self.count)))


class Tally:
    """Counts of values, for percentiles: exact up to 65,536 distinct values, beyond to a ten thousandth.

    Whole numbers are counted as they are; floats by their bits, in the order of their values. Where there are
    too many distinct ones, the last bits are dropped until there are not.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the numbers that will come; floats are counted as float32.
    """

    def __init__(self, dtype: np.dtype[np.generic]) -> None:
        self._dtype = dtype if dtype.kind in "iub" else np.dtype("float32")
        self._dropped = 0
        self._keys: IntArray = np.empty(0, "int64")
        self._counts: IntArray = np.empty(0, "int64")

    @property
    def count(self) -> int:
        """Numbers counted so far."""
        return int(self._counts.sum())

    @property
    def distinct(self) -> int:
        """Values that are told apart."""
        return len(self._keys)

    def add(self, values: Array) -> None:
        """Count numbers in.

        Parameters
        ----------
        values : numpy.ndarray
            (n,) numbers of one type, no NaN.
        """
        if not values.size:
            return
        if self._dtype.kind == "u" and self._dtype.itemsize <= _SMALL:
            table = np.bincount(values)
            keys = np.flatnonzero(table)
            counts = table[keys]
        else:
            keys, counts = np.unique(_keys(values, self._dtype), return_counts=True)
        self._merge(
            np.concatenate([self._keys, keys >> self._dropped]), np.concatenate([self._counts, counts])
        )
        while len(self._keys) > _MOST:
            self._dropped += 1
            self._merge(self._keys >> 1, self._counts)

    def _merge(self, keys: IntArray, counts: IntArray) -> None:
        """Put equal keys together."""
        self._keys, place = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(place, weights=counts, minlength=len(self._keys)).astype("int64")

    def percentiles(self, wanted: npt.ArrayLike) -> FloatArray:
        """Return percentiles of all numbers so far.

        Parameters
        ----------
        wanted : array_like
            From 0 to 100.

        Returns
        -------
        numpy.ndarray
            float64, as ``numpy.percentile`` gives with its linear method.
        """
        ends, total = np.cumsum(self._counts), self.count
        at = np.asarray(wanted, "float64") / 100 * (total - 1)
        low, high = (
            _values(
                self._keys[np.searchsorted(ends, each.astype("int64"), side="right")],
                self._dropped,
                self._dtype,
            )
            for each in (np.floor(at), np.ceil(at))
        )
        found: FloatArray = low + (high - low) * (at - np.floor(at))
        return found


def _keys(values: Array, dtype: np.dtype[np.generic]) -> IntArray:
    """Return whole numbers in the order of the values."""
    if dtype.kind != "f":
        return values.astype("int64")
    bits = np.ascontiguousarray(values, "float32").view("int32").astype("int64")
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _values(keys: IntArray, dropped: int, dtype: np.dtype[np.generic]) -> FloatArray:
    """Return the values of keys; the middle of what was put together."""
    whole = (keys << dropped) + ((1 << dropped) >> 1)
    if dtype.kind != "f":
        return whole.astype("float64")
    bits = np.where(whole < 0, -whole, whole).astype("int32").view("float32").astype("float64")
    return np.where(whole < 0, -bits, bits)
