"""Cloud-optimised GeoTIFF: written block by block through GDAL's COG driver, names and colours inside.

Specification: OGC 21-026, Cloud Optimized GeoTIFF Standard (https://docs.ogc.org/is/21-026/21-026.html).
"""

import json
import os
import tempfile
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import xarray as xr

from cubekit.cube.contract import encoding_of, geobox_of
from cubekit.errors import ExportError
from cubekit.exports.variable import TIME_TAGS, class_bytes, classes_of, rgb_of
from cubekit.labels import ClassTable
from cubekit.progress import progress as bar

BLOCK = 512
"""Pixels a side of the tiles in the file."""

CLASSES_TAG = "cubekit_classes"
"""Metadata item that holds the class table as JSON, inside the file."""


def write_cog(
    variable: xr.DataArray,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write one variable as a Cloud-Optimised GeoTIFF.

    Blocks are computed once, a row of blocks at a time, into an uncompressed draft beside the target, which
    GDAL's COG driver then tiles, compresses and gives overviews. The file appears whole or not at all.

    Parameters
    ----------
    variable : xarray.DataArray
        ``(y, x)``, or ``(layer, y, x)`` with any name for the first dimension; its coordinate names the
        bands. Stored numbers, lazy or not. CF attributes become nodata, scale and offset of the bands. A
        variable with the attribute ``classes`` becomes uint8 with colour table, category names and attribute
        table.
    path : path
        Target, ``.tif``.
    overwrite : bool, optional
        Whether to replace an existing file; it stays whole until the new one is.
    progress : bool, optional
        Whether to draw a bar. Default: where standard error is a terminal.

    Returns
    -------
    pathlib.Path
        The file. Category names lie beside it in ``<name>.aux.xml``, where GDAL and QGIS look for them.

    Raises
    ------
    ExportError
        If the file exists, the variable has other dimensions, or GDAL fails.
    CubeError
        If the variable has no grid.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    layers = _layers(variable)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        draft, done = Path(scratch, "draft.tif"), Path(scratch, target.name)
        try:
            _write_draft(layers, draft, progress=progress)
            _optimise(draft, done, layers)
        except _gdal_errors() as error:
            raise ExportError(f"GDAL could not write {target}: {error}") from error
        _move(done, target)
    return target


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise if a file exists and may not be replaced.

    Parameters
    ----------
    target : pathlib.Path
        File to be written.
    overwrite : bool
        Whether it may be replaced.

    Raises
    ------
    ExportError
        If it exists and may not.
    """
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists. Pass overwrite=True to replace it, or give another name.")


def _layers(variable: xr.DataArray) -> xr.DataArray:
    """Return the variable as ``(layer, y, x)`` of a type that GeoTIFF holds."""
    if variable.dims[-2:] != ("y", "x") or variable.ndim not in {2, 3}:
        raise ExportError(
            f"Variable {variable.name!r} has dims {variable.dims}; a GeoTIFF holds (y, x) or (layer, y, x). "
            "Select one of the other dimensions first, such as .isel(time=0)."
        )
    if classes_of(variable) is not None:
        variable = class_bytes(variable)
    elif variable.dtype == bool:
        variable = variable.astype("uint8").assign_attrs(flag_values=[0, 1], flag_meanings="no yes")
    elif variable.dtype == np.float16:
        variable = variable.astype("float32")
    elif variable.dtype.kind not in "iuf":
        raise ExportError(f"Variable {variable.name!r} holds {variable.dtype}, which no GeoTIFF can.")
    return variable if variable.ndim > 2 else variable.expand_dims("layer")  # noqa: PLR2004


def _write_draft(layers: xr.DataArray, draft: Path, *, progress: bool | None) -> None:
    """Write pixels and metadata to a plain tiled GeoTIFF, a row of blocks at a time."""
    import rasterio

    box = geobox_of(layers)
    code = encoding_of(layers)
    profile = {
        "driver": "GTiff",
        "width": box.width,
        "height": box.height,
        "count": layers.shape[0],
        "dtype": str(layers.dtype),
        "nodata": code.nodata,
        "crs": None if box.crs is None else box.crs.to_wkt(),
        "transform": box.transform,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "bigtiff": "if_safer",
    }
    with rasterio.open(draft, "w", **profile) as file:
        _describe(file, layers)
        with bar("export", box.height, unit="rows", enabled=progress) as advance:
            for rows in _strips(layers):
                values = np.asarray(layers.isel(y=rows).data)
                file.write(values, window=((rows.start, rows.stop), (0, box.width)))
                advance(rows.stop - rows.start)
    table = classes_of(layers)
    if table is not None:
        _write_sidecar(table, layers.shape[0], Path(f"{draft}.aux.xml"))


def _strips(layers: xr.DataArray) -> Iterator[slice]:
    """Yield rows that end where blocks end, so that each block is computed once."""
    height = layers.sizes["y"]
    ends = np.cumsum(layers.chunksizes.get("y", (BLOCK,) * -(-height // BLOCK)))
    start = 0
    for end in np.minimum(ends, height).tolist():
        if end - start >= BLOCK or end == height:
            yield slice(start, end)
            start = end


def _describe(file: Any, layers: xr.DataArray) -> None:
    """Give the file its names, coding, colours and provenance."""
    from cubekit import __version__

    table, code = classes_of(layers), encoding_of(layers)
    for number, name in enumerate(_names(layers), start=1):
        file.set_band_description(number, name)
        if table is not None:
            colours = {i: (*rgb, 255) for i, rgb in enumerate(map(rgb_of, table.colours))}
            file.write_colormap(number, colours | {int(code.nodata or 0): (0, 0, 0, 0)})
    if (code.scale, code.offset) != (1.0, 0.0):
        file.scales, file.offsets = (code.scale,) * file.count, (code.offset,) * file.count
    if layers.attrs.get("units"):
        file.units = (str(layers.attrs["units"]),) * file.count
    tags = {"TIFFTAG_SOFTWARE": f"cubekit {__version__}"}
    tags |= {key: str(layers.attrs[key]) for key in (*TIME_TAGS, "title", "model") if layers.attrs.get(key)}
    description = [str(layers.attrs[key]) for key in ("title", "long_name") if layers.attrs.get(key)]
    if table is not None:
        description += [f"{i} {name}" for i, name in enumerate(table.names)]
        tags[CLASSES_TAG] = _class_json(table)
    file.update_tags(TIFFTAG_IMAGEDESCRIPTION="; ".join(description), **tags)


def _names(layers: xr.DataArray) -> list[str]:
    """Name the bands after the coordinate of the first dimension."""
    dim = layers.dims[0]
    if dim not in layers.coords:
        plain = "value" if layers.name is None else str(layers.name)
        return [plain] if len(layers) == 1 else [f"{plain} {i + 1}" for i in range(len(layers))]
    values = layers[dim].to_numpy()
    if values.dtype.kind == "M":
        return [str(day) for day in np.datetime_as_string(values, unit="D")]
    return [str(value) for value in values.tolist()]


def _class_json(table: ClassTable) -> str:
    """Write the class table as JSON."""
    rows = zip(table.names, table.colours, table.codes, strict=True)
    return json.dumps(
        [
            {"value": value, "name": name, "colour": colour, "code": code}
            for value, (name, colour, code) in enumerate(rows)
        ],
        ensure_ascii=False,
    )


def _write_sidecar(table: ClassTable, bands: int, path: Path) -> None:
    """Write category names and an attribute table as GDAL's auxiliary XML, from which the COG driver copies.

    TIFF itself has no place for them; QGIS takes the legend from the one, ArcGIS from the other.
    """
    root = ET.Element("PAMDataset")
    for number in range(1, bands + 1):
        band = ET.SubElement(root, "PAMRasterBand", band=str(number))
        names = ET.SubElement(band, "CategoryNames")
        for name in table.names:
            ET.SubElement(names, "Category").text = name
        _attribute_table(band, table)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=False)


def _attribute_table(band: ET.Element, classes: ClassTable) -> None:
    """Append a raster attribute table: value, name, code, colour.

    Type and usage numbers are GDALRATFieldType and GDALRATFieldUsage (https://gdal.org/api/raster_c_api.html).
    """
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    fields = (
        ("Value", 0, 5), ("Class", 2, 2), ("Code", 0, 0), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8),
    )  # fmt: skip
    for index, (name, kind, usage) in enumerate(fields):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(field, tag).text = str(text)
    columns = zip(classes.names, classes.codes, classes.colours, strict=True)
    for value, (name, code, colour) in enumerate(columns):
        row = ET.SubElement(table, "Row", index=str(value))
        for cell in (value, name, code, *rgb_of(colour)):
            ET.SubElement(row, "F").text = str(cell)


def _optimise(draft: Path, done: Path, layers: xr.DataArray) -> None:
    """Turn the draft into a COG."""
    import rasterio.shutil

    named = "flag_values" in layers.attrs or classes_of(layers) is not None
    rasterio.shutil.copy(
        draft,
        done,
        driver="COG",
        blocksize=BLOCK,
        compress="deflate",
        level=6,
        # differences of class numbers mean nothing and compress worse
        predictor="no" if named else "yes",
        overview_resampling="mode" if named else "average",
        bigtiff="if_safer",
        num_threads="all_cpus",
    )


def _move(done: Path, target: Path) -> None:
    """Put file and sidecar in place; the sidecar of an older file never describes the new one."""
    sidecar, new = Path(f"{target}.aux.xml"), Path(f"{done}.aux.xml")
    sidecar.unlink(missing_ok=True)
    os.replace(done, target)  # noqa: PTH105  (atomic, and the same on every system)
    if new.exists():
        os.replace(new, sidecar)  # noqa: PTH105


def _gdal_errors() -> tuple[type[Exception], ...]:
    """Return what rasterio raises when GDAL fails."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return (RasterioError, CPLE_BaseError)
