"""Grids in HDF-EOS2 files (HDF4), such as MODIS land products; read by pyhdf, for GDAL's wheels cannot.

Callers hold the lock of `cubekit.sources.hdf.alone`: the HDF4 library is not built for threads.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import rasterio
from affine import Affine

from cubekit.errors import MissingDependencyError, SourceError
from cubekit.typing import Array

DRIVER: Final = "HDF4"
"""Name that stands for this reader among the drivers of GDAL."""

_MAGIC: Final = b"\x0e\x03\x13\x01"
_TYPES: Final = {
    5: "float32",
    6: "float64",
    20: "int8",
    21: "uint8",
    22: "int16",
    23: "uint16",
    24: "int32",
    25: "uint32",
}
_NUMBERS: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class GridLayer:
    """One field of a grid, and how its numbers are coded."""

    name: str
    dtype: str
    shape: tuple[int, int]
    crs: str
    """WKT."""

    transform: tuple[float, float, float, float, float, float]
    nodata: float | None
    scale: float
    offset: float


def list_layers(path: Path) -> list[GridLayer]:
    """List the two-dimensional fields of all grids of a file.

    Parameters
    ----------
    path : pathlib.Path
        HDF-EOS2 file.

    Returns
    -------
    list of GridLayer
        In the order of the file. Fields of three dimensions are left out. Scales above 1 are read as
        divisors, as MODIS land products mean them.

    Raises
    ------
    SourceError
        If the file is no HDF4, has no grid, or one in a projection that is not known.
    MissingDependencyError
        Without pyhdf.
    """
    file = _open(path)
    try:
        attributes = file.attributes()
        text = "".join(str(attributes[key]) for key in sorted(attributes) if key.startswith("StructMetadata"))
        places = _fields(text, path.name)
        found = []
        for name, (_, shape, kind, _) in file.datasets().items():
            if name in places and tuple(shape) == places[name].shape and kind in _TYPES:
                found.append(_layer(name, _TYPES[kind], places[name], file.select(name).attributes()))
    finally:
        file.end()
    if not found:
        raise SourceError(f"{path.name} holds no grid (StructMetadata lists {sorted(places) or 'none'}).")
    return found


class GridFile:
    """One field of a file, with the part of `rasterio.DatasetReader` that cubekit's reader uses.

    Parameters
    ----------
    path : str
        Local HDF-EOS2 file.
    variable : str or None
        Name of the field; None where the file has one only.
    """

    count: Final = 1

    def __init__(self, path: str, variable: str | None) -> None:
        local = Path(path.removeprefix("file://"))
        layers = {layer.name: layer for layer in list_layers(local)}
        name = next(iter(layers)) if variable is None and len(layers) == 1 else variable
        if name not in layers:
            raise SourceError(f"{local.name} has no field {variable!r}; it has {', '.join(layers)}.")
        layer = layers[name]
        self._file = _open(local)
        self._data = self._file.select(name)
        self.shape = layer.shape
        self.dtypes = (layer.dtype,)
        self.nodatavals = (layer.nodata,)
        self.crs = rasterio.CRS.from_wkt(layer.crs)
        self.transform = Affine(*layer.transform)

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.shape[1]

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def read(self, index: int, *, window: tuple[tuple[int, int], tuple[int, int]] | None = None) -> Array:
        """Read stored numbers.

        Parameters
        ----------
        index : int
            1, the only band.
        window : pair of pairs of int, optional
            First row and the row after the last, the same for columns. Default: everything.

        Returns
        -------
        numpy.ndarray
            Shape (rows, columns), dtype of the file.
        """
        if index != 1:
            raise IndexError(f"band {index} of 1")
        (top, bottom), (left, right) = window or ((0, self.height), (0, self.width))
        values = self._data.get(start=(top, left), count=(bottom - top, right - left))
        return np.asarray(values).reshape(bottom - top, right - left).astype(self.dtypes[0], copy=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the field and the file."""
        self._data.endaccess()
        self._file.end()


