"""The pixels and documents of a store made again from the scenes that it remembers."""

import json
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from zarr.storage import MemoryStore

from cubekit.cube.blocks import is_lazy
from cubekit.errors import StoreError
from cubekit.store.layout import ArrayLayout
from cubekit.store.objects import ROOT, Objects
from cubekit.store.provenance import UNKNOWN, Provenance, to_date
from cubekit.store.regions import SPLIT, Region, Task, fill


class Remaker:
    """Makes parts of a store again.

    Parameters
    ----------
    provenance : Provenance
        What the store remembers.
    given : xarray.Dataset, optional
        A cube to take everything from instead.
    """

    def __init__(self, provenance: Provenance, given: xr.Dataset | None = None) -> None:
        self._provenance = provenance
        self._given = given
        self._cubes: dict[int, xr.Dataset] = {}

    def array(self, array: ArrayLayout, coords: Mapping[str, Any]) -> Any:
        """Return a whole variable, lazy.

        Parameters
        ----------
        array : ArrayLayout
            Of the store.
        coords : mapping
            Coordinates of the store, for cubes that are wider.

        Returns
        -------
        dask.array.Array
            In the shape of the store.

        Raises
        ------
        StoreError
            Where it is not known how some part was made.
        """
        window = tuple(slice(0, size) for size in array.shape)
        return self.block(array, window, coords)

    def block(self, array: ArrayLayout, window: tuple[slice, ...], coords: Mapping[str, Any]) -> Any:
        """Return a window of a variable, lazy.

        Parameters
        ----------
        array : ArrayLayout
            Of the store.
        window : tuple of slice
            Of the variable.
        coords : mapping
            As for `array`.

        Returns
        -------
        dask.array.Array
            In the shape of the window.

        Raises
        ------
        StoreError
            Where it is not known how some part was made.
        """
        if "time" not in array.dims:
            return _lazy(self._variable(array, 0, coords))[window]
        axis = array.dims.index("time")
        rest = tuple(part for place, part in enumerate(window) if place != axis)
        pieces = []
        for number in range(window[axis].start, window[axis].stop):
            variable, date = self._dated(array, number, coords)
            pieces.append(_lazy(variable.isel(time=date))[rest])
        return da.stack(pieces, axis=axis)  # type: ignore[no-untyped-call]

    def _dated(self, array: ArrayLayout, number: int, coords: Mapping[str, Any]) -> tuple[xr.DataArray, int]:
        """Return the variable that holds a date, and the place of the date in it."""
        dates = self._provenance.dates
        time = to_date(dates[number].time) if dates else coords["time"].values[number]
        variable = self._variable(array, dates[number].origin if dates else UNKNOWN, coords)
        places = np.flatnonzero(variable["time"].values == time)
        if not places.size:
            raise StoreError(f"no scene is known for {str(time)[:19]}")
        return variable, int(places[0])

    def _variable(self, array: ArrayLayout, origin: int, coords: Mapping[str, Any]) -> xr.DataArray:
        """Return a variable of one origin, cut to the store."""
        cube = self._given if self._given is not None else self._cube(origin)
        if array.name not in cube.variables:
            raise StoreError(f"it is not known how {array.name!r} was made; give the cube")
        variable = cube[array.name].transpose(*array.dims, missing_dims="ignore")
        for dim in set(array.dims) & coords.keys() - {"time"}:
            if variable.sizes.get(dim) != coords[dim].size and dim in variable.indexes:
                try:
                    variable = variable.sel({dim: coords[dim].values})
                except KeyError as error:
                    raise StoreError(f"the scenes do not give the {dim} of the store") from error
        shape = {dim: size for dim, size in zip(array.dims, array.shape, strict=True) if dim != "time"}
        if variable.dims != array.dims or any(variable.sizes[dim] != size for dim, size in shape.items()):
            raise StoreError(f"the scenes give {dict(variable.sizes)}, the store has {shape}; give the cube")
        return variable

    def _cube(self, origin: int) -> xr.Dataset:
        """Return the lazy cube of one origin."""
        if not 0 <= origin < len(self._provenance.origins):
            raise StoreError("the store does not say from which scenes it was made; give the cube")
        if origin not in self._cubes:
            self._cubes[origin] = self._provenance.origins[origin].cube()
        return self._cubes[origin]


def region_of(array: ArrayLayout, key: str) -> Region:
    """Return the box of the cube that an object holds.

    Parameters
    ----------
    array : ArrayLayout
        Its variable.
    key : str
        Of the object.

    Returns
    -------
    Region
        Whole along other dimensions than time, y and x.
    """
    index = dict(zip(array.dims, map(int, key.split("/")[2:]), strict=True))
    step = dict(zip(array.dims, array.objects, strict=True))
    bounds = []
    for dim in SPLIT:
        start = index.get(dim, 0) * step.get(dim, 1)
        bounds.append((start, min(start + step.get(dim, 1), array.size(dim) if dim in index else 1)))
    return Region(tuple(bounds))


def encoded(array: ArrayLayout, region: Region, block: Any, document: bytes) -> dict[str, bytes]:
    """Compute a block and encode it as the store would.

    Parameters
    ----------
    array : ArrayLayout
        Its variable.
    region : Region
        Where the block lies.
    block : dask.array.Array
        Lazy.
    document : bytes
        Metadata of the variable.

    Returns
    -------
    dict
        Key to content of the objects of the region.
    """
    memory = Objects(MemoryStore())
    memory.write(ROOT, json.dumps({"zarr_format": 3, "node_type": "group"}).encode())
    memory.write(f"{array.name}/{ROOT}", document)
    written = fill(Task(objects=memory, region=region, blocks=((array, block),)), scheduler="threads")
    return {key: memory.read(key) or b"" for key in written}


def _lazy(variable: xr.DataArray) -> Any:
    return variable.data if is_lazy(variable.data) else da.from_array(np.asarray(variable.data))  # type: ignore[no-untyped-call]
