"""One coding for a cube: type, nodata, scale and offset that all its bands and scenes share."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cubekit.cube.contract import Encoding
from cubekit.cube.harmonise import SENTINEL2, sentinel2_offset, shift_of
from cubekit.cube.metadata import raster_fields
from cubekit.cube.plan import MISSING
from cubekit.cube.scenes import Table
from cubekit.errors import CubeError
from cubekit.typing import IntArray

if TYPE_CHECKING:
    import pystac

    from cubekit.catalog import Collection


def common_encoding(table: Table, count: int) -> Encoding:
    """Find the one coding of the first `count` layers.

    Parameters
    ----------
    table : Table
        Complete.
    count : int
        Number of bands of the cube.

    Returns
    -------
    Encoding
        The catalog's, else that of the first scene that has the band. Where no nodata is known: NaN for
        floats, and for integers the end of the range (largest unsigned, smallest signed), which reading then
        refuses to find in the data.

    Raises
    ------
    CubeError
        When bands or scenes differ in type, scale or offset.
    """
    found = {}
    for layer in range(count):
        name, record = table.layers[layer].name, table.layers[layer].record
        forms = {table.forms[n] for n in np.unique(table.form_of[:, layer]) if n != MISSING}
        if not forms:
            raise CubeError(f"No item has band {name!r}.")
        types = sorted({form.dtype for form in forms})
        if len(types) > 1:
            raise CubeError(
                f"Band {name!r} is stored as {' and '.join(types)} in different items: open with "
                "dtype='float32', or "
                "leave some items out."
            )
        first = table.form(int(np.argmax(table.form_of[:, layer] != MISSING)), layer)
        coding = record if record is not None and record.dtype == types[0] else first
        if coding is None:  # pragma: no cover  (forms is not empty)
            raise CubeError(f"No item has band {name!r}.")
        nodata = next((f.nodata for f in (coding, *forms) if f.nodata is not None), None)
        found[name] = Encoding(
            dtype=types[0],
            nodata=_end_of_range(types[0]) if nodata is None else nodata,
            scale=coding.scale,
            offset=coding.offset,
        )
    codings = {(coding.dtype, coding.scale, coding.offset) for coding in found.values()}
    if len(codings) > 1:
        listed = "; ".join(
            f"{n}: {c.dtype}, scale {c.scale:g}, offset {c.offset:g}" for n, c in found.items()
        )
        raise CubeError(
            f"One variable holds one coding, but the bands differ ({listed}). Open them as two cubes, "
            "or pass dtype='float32' for physical values."
        )
    return next(iter(found.values()))


def _end_of_range(dtype: str) -> float:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float("nan")
    limits = np.iinfo(kind)
    return float(limits.max if kind.kind == "u" else limits.min)


def harmonise(table: Table, count: int, collection: "Collection | None") -> None:
    """Replace the offset that metadata states by what the collection's rule finds, item by item.

    Parameters
    ----------
    table : Table
        Changed in place.
    count : int
        Number of bands of the cube.
    collection : Collection or None
        Names the rule.
    """
    if collection is None or collection.harmonise != SENTINEL2:
        return
    numbers: dict[tuple[int, float], int] = {}
    for scene, item in enumerate(table.items):
        offset: float | None = None
        for layer in range(count):
            record, number = table.layers[layer].record, int(table.form_of[scene, layer])
            if number == MISSING or record is None or record.offset == 0:
                continue
            if offset is None:
                offset = sentinel2_offset(item, _stated_offset(item, table.assets[scene][layer]))
            key = (number, offset)
            if key not in numbers:
                numbers[key] = len(table.forms)
                form = replace(table.forms[number], scale=record.scale, offset=offset)
                table.forms.append(form)
            table.form_of[scene, layer] = numbers[key]


def _stated_offset(item: "pystac.Item", asset: str) -> float | None:
    value = raster_fields(item.assets[asset].extra_fields).get("offset")
    return None if value is None else float(value)


def shifts(table: Table, count: int, encoding: Encoding) -> IntArray:
    """Return what to add to the stored numbers of each scene and band.

    Parameters
    ----------
    table : Table
        Harmonised.
    count : int
        Number of bands of the cube.
    encoding : Encoding
        Of the cube.

    Returns
    -------
    numpy.ndarray of int32
        Shape (scene, band).

    Raises
    ------
    CubeError
        Where no whole number leads to the coding.
    """
    by_form: dict[int, int] = {MISSING: 0}
    result = np.zeros((len(table.items), count), np.int32)
    floats = np.dtype(encoding.dtype).kind == "f"
    for scene, layer in np.ndindex(result.shape):
        number = int(table.form_of[scene, layer])
        if number not in by_form:
            where = f"Item {table.items[scene].id!r}, asset {table.assets[scene][layer]!r}"
            by_form[number] = (
                0 if floats else shift_of(table.forms[number], encoding.scale, encoding.offset, where)
            )
        result[scene, layer] = by_form[number]
    return result
