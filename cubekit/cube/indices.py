"""Spectral indices from the catalogue of spyndex, added to a cube as further bands."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from cubekit.cube.blocks import is_lazy, map_blocks, working_memory
from cubekit.cube.contract import DIMS, MAIN, Encoding, check_cube, encoding_of, noted
from cubekit.cube.kernels import valid_in
from cubekit.errors import CubeError, OptionError, UnknownNameError, did_you_mean
from cubekit.typing import Array, FloatArray

_ALSO = {"N": ("nir08",), "N2": ("nir",)}  # Landsat has one near-infrared band, which STAC names nir08
_SENTINEL2 = frozenset({"B02", "B03", "B04", "B08", "B8A"})  # names that no other sensor uses


def add_indices(cube: xr.Dataset, names: str | Sequence[str]) -> xr.Dataset:
    """Append spectral indices to the bands of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x) that decodes to reflectance 0-1 (``scale_factor``, or floats); lazy
        or in memory. Bands are recognised by the common names that :func:`cubekit.cube.load.open_cube` notes,
        by being named so (``"red"``), and by Sentinel-2 names (``"B04"``).
    names : str or sequence of str
        Short names of the Awesome Spectral Indices, such as ``"NDVI"``; constants take their default values.

    Returns
    -------
    xarray.Dataset
        ``data`` float32, NaN where there is no data or the formula is not finite; the bands decoded to
        physical values, the indices after them. Other variables are kept. As lazy as the input.

    Raises
    ------
    UnknownNameError
        For an index that is not in the catalogue, or a band that the cube lacks.
    CubeError
        For integers without scale, which cannot be reflectance.
    OptionError
        For names given twice, or already in the cube.

    References
    ----------
    Montero et al. (2023), A standardized catalogue of spectral indices to advance the use of remote sensing
    in Earth system research, Scientific Data 10, doi:10.1038/s41597-023-02096-0.
    """
    check_cube(cube)
    wanted = [names] if isinstance(names, str) else list(names)
    bands = [str(band) for band in cube.indexes["band"]]
    if not wanted or len({*wanted, *bands}) < len(wanted) + len(bands):
        raise OptionError(
            f"names={names!r}: give at least one index, each once, none that is a band already."
        )
    data = cube[MAIN]
    coding = encoding_of(data)
    inputs = index_inputs(cube, wanted)
    values = _appended(data.data, coding, inputs)
    attrs = {k: v for k, v in data.attrs.items() if k not in {"scale_factor", "add_offset", "_FillValue"}}
    attrs["_FillValue"] = np.float32("nan")
    others = cube.drop_vars([name for name, item in cube.variables.items() if "band" in item.dims])
    result = others.assign({MAIN: (DIMS, values, attrs)}).assign_coords(band=[*bands, *wanted])
    return noted(result, "add_indices", names=wanted)


def index_inputs(cube: xr.Dataset, names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Look up what formulas of indices take from a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        As for :func:`add_indices`.
    names : sequence of str
        Short names.

    Returns
    -------
    dict
        For each index, the place of the band (int) or the constant (float) of each of its parameters.

    Raises
    ------
    UnknownNameError, CubeError
        As :func:`add_indices`.
    """
    data = cube[MAIN]
    if data.dtype.kind in "ui" and encoding_of(data).scale == 1:
        raise CubeError(
            f"Indices need reflectance 0-1, but {MAIN!r} holds {data.dtype} without scale_factor. State "
            "the coding: "
            "cube.data.attrs.update(scale_factor=…, add_offset=…)."
        )
    return _inputs(list(names), _places([str(band) for band in cube.indexes["band"]], cube.attrs))


def index_columns(
    values: FloatArray, bands: Sequence[str], names: Sequence[str], *, collection: str = ""
) -> FloatArray:
    """Compute indices of rows of reflectance, as tables hold them.

    Parameters
    ----------
    values : numpy.ndarray
        (n, band) float, reflectance 0-1, NaN where there is no data.
    bands : sequence of str
        Band names, in the order of the columns.
    names : sequence of str
        Short names of indices, as for :func:`add_indices`.
    collection : str, optional
        Where the bands are from; one that begins with ``sentinel-2`` makes ``B4`` red.

    Returns
    -------
    numpy.ndarray
        (n, index) float32, NaN where there is no data or the formula is not finite.

    Raises
    ------
    UnknownNameError
        For an index that is not in the catalogue, or a band that is missing.
    """
    inputs = _inputs(list(names), _places(list(bands), {"collection": collection}))
    physical = Encoding(dtype=str(values.dtype), nodata=np.nan)
    return np.stack([computed(values.T[None], name, inputs[name], physical)[0] for name in names], axis=1)


def bands_for(cube: xr.Dataset, symbols: Sequence[str]) -> dict[str, int]:
    """Look up the bands that stand for the symbols of the catalogue.

    Parameters
    ----------
    cube : xarray.Dataset
        As for :func:`add_indices`.
    symbols : sequence of str
        Such as ``"N"`` for near infrared, ``"S1"`` and ``"S2"`` for the short-wave infrareds.

    Returns
    -------
    dict
        Symbol to place of the band.

    Raises
    ------
    UnknownNameError
        For a band that the cube lacks.
    """
    places = _places([str(band) for band in cube.indexes["band"]], cube.attrs)
    found = {symbol: _place(symbol, places) for symbol in symbols}
    for symbol, place in found.items():
        if place is None:
            raise UnknownNameError(f"This needs {_described(symbol)}, which the cube lacks.")
    return {symbol: place for symbol, place in found.items() if place is not None}


