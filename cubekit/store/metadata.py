"""Everything of a store but its pixels: documents, coordinates, CF coding and the GeoZarr conventions."""

import base64
import json
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.cube.contract import geobox_of
from cubekit.errors import CubeError, StoreError
from cubekit.store.layout import SPACE, ArrayLayout, Layout, codecs
from cubekit.store.mark import to_json
from cubekit.store.objects import ROOT, Objects

TIME_UNITS = "microseconds since 1970-01-01"
"""How every date is stored, as int64: appending later dates never changes the unit."""

CONVENTIONS = (
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
        "name": "proj",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
        "name": "spatial",
        "description": "Spatial coordinate information",
    },
)
"""Declarations of the two GeoZarr conventions that a store follows, as their version 0.1 asks for them."""

_OURS = re.compile(r"cubekit|zarr_conventions|coordinates|multiscales|proj:.*|spatial:.*")
_SECRET = re.compile(r"[?&](sig|sv|token|signature|x-amz-\w+|x-goog-\w+)=", re.IGNORECASE)


def skeleton(cube: xr.Dataset, layout: Layout) -> dict[str, bytes]:
    """Encode everything but the gridded variables' chunks.

    Parameters
    ----------
    cube : xarray.Dataset
        Its small variables are loaded; gridded ones are not.
    layout : Layout
        Of the gridded variables.

    Returns
    -------
    dict
        Key to content: one ``zarr.json`` for each variable, the chunks of the small ones, and the root
        document without a mark. The same cube and layout give the same bytes.

    Raises
    ------
    StoreError
        If a name, type or attribute cannot be stored; nothing has been written then.
    """
    from zarr.storage import MemoryStore

    cube = _with_grid_mapping(cube)
    box = grid_of(cube)
    memory = Objects(MemoryStore())
    placed = set[str]()
    for array in layout.arrays:
        placed |= _create_gridded(memory, cube[array.name], array, _mapping_name(cube, array.name))
    small = [
        str(name)
        for name in sorted(cube.variables, key=str)
        if str(name) not in {a.name for a in layout.arrays}
    ]
    for name in small:
        _create_small(memory, name, cube.variables[name])
    documents = {key: memory.read(key) or b"" for key in memory.keys() if key != ROOT}  # noqa: SIM118
    attributes = plain_attributes(cube.attrs, "the dataset") | (conventions(box) if box else {})
    if loose := sorted({str(name) for name in cube.coords} - placed - set(map(str, cube.dims))):
        attributes["coordinates"] = " ".join(loose)
    return documents | {ROOT: _root_document(attributes, documents)}


def small_documents(name: str, variable: xr.Variable) -> dict[str, bytes]:
    """Encode one variable that is not on the grid.

    Parameters
    ----------
    name : str
        Of the variable.
    variable : xarray.Variable
        Loaded.

    Returns
    -------
    dict
        Key to content, as in `skeleton`.
    """
    from zarr.storage import MemoryStore

    memory = Objects(MemoryStore())
    _create_small(memory, name, variable)
    return {key: memory.read(key) or b"" for key in memory.keys()}  # noqa: SIM118


def zarr_document(document: Mapping[str, Any]) -> bytes:
    """Write the metadata of an array as Zarr does.

    Parameters
    ----------
    document : mapping
        In any order.

    Returns
    -------
    bytes
        In Zarr's order.
    """
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.metadata import ArrayV3Metadata

    parsed = ArrayV3Metadata.from_dict(dict(document))
    return parsed.to_buffer_dict(default_buffer_prototype())[ROOT].to_bytes()


def with_documents(root: bytes, documents: Mapping[str, bytes]) -> bytes:
    """Put the metadata of arrays into a root document, in place of what it held.

    Parameters
    ----------
    root : bytes
        Root document.
    documents : mapping
        Key to content; those that are no metadata are passed over.

    Returns
    -------
    bytes
        The new document, without a mark.
    """
    return _root_document(json.loads(root)["attributes"], documents)


