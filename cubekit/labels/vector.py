"""Polygons and points onto a grid: read near the grid, shrink, burn, settle overlaps."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cubekit.errors import LabelError, OptionError, SecurityError, UnknownNameError, did_you_mean
from cubekit.labels.classes import UNLABELLED, ClassTable
from cubekit.typing import Array, IntArray, StrPath

if TYPE_CHECKING:
    import geopandas as gpd

_SEGMENTS = 32  # chords in a quarter circle: buffers are exact to 0.03 %

_VIRTUAL = re.compile(rb"<OGR\w*DataSource")  # how GDAL's OGR VRT and web services begin
_HEAD_BYTES = 4096

Frame: TypeAlias = "gpd.GeoDataFrame"


@dataclass(frozen=True)
class Features:
    """Geometries that touch a grid, in its CRS, each with a class value."""

    geometry: Array
    """Shapely geometries, valid, polygons or points."""

    classes: list[int] | list[str]
    """Class of each, as the source writes it."""

    ids: IntArray
    """Feature id of each: the file's own, or the position in a table."""

    unclassed: int
    """How many touch the grid but carry no class."""

    @property
    def found(self) -> list[int] | list[str]:
        """Sorted class values."""
        return sorted(set(self.classes))  # type: ignore[type-var, return-value]  # all int or all str


@dataclass(frozen=True)
class Burnt:
    """Features as pixels."""

    label: IntArray
    """Class index (y, x) int16, -1 without a label."""

    group: IntArray
    """Feature id (y, x) int32, -1 without a label."""

    counts: dict[str, int]
    """What was burnt and what was left out."""


def read_features(
    source: "StrPath | Frame", grid: GeoBox, *, column: str, ignore: Sequence[int | str] = ()
) -> Features:
    """Read the features that touch a grid.

    Parameters
    ----------
    source : path or geopandas.GeoDataFrame
        Of a file, only the part near the grid is read.
    grid : odc.geo.geobox.GeoBox
        Target grid.
    column : str
        Column with the class: text or whole numbers.
    ignore : sequence, optional
        Values that mean "no class", besides empty cells.

    Returns
    -------
    Features
        In the grid's CRS, at least one.

    Raises
    ------
    LabelError
        If there is no CRS, nothing touches the grid, there are lines, or no feature has a class.
    UnknownNameError
        If the column does not exist.
    """
    frame, extent = _read(source, grid)
    if column not in frame.columns:
        options = [name for name in frame.columns if name != frame.geometry.name]
        raise UnknownNameError(f"The labels have no column {column!r}. {did_you_mean(column, options)}")
    touching = frame[shapely.intersects(frame.geometry.to_numpy(), grid.extent.geom)]
    if touching.empty:
        bounds = extent if frame.empty else frame.total_bounds
        raise LabelError(
            f"No label touches the grid. In {_short(crs_of(grid))} the labels span {_box(bounds)}, the grid "
            f"{_box(grid.boundingbox)} (left, bottom, right, top). Check the area and the CRS of the labels."
        )
    geometry = touching.geometry.to_numpy()
    kinds = {str(kind) for kind in touching.geom_type.unique()}
    lines = {kind for kind in kinds if not kind.endswith(("Polygon", "Point"))}
    if lines:
        raise LabelError(f"Labels must be polygons or points; found {', '.join(sorted(lines))}. Buffer them.")
    classed, values = _class_values(touching[column], ignore)
    if not values:
        raise LabelError(
            f"{len(touching)} features touch the grid and none has a class in column {column!r}: all cells "
            "are empty or ignored."
        )
    return Features(
        # self-touching outlines are common in hand-drawn reference data and would be skipped when burning
        geometry=shapely.make_valid(geometry[classed]),
        classes=values,
        ids=touching.index.to_numpy()[classed].astype("int32"),
        unclassed=int((~classed).sum()),
    )


