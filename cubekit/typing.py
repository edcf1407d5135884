"""Shared aliases. Nothing heavy is imported at run time."""

from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

StrPath: TypeAlias = str | PathLike[str]
"""A local path, or an address where the function says so."""

BBox: TypeAlias = tuple[float, float, float, float]
"""West, south, east, north, in degrees (WGS 84) unless the name says otherwise."""

SomeGeometry: TypeAlias = "BaseGeometry | dict[str, Any]"
"""A shapely geometry or a GeoJSON mapping, in WGS 84."""

Array: TypeAlias = npt.NDArray[Any]
"""Any NumPy array; the docstring says shape and dtype."""

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""A NumPy array of floats."""

IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
"""A NumPy array of integers."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]
"""A NumPy array of booleans."""