def user_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the store itself adds to the attributes of a dataset."""
    return {str(key): value for key, value in attributes.items() if not _OURS.fullmatch(str(key))}


def plain_attributes(attributes: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Turn attributes into what JSON can hold.

    Parameters
    ----------
    attributes : mapping
        NumPy numbers and arrays, dates, tuples and nested mappings are accepted.
    where : str
        What they belong to, for messages.

    Returns
    -------
    dict
        Not-a-number and infinities become text, as JSON has no word for them.

    Raises
    ------
    StoreError
        For a value of another type, or an address that carries a signature or token.
    """
    return {
        key: _plain(value, f"{where}, attribute {key!r}")
        for key, value in user_attributes(attributes).items()
    }


def conventions(box: GeoBox) -> dict[str, Any]:
    """Describe a grid with the GeoZarr conventions ``proj:`` and ``spatial:``, version 0.1.

    Parameters
    ----------
    box : odc.geo.geobox.GeoBox
        Grid with a CRS.

    Returns
    -------
    dict
        Group attributes. Written by hand: zarr-cm is 5,000 lines for these nine.
    """
    crs, bounds = box.crs, box.boundingbox
    if crs is None:
        return {}
    epsg = crs.to_epsg()
    return {
        "zarr_conventions": [dict(convention) for convention in CONVENTIONS],
        **({"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": crs.to_wkt()}),
        "spatial:dimensions": list(SPACE),
        "spatial:transform_type": "affine",
        "spatial:transform": [float(number) for number in tuple(box.transform)[:6]],
        "spatial:shape": list(map(int, box.shape)),
        "spatial:bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        "spatial:registration": "pixel",
    }


def grid_of(cube: xr.Dataset) -> GeoBox | None:
    """Return the grid, or None for a dataset without one."""
    try:
        return geobox_of(cube)
    except CubeError:
        return None


def _with_grid_mapping(cube: xr.Dataset) -> xr.Dataset:
    """Add the coordinate ``spatial_ref`` where the CRS is known from elsewhere, such as an attribute."""
    box = grid_of(cube)
    if box is None or any(_mapping_name(cube, str(name)) for name in cube.data_vars):
        return cube
    return cube.odc.assign_crs(box.crs)  # type: ignore[no-any-return]


def _mapping_name(cube: xr.Dataset, name: str) -> str | None:
    """Return the variable that holds the CRS of a gridded variable."""
    variable = cube[name]
    for candidate in (
        variable.encoding.get("grid_mapping"),
        variable.attrs.get("grid_mapping"),
        "spatial_ref",
    ):
        if candidate in cube.variables:
            return str(candidate)
    return None


def _create_gridded(
    memory: Objects, variable: xr.DataArray, array: ArrayLayout, mapping: str | None
) -> set[str]:
    """Create the metadata of a gridded variable; return the coordinates that it names."""
    import zarr

    attributes = _variable_attributes(variable.variable, array.name)
    fill = _coding(attributes, np.dtype(array.dtype), array.name)
    if mapping:
        attributes["grid_mapping"] = mapping
    coordinates = {str(name) for name in variable.coords} - set(array.dims) - {array.name}
    if coordinates:  # spatial_ref as well: a plain xr.open_zarr then keeps it beside each variable
        attributes["coordinates"] = " ".join(sorted(coordinates))
    zarr.create_array(
        memory.store,
        name=_node_name(array.name),
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunks,
        shards=array.shards,
        compressors=codecs(),
        fill_value=fill,
        attributes=json.loads(to_json(attributes)),  # sorted, so that the root can restore it
        dimension_names=array.dims,
    )
    return coordinates


def _create_small(memory: Objects, name: str, variable: xr.Variable) -> None:
    """Create and fill a variable that is not on the grid, such as a coordinate."""
    import zarr

    attributes = _variable_attributes(variable, name)
    values = np.asarray(variable.values)
    if values.dtype.kind == "M":
        values = _microseconds(values, name)
        attributes |= {"units": TIME_UNITS, "calendar": "proleptic_gregorian"}
    elif values.dtype.kind in "OSUT":
        values = _text(values, name)
    elif values.dtype.kind not in "biuf":
        raise StoreError(
            f"Variable {name!r} has type {values.dtype}, expected numbers, booleans, dates or text."
        )
    kind: Any = "string" if values.dtype.kind == "O" else values.dtype.newbyteorder("=")
    fill = "" if kind == "string" else _coding(attributes, np.dtype(kind), name)
    created = zarr.create_array(
        memory.store,
        name=_node_name(name),
        shape=values.shape,
        dtype=kind,
        chunks=tuple(max(size, 1) for size in values.shape),
        compressors=codecs(),
        fill_value=fill,
        attributes=json.loads(to_json(attributes)),  # sorted, so that the root can restore it
        dimension_names=tuple(map(str, variable.dims)),
        config={"write_empty_chunks": True},
    )
    created[...] = values


