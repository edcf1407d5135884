"""Compiled kernels where numba is installed: the same numbers as NumPy gives, in one pass over a block.

``CUBEKIT_NUMBA=0`` in the environment turns them off. They are compiled when first needed, never at import,
and kept on disk by numba.
"""

from typing import TYPE_CHECKING, Any

from cubekit.typing import Array, BoolArray

if TYPE_CHECKING:
    from cubekit.cube.lay import Loaded, Recode


def lay(loaded: "Loaded", rule: "Recode", out: Array, status: Array, hidden: BoolArray | None) -> bool:
    return False
