"""Memory for batches that is used again: fresh pages cost as much time as filling them."""

import math
import sys
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np

from cubekit.typing import Array

_WORTH = 1 << 20  # bytes; smaller arrays come cheaply from the heap


class Buffers:
    """Gives out arrays, and memory again that nobody refers to any more; several threads may ask.

    Parameters
    ----------
    make : callable
        Makes an array of uint8 of a number of bytes.
    keep : int, optional
        Pieces of memory to keep.
    """

    def __init__(self, make: Callable[[int], Array], *, keep: int = 8) -> None:
        self._make = make
        self._keep = keep
        self._held: list[Array] = []
        self._lock = Lock()
        lone = [np.empty(1)]
        self._idle = sys.getrefcount(lone[0])  # of what only a list refers to: differs between Pythons

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array of any content."""
        size = math.prod(shape) * dtype.itemsize
        if size < _WORTH:
            return np.empty(shape, dtype)
        with self._lock:  # until the view refers to it
            return self._memory(size).view(dtype).reshape(shape)

    def _memory(self, size: int) -> Array:
        for number in range(len(self._held)):
            # views and tensors of an array hold it, so the count tells whether anyone can still read it
            if sys.getrefcount(self._held[number]) == self._idle and self._held[number].nbytes == size:
                return self._held[number]
        made = self._make(size)
        self._held = [*self._held[-self._keep + 1 :], made]
        return made


def plain_bytes(size: int) -> Array:
    """Return ordinary memory.

    Parameters
    ----------
    size : int
        Bytes.

    Returns
    -------
    numpy.ndarray
        (size,) uint8 of any content.
    """
    return np.empty(size, "uint8")
