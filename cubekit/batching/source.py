"""A cube as a stream reads it: straight from its chunks, with labels, masks and more beside each pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from cubekit.batching.blocks import Chunks
from cubekit.batching.decode import day_of_year
from cubekit.cube.contract import MAIN, Encoding, check_cube, encoding_of
from cubekit.errors import OptionError
from cubekit.store.open import StoredArray
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

_TOLERANCE = 1e-3  # pixels that two grids may differ by: rounding in coordinates, never a shift
_CHUNK = 256  # pixels; side of a block where the data has no chunks
_SCENE = 512  # pixels; a chunk of one date that is as wide was written for maps, not for learning

Raster = xr.DataArray | Array

Lead: TypeAlias = tuple[slice, ...]
"""Part of all dimensions before rows and columns."""


class Reader:
    """Windows of a lazy variable without Dask's scheduler, where it comes straight from a store.

    Parameters
    ----------
    variable : xarray.DataArray
        With ``y`` and ``x`` last; in memory, lazy, or with Dask chunks.
    """

    def __init__(self, variable: xr.DataArray) -> None:
        self._variable = variable
        self._stored = _stored_array(variable)

    def __call__(
        self, rows: slice, columns: slice, *, lead: Lead | None = None, out: Array | None = None
    ) -> Array:
        """Read what lies at some rows and columns.

        Parameters
        ----------
        rows, columns : slice
            Where.
        lead : tuple of slice, optional
            Dates and bands. Default: all.
        out : numpy.ndarray, optional
            Takes what comes from a store.

        Returns
        -------
        numpy.ndarray
            Stored numbers; perhaps a view of a variable in memory.
        """
        lead = self._whole if lead is None else lead
        if self._stored is not None:
            return self._stored.read((*lead, rows, columns), out=out)
        window = self._variable[(*lead, rows, columns)]
        if window.chunks is not None:
            window = window.compute(
                scheduler="synchronous"
            )  # threads of our own read several windows at once
        return window.to_numpy()

    @property
    def _whole(self) -> Lead:
        return tuple(slice(0, size) for size in self.lead)

    @property
    def lead(self) -> tuple[int, ...]:
        """Number of dates and bands, or layers."""
        return tuple(self._variable.shape[:-2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return np.dtype(self._variable.dtype)

    @property
    def layers(self) -> list[Lead]:
        """Dates and bands that lie in one chunk; one entry where that is all, or is not known."""
        if self._stored is None or self.sides is None:
            return [self._whole]
        steps = (range(0, size, side) for size, side in zip(self.lead, self.sides, strict=False))
        return [
            tuple(
                slice(at, min(at + side, size))
                for at, side, size in zip(first, self.sides, self.lead, strict=False)
            )
            for first in product(*steps)
        ]

    @property
    def is_stored(self) -> bool:
        """Whether the variable is that of a store, whole and unchanged."""
        return self._stored is not None

    @property
    def sides(self) -> tuple[int, ...] | None:
        """Shape of what is decoded at once; None where that is not known or not regular."""
        if self._stored is not None:
            return self._stored.chunks
        found = self._variable.encoding.get("preferred_chunks") or {}
        return (
            tuple(found[dim] for dim in self._variable.dims)
            if set(self._variable.dims) <= set(found)
            else None
        )

    @property
    def chunks(self) -> Chunks:
        """Where the chunks lie."""
        variable = self._variable
        weight = int(np.prod(variable.shape[:-2])) * variable.dtype.itemsize
        if self._stored is None and variable.chunks is not None:
            down, across = (np.append(0, np.cumsum(each)).astype("int64") for each in variable.chunks[-2:])
            layers = int(np.prod([len(each) for each in variable.chunks[:-2]]))
            return Chunks(rows=down, columns=across, pixel_bytes=weight, layers=layers)
        sides = self.sides or (*variable.shape[:-2], _CHUNK, _CHUNK)
        down, across = (
            np.append(np.arange(0, size, side), size)
            for size, side in zip(variable.shape[-2:], sides[-2:], strict=True)
        )
        layers = int(
            np.prod([-(-size // side) for size, side in zip(variable.shape[:-2], sides, strict=False)])
        )
        return Chunks(rows=down, columns=across, pixel_bytes=weight, layers=layers)

    @property
    def by_scene(self) -> bool:
        """Whether chunks hold single dates of large areas."""
        chunks, steps = self.chunks, self._variable.shape[0]
        wide = min(np.diff(chunks.rows).max(), np.diff(chunks.columns).max()) >= _SCENE
        return bool(self._variable.ndim > 2 and steps > 1 and chunks.layers >= steps and wide)  # noqa: PLR2004


@dataclass(frozen=True, kw_only=True)
class Source:
    """A cube and what goes with it, pixel by pixel."""

    cube: xr.Dataset
    """The cube."""

    readers: Mapping[str, Reader]
    """``x`` (time, band, y, x); where given ``y`` (y, x), ``mask`` (time, y, x), ``aux`` (layer, y, x)."""

    encoding: Encoding
    """Of ``x``."""

    doy: IntArray
    """(time,) day of the year."""


def make_source(
    cube: xr.Dataset, *, labels: Raster | None = None, mask: Raster | None = None, aux: Raster | None = None
) -> Source:
    """Put a cube and its companions side by side.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x).
    labels : xarray.DataArray or numpy.ndarray, optional
        (y, x) class index.
    mask : xarray.DataArray or numpy.ndarray, optional
        (time, y, x) bool: what counts as data.
    aux : xarray.DataArray or numpy.ndarray, optional
        (layer, y, x) or (y, x) ancillary numbers.

    Returns
    -------
    Source
        Companions put in the rows, columns and dates of the cube by their coordinates.

    Raises
    ------
    OptionError
        If a companion lacks some of the cube's pixels or dates.
    CubeError
        If the cube does not keep the contract.
    """
    check_cube(cube)
    data = cube[MAIN]
    given = {"y": (labels, ("y", "x")), "mask": (mask, ("time", "y", "x")), "aux": (aux, ("layer", "y", "x"))}
    readers = {"x": Reader(data)}
    for name, (values, dims) in given.items():
        if values is not None:
            readers[name] = Reader(_aligned(name, values, dims, data))
    return Source(
        cube=cube, readers=readers, encoding=encoding_of(data), doy=day_of_year(cube["time"].to_numpy())
    )


def _stored_array(variable: xr.DataArray) -> StoredArray | None:
    """Return the stored array that a variable is, whole and unchanged; None where it is anything else."""
    layers = (
        getattr(getattr(variable.data, "dask", None), "layers", {}) if variable.chunks is not None else {}
    )
    if len(layers) != 1:
        return None
    (layer,) = layers.values()
    found: list[Any] = [each for each, _ in getattr(layer, "indices", ()) if isinstance(each, StoredArray)]
    return found[0] if len(found) == 1 and found[0].shape == variable.shape else None


def _aligned(name: str, values: Raster, dims: tuple[str, ...], data: xr.DataArray) -> xr.DataArray:
    """Return a companion in the rows, columns and dates of a cube."""
    if not isinstance(values, xr.DataArray):
        array = np.asarray(values)
        array = array[None] if dims[0] == "layer" and array.ndim == 2 else array  # noqa: PLR2004
        wanted = tuple(data.sizes.get(dim, size) for dim, size in zip(dims, array.shape, strict=False))
        if array.shape != wanted or array.ndim != len(dims):
            raise OptionError(f"{name} has shape {array.shape}, expected {dims} as in the cube: {wanted}.")
        return xr.DataArray(array, dims=dims)
    if dims[0] == "layer" and "layer" not in values.dims:
        extra = [str(dim) for dim in values.dims if dim not in {"y", "x"}]
        values = values.rename({extra[0]: "layer"}) if len(extra) == 1 else values.expand_dims("layer")
    if set(values.dims) != set(dims):
        raise OptionError(f"{name} has dims {values.dims}, expected {dims}.")
    chosen = {dim: _found(name, dim, values, data) for dim in dims if dim != "layer"}
    return values.transpose(*dims).isel(chosen)


def _found(name: str, dim: str, values: xr.DataArray, data: xr.DataArray) -> slice | IntArray:
    """Return where the coordinates of a cube lie in those of a companion."""
    if dim not in values.indexes or dim not in data.indexes:
        if values.sizes[dim] != data.sizes[dim]:
            raise OptionError(
                f"{name} has {values.sizes[dim]} along {dim!r} and no coordinates; the cube has "
                f"{data.sizes[dim]}."
            )
        return slice(None)
    wanted, have = (each.indexes[dim].to_numpy() for each in (data, values))
    if dim == "time":
        place: IntArray = values.indexes[dim].get_indexer(data.indexes[dim])
    else:
        place = _nearest(wanted.astype("float64"), have.astype("float64"))
    if (place < 0).any():
        raise OptionError(
            f"{name} lacks {int((place < 0).sum())} of the cube's {len(place)} positions along {dim!r}: "
            f"it spans {have[0]} to {have[-1]}, the cube {wanted[0]} to {wanted[-1]}."
        )
    steps = np.diff(place)
    return slice(int(place[0]), int(place[-1]) + 1) if (steps == 1).all() else place


def _nearest(wanted: FloatArray, have: FloatArray) -> IntArray:
    """Return the position of each wanted coordinate, -1 where there is none."""
    order = np.argsort(have)
    step = float(np.abs(np.diff(wanted)).min()) if len(wanted) > 1 else 1.0
    after = np.searchsorted(have[order], wanted).clip(0, len(have) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(have[order][before] - wanted) < np.abs(have[order][after] - wanted)
    place = order[np.where(nearer, before, after)]
    missing: BoolArray = np.abs(have[place] - wanted) > _TOLERANCE * step
    return np.where(missing, -1, place)