def burn(
    features: Features, table: ClassTable, grid: GeoBox, *, inward: float = 0.0, all_touched: bool = False
) -> Burnt:
    """Turn features into pixels.

    Parameters
    ----------
    features : Features
        In the CRS of the grid.
    table : ClassTable
        Knows every value of the features.
    grid : odc.geo.geobox.GeoBox
        Target grid.
    inward : float, optional
        Metres to shrink polygons by.
    all_touched : bool, optional
        Burn all pixels touched instead of those whose centre is covered.

    Returns
    -------
    Burnt
        Where features of one class overlap the first owns the pixel; where classes differ none does.

    Raises
    ------
    LabelError
        If no pixel is left, saying why; or metres are asked for on a grid in degrees.
    OptionError
        If points shall be shrunk, or `inward` is negative.
    """
    geometry = _shrink(features.geometry, grid, inward)
    kept = np.flatnonzero(~shapely.is_empty(geometry))
    if not kept.size:
        raise LabelError(
            f"The inward buffer of {inward:g} m leaves nothing of {len(geometry)} polygons: the widest is "
            f"narrower than {2 * inward:g} m. Use a smaller inward."
        )
    codes = table.codes if isinstance(features.classes[0], int) else table.names
    index = np.array([codes.index(value) for value in features.classes])[kept]
    owner, conflict = _owners(geometry[kept], index, grid, all_touched=all_touched)
    burnt = (owner >= 0) & ~conflict
    if not burnt.any():
        why = "overlap with different classes" if conflict.any() else "cover no pixel centre"
        raise LabelError(
            f"The {kept.size} features left after an inward buffer of {inward:g} m {why}, so no pixel is "
            f"labelled. Use a smaller inward, all_touched=True, or a finer grid."
        )
    if conflict.any() and not all_touched:  # with all_touched, neighbours share border pixels by design
        warnings.warn(
            f"{int(conflict.sum())} pixels are covered by features of different classes and stay unlabelled.",
            UserWarning,
            stacklevel=3,
        )
    counts = {
        "features": len(np.unique(owner[burnt])),
        "features_without_class": features.unclassed,
        "features_vanished": len(geometry) - kept.size,
        "conflicting_pixels": int(conflict.sum()),
    }
    label = np.where(burnt, index[owner], UNLABELLED).astype("int16")
    group = np.where(burnt, features.ids[kept][owner], UNLABELLED).astype("int32")
    return Burnt(label, group, counts)


def crs_of(grid: GeoBox) -> CRS:
    """Return the CRS of a grid.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
        Target grid.

    Returns
    -------
    odc.geo.crs.CRS
        Its CRS.

    Raises
    ------
    LabelError
        If it has none.
    """
    if grid.crs is None:
        raise LabelError("The grid has no CRS, so labels cannot be placed on it: make it with cubekit.grid.")
    return grid.crs


def _read(source: "StrPath | Frame", grid: GeoBox) -> tuple[Frame, Any]:
    """Return features near the grid in its CRS, indexed by id, and the extent of all of them."""
    import geopandas as gpd

    if isinstance(source, str | PathLike):
        frame, bounds = _read_file(Path(source), grid)
    else:
        frame = source.reset_index(drop=True)
        bounds = frame.total_bounds
    if frame.crs is None:
        raise LabelError("The labels have no CRS: set it with frame.set_crs('EPSG:…').")
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    extent = gpd.GeoSeries([shapely.box(*bounds)], crs=frame.crs).to_crs(crs_of(grid)).total_bounds
    return frame.to_crs(crs_of(grid)), extent


def _read_file(path: Path, grid: GeoBox) -> tuple[Frame, Any]:
    """Read the features near the grid from a vector file."""
    import geopandas as gpd
    import pyogrio

    if not path.exists():
        raise LabelError(f"No label file {str(path)!r}.")
    if path.is_dir() and path.suffix.lower() != ".gdb":
        raise LabelError(f"{str(path)!r} is a folder: name the file with the labels in it.")
    _refuse_virtual(path)
    try:
        if path.suffix.lower() in {".parquet", ".geoparquet"}:
            frame = gpd.read_parquet(path)
            return frame.reset_index(drop=True), frame.total_bounds
        info = pyogrio.read_info(path, force_total_bounds=True)
        if info["crs"] is None:
            raise LabelError(f"{str(path)!r} states no CRS: set it, in QGIS or with frame.set_crs('EPSG:…').")
        bounds = info["total_bounds"]
        near = gpd.GeoSeries([grid.extent.geom], crs=grid.crs)
        # ids of the file, so that one polygon keeps its number whatever grid it is read for
        return gpd.read_file(path, bbox=near, engine="pyogrio", fid_as_index=True), bounds
    except (
        RuntimeError,
        ValueError,
        OSError,
        shapely.errors.ShapelyError,
    ) as error:  # pyogrio, pyarrow, GEOS
        if isinstance(error, LabelError):
            raise
        said = str(error).partition("; It might help")[0].rstrip(".")  # the rest advises GDAL's users
        raise LabelError(
            f"{str(path)!r} is not a readable vector file: {said}. Copy it anew, or save it as a GeoPackage."
        ) from error


