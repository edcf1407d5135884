"""Label polygons as a field campaign brings them home: some parcels of each class, outlines a little off."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cubekit.testing.landscape import CLASSES, CODES, Landscape
from cubekit.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import geopandas as gpd
    from affine import Affine
    from shapely.geometry.base import BaseGeometry

EACH = 42
"""Parcels visited in each class, where the area holds so many."""

INSIDE = 8  # pixels that must be left after going 20 m inwards: nobody labels a parcel that cannot be used
OFF, SMOOTHED = 4.0, 6.0  # metres: GPS error, and what a drawn outline leaves out


def survey(seed: int, land: Landscape, *, transform: "Affine", crs: str) -> "gpd.GeoDataFrame":
    """Label a sample of the parcels.

    Parameters
    ----------
    seed : int
        The same seed and landscape give the same labels.
    land : Landscape
        What there is to label.
    transform : affine.Affine
        Of the 10 m grid.
    crs : str
        Of the 10 m grid, such as ``"EPSG:32633"``.

    Returns
    -------
    geopandas.GeoDataFrame
        Polygons in the CRS of the grid with ``class`` (name) and ``code``; about equally many of each class.
    """
    import geopandas as gpd
    from shapely import box

    rng = np.random.default_rng([seed, 8])
    chosen = _choose(rng, land)
    outlines = _outlines(land.parcel, chosen, transform)
    shift = rng.uniform(-OFF, OFF, (chosen.size, 2))
    rows, cols = land.parcel.shape
    area = box(*(transform @ (0, rows)), *(transform @ (cols, 0)))
    drawn = [_drawn(outlines[int(n)], move, area) for n, move in zip(chosen, shift, strict=True)]
    kinds = land.kind[chosen]
    table = {"class": [CLASSES[k] for k in kinds], "code": [CODES[k] for k in kinds]}
    return gpd.GeoDataFrame(table, geometry=drawn, crs=crs)


def write_labels(frame: "gpd.GeoDataFrame", path: Path) -> None:
    """Write labels as GeoPackage with a fixed time stamp, so that equal labels make equal files.

    Parameters
    ----------
    frame : geopandas.GeoDataFrame
        From :func:`survey`.
    path : pathlib.Path
        Overwritten where it exists.
    """
    import pyogrio

    path.unlink(missing_ok=True)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2023-12-31T00:00:00.000Z"})
    try:
        frame.to_file(path, driver="GPKG", layer="labels", engine="pyogrio")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _choose(rng: np.random.Generator, land: Landscape) -> IntArray:
    """Draw usable parcels of each class."""
    from scipy.ndimage import maximum_filter, minimum_filter

    inner = minimum_filter(land.parcel, 5) == maximum_filter(land.parcel, 5)
    usable = np.bincount(land.parcel[inner], minlength=land.kind.size) >= INSIDE
    drawn = [rng.permutation(np.flatnonzero(usable & (land.kind == k)))[:EACH] for k in range(len(CLASSES))]
    return rng.permutation(np.concatenate(drawn))


def _outlines(parcel: IntArray, chosen: IntArray, transform: "Affine") -> "dict[int, BaseGeometry]":
    """Trace parcels; of one that touches itself only at a corner, the larger part."""
    from rasterio.features import shapes
    from shapely.geometry import shape

    outlines: dict[int, BaseGeometry] = {}
    wanted = np.isin(parcel, chosen)
    for geometry, value in shapes(parcel, mask=wanted, transform=transform):
        piece, known = shape(geometry), outlines.get(int(value))
        if known is None or piece.area > known.area:
            outlines[int(value)] = piece
    return outlines


def _drawn(outline: "BaseGeometry", move: FloatArray, area: "BaseGeometry") -> "BaseGeometry":
    """Draw an outline by hand: without its steps, a few metres off, inside the area and in one piece."""
    from shapely import get_parts
    from shapely.affinity import translate

    drawn = translate(outline.simplify(SMOOTHED), *move).intersection(area)
    parts: list[BaseGeometry] = list(get_parts(drawn))
    return max(parts, key=lambda part: part.area)