def _open(path: Path) -> Any:
    try:
        from pyhdf.error import HDF4Error
        from pyhdf.SD import SD, SDC
    except ImportError as error:
        raise MissingDependencyError(f"{path.name} is read by pyhdf: pip install 'cubekit[hdf4]'.") from error
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path.name} is no HDF4 file, whatever its name says.")
    try:
        return SD(str(path), SDC.READ)
    except HDF4Error as error:
        raise SourceError(f"{path.name} cannot be read as HDF4: {error}") from None


@dataclass(frozen=True)
class _Place:
    """Where the grid of a field lies."""

    shape: tuple[int, int]
    transform: tuple[float, float, float, float, float, float]
    crs: str


def _fields(text: str, name: str) -> Mapping[str, _Place]:
    """Read the structure (an ODL text) of a file: the place of each field."""
    found = {}
    for grid in re.split(r"(?<!END_)GROUP=GRID_\d+\s", text.split("GROUP=GridStructure", maxsplit=1)[-1])[1:]:
        place = _place(grid, name)
        for field in re.findall(r'DataFieldName="([^"]+)"', grid):
            found[field] = place
    return found


def _place(grid: str, name: str) -> _Place:
    rows, columns = int(_value(grid, "YDim", name)[0]), int(_value(grid, "XDim", name)[0])
    left, top = _value(grid, "UpperLeftPointMtrs", name)
    right, bottom = _value(grid, "LowerRightMtrs", name)
    projection = re.search(r"Projection=(?:HE5_)?GCTP_(\w+)", grid)
    kind = projection[1] if projection else "none"
    if kind == "SNSOID":
        radius, *others = _value(grid, "ProjParams", name)
        crs = _sinusoidal(radius or 6370997.0, others[3] if len(others) > 3 else 0.0)  # noqa: PLR2004
    elif kind == "GEO":
        left, top, right, bottom = (_degrees(value) for value in (left, top, right, bottom))
        crs = _wkt("EPSG:4326")
    else:
        raise SourceError(f"{name} is in projection {kind}; known are SNSOID (sinusoidal) and GEO.")
    a, e = (right - left) / columns, (bottom - top) / rows
    return _Place((rows, columns), (a, 0.0, left, 0.0, e, top), crs)


def _value(grid: str, key: str, name: str) -> Sequence[float]:
    """Return the numbers after a key."""
    found = re.search(rf"\b{key}=([^\n]+)", grid)
    numbers = [float(text) for text in _NUMBERS.findall(found[1])] if found else []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise SourceError(f"{name}: StructMetadata has no usable {key}.")
    return numbers


def _sinusoidal(radius: float, meridian: float) -> str:
    return _wkt(f"+proj=sinu +lon_0={_degrees(meridian):g} +x_0=0 +y_0=0 +R={radius:.10g} +units=m +no_defs")


@lru_cache(maxsize=16)
def _wkt(crs: str) -> str:
    return str(rasterio.CRS.from_string(crs).to_wkt())


def _degrees(packed: float) -> float:
    """Turn DDDMMMSSS.SS into degrees."""
    whole = abs(packed)
    degrees, minutes = divmod(whole // 1e3, 1e3)
    return math.copysign(degrees + minutes / 60 + (whole % 1e3) / 3600, packed)


def _layer(name: str, dtype: str, place: _Place, attributes: Mapping[str, Any]) -> GridLayer:
    fill, scale = attributes.get("_FillValue"), float(attributes.get("scale_factor", 1.0)) or 1.0
    return GridLayer(
        name=name,
        dtype=dtype,
        shape=place.shape,
        crs=place.crs,
        transform=place.transform,
        nodata=None if fill is None else float(fill),
        scale=1.0 / scale if scale > 1 else scale,
        offset=float(attributes.get("add_offset", 0.0)),
    )
