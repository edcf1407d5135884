"""STARFM's window for numba: the arithmetic of :mod:`cubekit.evaluation.fusion_filters` in the same order.

Arguments are prepared there, by the only caller; numba finds the types.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, D103, PLR0913, PLR0917

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    """Compile on first call; keep the result on disk where a folder can be written."""
    try:
        made: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache, as in a read-only image
        made = numba.njit(nogil=True)(function)
    return made  # type: ignore[no-any-return]


@_compiled
def weigh_window(fine, spectral, temporal, most, change, share, threshold, far, total, weights):
    half = far.shape[0] // 2
    bands, height, width = fine.shape
    for band in range(bands):
        for y in range(height):
            for x in range(width):
                if share[band, y, x] == 0:
                    continue
                centre = fine[band, y, x]
                most_spectral, most_temporal = most[0, band, y, x], most[1, band, y, x]
                for i in range(max(0, y - half), min(height, y + half + 1)):
                    for j in range(max(0, x - half), min(width, x + half + 1)):
                        if not abs(fine[band, i, j] - centre) <= threshold[band]:
                            continue
                        if spectral[band, i, j] > most_spectral or temporal[band, i, j] > most_temporal:
                            continue
                        weight = share[band, i, j] / far[i - y + half, j - x + half]
                        weights[band, y, x] += weight
                        total[band, y, x] += weight * change[band, i, j]