def _refuse_virtual(path: Path) -> None:
    """Refuse a document that names other files or services to read, whatever its suffix says."""
    if path.is_file():
        with path.open("rb") as file:
            if _VIRTUAL.search(file.read(_HEAD_BYTES)):
                raise SecurityError(
                    f"{str(path)!r} is a virtual file that leads elsewhere; give the labels themselves."
                )


def _class_values(cells: "pd.Series[Any]", ignore: Sequence[int | str]) -> tuple[Array, Any]:
    """Return which cells hold a class, and the class of those: all int or all str."""
    filled = (cells.notna() & ~cells.isin(["", *ignore])).to_numpy()
    values = cells[filled].tolist()
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]  # whole numbers beside empty cells are read as floats
    kinds = {type(value) for value in values}
    if kinds - {int} and kinds - {str}:
        raise LabelError(
            f"Column {cells.name!r} must hold text or whole numbers; found "
            f"{', '.join(sorted(kind.__name__ for kind in kinds))}, such as {values[0]!r}."
        )
    return filled, values


def _shrink(geometry: Array, grid: GeoBox, inward: float) -> Array:
    """Shrink polygons by metres."""
    if inward == 0:
        return geometry
    if not inward > 0:
        raise OptionError(f"inward={inward!r} must be a number of metres, 0 or more.")
    crs = crs_of(grid)
    if crs.geographic:
        raise LabelError(
            f"inward={inward:g} is in metres and the grid is in degrees ({_short(crs)}): open the cube "
            "on a metric grid, such as cubekit.grid(crs='utm', …)."
        )
    if (shapely.get_dimensions(geometry) == 0).any():
        raise OptionError(f"inward={inward:g} shrinks polygons, and these labels hold points: use inward=0.")
    distance = inward / crs.proj.axis_info[0].unit_conversion_factor
    # Chords cut the arcs around inner corners short: widen, so that no pixel comes too near an edge.
    return shapely.buffer(geometry, -distance / np.cos(np.pi / 4 / _SEGMENTS), quad_segs=_SEGMENTS)


def _owners(geometry: Array, index: IntArray, grid: GeoBox, *, all_touched: bool) -> tuple[IntArray, Array]:
    """Return the first feature on each pixel (-1: none), and where features of different classes meet."""

    def rasterise(values: Array, *, dtype: str, merge: str = "replace", fill: int = 0) -> Array:
        from rasterio.enums import MergeAlg
        from rasterio.features import rasterize

        return rasterize(  # type: ignore[no-any-return]
            zip(geometry[order], values[order].tolist(), strict=True),
            out_shape=grid.shape,
            transform=grid.transform,
            fill=fill,
            all_touched=all_touched,
            merge_alg=MergeAlg[merge],
            dtype=dtype,
        )

    number = np.arange(len(geometry))
    order = number
    last = rasterise(number, dtype="int32", fill=UNLABELLED)
    order = number[::-1]  # burnt backwards, the first feature stays on top
    first = rasterise(number, dtype="int32", fill=UNLABELLED)
    if (first == last).all():
        return first, np.zeros(first.shape, bool)
    # By Cauchy-Schwarz, count * (sum of squares) equals (sum) squared only where all class indices are equal.
    count, total, squares = (
        rasterise(values, dtype="float64", merge="add")
        for values in (np.ones(len(index)), index.astype(float), index.astype(float) ** 2)
    )
    return first, count * squares != total**2


def _box(bounds: Sequence[float]) -> str:
    """Write bounds with enough digits for metres and degrees."""
    return "(" + ", ".join(f"{value:.8g}" for value in bounds) + ")"


def _short(crs: Any) -> str:
    """Name a CRS in a few words."""
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)