def _variable_attributes(variable: xr.Variable, name: str) -> dict[str, Any]:
    """Return the attributes of a variable without those that the store sets itself."""
    kept = {
        key: value
        for key, value in variable.attrs.items()
        if key not in {"grid_mapping", "_ARRAY_DIMENSIONS"}
    }
    fill = kept.pop("_FillValue", None)
    plain = plain_attributes(kept, f"variable {name!r}")
    return plain if fill is None else plain | {"_FillValue": fill}


def _coding(attributes: dict[str, Any], dtype: np.dtype[Any], name: str) -> Any:
    """Write ``_FillValue`` as xarray does for Zarr v3, and return the number for Zarr's own fill value."""
    fill = attributes.get("_FillValue")
    if fill is None:
        return np.nan if dtype.kind == "f" else dtype.type(0)
    stored = np.asarray(fill).astype(dtype, casting="unsafe") if _fits(fill, dtype) else None
    if stored is None:
        raise StoreError(
            f"Variable {name!r}: nodata {fill!r} is not a {dtype} number; set attrs['_FillValue']."
        )
    number = stored.item()
    if dtype.kind == "f":
        attributes["_FillValue"] = base64.standard_b64encode(struct.pack("<d", number)).decode()
    else:
        attributes["_FillValue"] = number
    return number


def _fits(fill: Any, dtype: np.dtype[Any]) -> bool:
    """Tell whether a type holds a nodata value exactly (floats: after rounding)."""
    if not isinstance(fill, int | float | np.number | np.bool_ | np.ndarray) or np.size(fill) != 1:
        return False
    number = np.asarray(fill).item()
    if dtype.kind == "f":
        return True
    if dtype.kind == "b":
        return number in {0, 1}
    bounds = np.iinfo(dtype)
    return bool(np.isfinite(number)) and number == int(number) and bounds.min <= number <= bounds.max


def _microseconds(values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Turn dates into int64 microseconds; refuse those that would lose digits."""
    stored = values.astype("datetime64[us]")
    if np.isnat(values).any():
        raise StoreError(f"Variable {name!r} holds missing dates (NaT); a store keeps whole dates.")
    if (stored.astype(values.dtype) != values).any():
        raise StoreError(f"Variable {name!r} holds dates finer than a microsecond: use .dt.floor('us').")
    return stored.astype("int64")


def _text(values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Turn text of any NumPy kind into objects; refuse other objects, which could only be pickled."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    texts = values.astype(object)
    if bad := [value for value in texts.flat if not isinstance(value, str)]:
        raise StoreError(f"Variable {name!r} holds {type(bad[0]).__name__} objects, expected text.")
    return texts


def _node_name(name: str) -> str:
    """Return a variable's name if it can be a folder in a store."""
    if not re.fullmatch(r"(?!__)[\w][\w .+-]{0,200}", name) or name == ROOT:
        raise StoreError(f"Variable name {name!r} cannot be stored: use letters, digits, '_', '-' and '.'.")
    return name


def _plain(value: Any, where: str) -> Any:
    """Turn one attribute value into what JSON can hold."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.astype(str).tolist() if value.dtype.kind == "M" else value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, str) and _SECRET.search(value):
        raise StoreError(f"{where} is an address with a signature or token; store the unsigned address.")
    if value is None or isinstance(value, str | int | float):
        return value
    raise StoreError(f"{where} is a {type(value).__name__}, expected text, numbers, lists or mappings.")


def _root_document(attributes: Mapping[str, Any], documents: Mapping[str, bytes]) -> bytes:
    """Return the group's document with all others inside, so that opening reads one object."""
    ending = f"/{ROOT}"
    inside = {k.removesuffix(ending): json.loads(data) for k, data in documents.items() if k.endswith(ending)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": inside}
    return to_json(
        {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": dict(attributes),
            "consolidated_metadata": consolidated,
        }
    )