def computed(block: Array, name: str, inputs: Mapping[str, float | int], coding: Encoding) -> FloatArray:
    """Compute one index from stored numbers.

    Parameters
    ----------
    block : numpy.ndarray
        Stored numbers, shape (time, band, ...).
    name : str
        Short name of the index.
    inputs : mapping
        From :func:`index_inputs`.
    coding : Encoding
        Of the stored numbers.

    Returns
    -------
    numpy.ndarray
        float32, shape (time, ...), NaN where there is no data or the formula is not finite.
    """
    import spyndex

    given = {
        key: _physical(block[:, place], coding) if isinstance(place, int) else place
        for key, place in inputs.items()
    }
    with np.errstate(all="ignore"):
        index = np.asarray(spyndex.computeIndex(name, given), np.float32)
    return np.where(np.isfinite(index), index, np.float32("nan"))


def _physical(values: Array, coding: Encoding) -> FloatArray:
    """Decode stored numbers to float32, NaN without data."""
    # Offset first: as a stored number it is whole (-1000 for Sentinel-2), so zero reflectance is exactly 0.
    shift = np.float32(coding.offset / coding.scale)
    physical = (values.astype(np.float32) + shift) * np.float32(coding.scale)
    return np.where(valid_in(values, coding.nodata), physical, np.float32("nan"))


@lru_cache(maxsize=1)
def _catalogue() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    import spyndex  # here, because it loads a data set and plotting code on import; it needs no network

    return dict(spyndex.indices), dict(spyndex.bands), dict(spyndex.constants)


def _places(bands: list[str], attrs: Mapping[Any, Any]) -> dict[str, int]:
    """Return the place of each band under all its names; `attrs` are those of a cube."""
    common: Mapping[str, str] = json.loads(attrs.get("common_names", "{}"))
    places: dict[str, int] = {}
    sentinel2 = str(attrs.get("collection", "")).startswith("sentinel-2") or bool(_SENTINEL2 & set(bands))
    for place, band in enumerate(bands):
        aliases = [common.get(band, ""), band.casefold()]
        if sentinel2:
            aliases.append("sentinel2:" + band.replace("B0", "B"))
        for alias in aliases:
            places.setdefault(alias, place)
    return places


def _inputs(names: list[str], places: Mapping[str, int]) -> dict[str, dict[str, float | int]]:
    """Return, for each index, the band place (int) or constant (float) of each parameter."""
    indices, _, constants = _catalogue()
    found: dict[str, dict[str, float | int]] = {}
    for name in names:
        if name not in indices:
            raise UnknownNameError(f"No spectral index {name!r}. {did_you_mean(name, indices)}")
        found[name] = {}
        for symbol in indices[name].bands:
            place = _place(symbol, places)
            if place is None and symbol in constants and constants[symbol].default is not None:
                found[name][symbol] = float(constants[symbol].default)
            elif place is None:
                raise UnknownNameError(f"Index {name!r} needs {_described(symbol)}, which the cube lacks.")
            else:
                found[name][symbol] = place
    return found


def _place(symbol: str, places: Mapping[str, int]) -> int | None:
    _, bands, _ = _catalogue()
    if symbol not in bands:
        return None
    sentinel = getattr(getattr(bands[symbol], "sentinel2a", None), "band", None)
    for alias in (bands[symbol].common_name, f"sentinel2:{sentinel}", *_ALSO.get(symbol, ())):
        if alias in places:
            return places[alias]
    return None


def _described(symbol: str) -> str:
    _, bands, _ = _catalogue()
    return (
        f"a band {bands[symbol].common_name!r} ({symbol})" if symbol in bands else f"a value for {symbol!r}"
    )


def _appended(values: Any, coding: Encoding, inputs: dict[str, dict[str, float | int]]) -> Any:
    if not is_lazy(values):
        return _append_block(values, coding, inputs)
    values = values.rechunk({1: -1})
    return map_blocks(
        _append_block,
        values,
        chunks=(values.chunks[0], (values.shape[1] + len(inputs),), *values.chunks[2:]),
        dtype="float32",
        options={"coding": coding, "inputs": inputs},
    )


@working_memory(each=10)  # two float32 copies, and what is data
def _append_block(block: Array, coding: Encoding, inputs: dict[str, dict[str, float | int]]) -> FloatArray:
    import spyndex

    bands = block.shape[1]
    out = np.full((block.shape[0], bands + len(inputs), *block.shape[2:]), np.nan, np.float32)
    out[:, :bands] = _physical(block, coding)
    with np.errstate(all="ignore"):
        for place, (name, parameters) in enumerate(inputs.items()):
            given = {k: out[:, v] if isinstance(v, int) else v for k, v in parameters.items()}
            index = np.asarray(spyndex.computeIndex(name, given), np.float32)
            np.copyto(out[:, bands + place], index, where=np.isfinite(index))
    return out
