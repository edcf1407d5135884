"""Coordinates from one CRS to another."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from cubekit.typing import FloatArray

if TYPE_CHECKING:
    from pyproj import Transformer

_MANY = 2**14  # points for which it does not matter what it takes to prepare the transformation


def project(source: str, target: str, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Transform coordinates, x before y whatever the CRSs say.

    Parameters
    ----------
    source, target : str
        CRSs as text.
    x, y : numpy.ndarray
        Of equal shape.

    Returns
    -------
    tuple of numpy.ndarray
        Not finite where the target has no such place.

    Notes
    -----
    PROJ prepares a transformation anew in every thread that asks for it, which takes 40 ms. So one thread
    does it for all others, unless points are many.
    """
    if x.size > _MANY:
        return _project(source, target, x, y)
    return _worker(os.getpid()).submit(_project, source, target, x, y).result()


def _project(source: str, target: str, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    found: tuple[FloatArray, FloatArray] = _transformer(source, target).transform(x, y)
    return found


@lru_cache(maxsize=1)
def _worker(process: int) -> ThreadPoolExecutor:  # noqa: ARG001  (a forked process gets a thread of its own)
    return ThreadPoolExecutor(1, "cubekit-project")


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> "Transformer":
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)
