"""Scenes of the sample archive: where the two tiles lie, what files are called, and the STAC item of a scene.

Tiles carry the letter I, which the military grid leaves out, and the satellite is called 2X: nothing here can
be taken for a real product.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from cubekit.testing.landscape import PIXEL
from cubekit.testing.sky import CIRRUS, HIGH, MEDIUM, NODATA
from cubekit.testing.year import FINE, Pass, swath_edge
from cubekit.typing import IntArray

if TYPE_CHECKING:
    from affine import Affine

COLLECTION = "sentinel-2-l2a"
CRS = "EPSG:32633"
LEFT, TOP = 462_000.0, 5_345_000.0  # Upper Austria; both on the 20 m grid
APART = 0.8  # of a tile's side: the rest is overlap
LAG = timedelta(seconds=3, milliseconds=517)
"""The second tile of a pass is dated so much later."""

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "eo/v1.1.0",
        "grid/v1.1.0",
        "projection/v2.0.0",
        "raster/v1.1.0",
        "sat/v1.0.0",
        "view/v1.0.0",
    )
)

# common name, centre wavelength and width in micrometres (Sentinel-2A)
OPTICS = {
    "B02": ("blue", 0.4924, 0.066),
    "B03": ("green", 0.5598, 0.036),
    "B04": ("red", 0.6646, 0.031),
    "B05": ("rededge", 0.7041, 0.015),
    "B06": ("rededge", 0.7405, 0.015),
    "B07": ("rededge", 0.7828, 0.020),
    "B08": ("nir", 0.8328, 0.106),
    "B8A": ("nir08", 0.8647, 0.021),
    "B11": ("swir16", 1.6137, 0.091),
    "B12": ("swir22", 2.2024, 0.175),
}
ASSETS = (*OPTICS, "SCL")
"""Asset keys, as at the Planetary Computer."""


@dataclass(frozen=True)
class Tile:
    """One of the two squares that scenes cover.

    Attributes
    ----------
    name : str
        Looks like a tile of the military grid.
    column : int
        First column, in 10 m pixels of the whole area.
    size : int
        Pixels a side at 10 m.
    """

    name: str
    column: int
    size: int

    def cut(self, array: IntArray, resolution: int) -> IntArray:
        """Cut the tile out of an array of the whole area, (y, x)."""
        step = resolution // int(PIXEL)
        return array[:, self.column // step : (self.column + self.size) // step]

    def transform(self, resolution: int) -> "Affine":
        """Return the transform of the tile's files."""
        return transform(resolution, self.column)


def transform(resolution: int, column: int = 0) -> "Affine":
    """Return the transform of a grid over the area, from a column of 10 m pixels on."""
    from affine import Affine

    return Affine(resolution, 0, LEFT + column * PIXEL, 0, -resolution, TOP)


def tiles(size: int) -> tuple[Tile, Tile]:
    """Lay out two tiles that overlap by a fifth, on the 20 m grid."""
    return Tile("33UIA", 0, size), Tile("33UIB", 2 * round(APART * size / 2), size)


def area_shape(size: int) -> tuple[int, int]:
    """Rows and columns of the area under both tiles, at 10 m."""
    return size, tiles(size)[1].column + size


def resolution_of(asset: str) -> int:
    """Metres between the pixels of an asset."""
    return 10 if asset in FINE else 20


def scene_name(flight: Pass, tile: Tile) -> str:
    """Name a scene as the Planetary Computer names items."""
    stamp = f"{flight.moment:%Y%m%dT%H%M%S}"
    return f"S2X_MSIL2A_{stamp}_R{flight.orbit:03d}_T{tile.name}_{stamp}"


def file_name(flight: Pass, tile: Tile, asset: str) -> str:
    """Path of a file inside the archive, as in a Sentinel-2 product: scene / tile, time, band, resolution."""
    stamp = f"{flight.moment:%Y%m%dT%H%M%S}"
    return f"{scene_name(flight, tile)}/T{tile.name}_{stamp}_{asset}_{resolution_of(asset)}m.tif"


def build_item(flight: Pass, tile: Tile, scl: IntArray) -> dict[str, Any]:
    """Describe a scene.

    Parameters
    ----------
    flight : Pass
        When, and with which coding.
    tile : Tile
        Where.
    scl : numpy.ndarray
        Scene classification of the tile (y, x), for the cloud cover.

    Returns
    -------
    dict
        STAC item (1.0.0, projection extension 2) whose hrefs are relative to the folder of the archive.
    """
    ring = _footprint(flight, tile)
    lon, lat = np.array(ring).T
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(EXTENSIONS),
        "id": scene_name(flight, tile),
        "collection": COLLECTION,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())],
        "properties": _properties(flight, tile, scl),
        "links": [{"rel": "collection", "href": "collection.json", "type": "application/json"}],
        "assets": {asset: _asset(flight, tile, asset) for asset in ASSETS},
    }


def _properties(flight: Pass, tile: Tile, scl: IntArray) -> dict[str, Any]:
    """Return what is known about a scene."""
    seen = scl != NODATA
    cloudy = np.isin(scl, (MEDIUM, HIGH, CIRRUS))
    moment = flight.moment + (LAG if tile.column else timedelta())
    return {
        "datetime": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
        "description": "Simulated scene of the cubekit sample archive; no satellite took it.",
        "platform": "sentinel-2x",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(100 * float(cloudy.sum() / max(seen.sum(), 1)), 2),
        "grid:code": f"MGRS-{tile.name}",
        "proj:code": CRS,
        "s2:mgrs_tile": tile.name,
        "s2:processing_baseline": flight.baseline,
        "s2:nodata_pixel_percentage": round(100 * float(1 - seen.mean()), 2),
        "sat:relative_orbit": flight.orbit,
        "view:sun_azimuth": round(float(np.degrees(flight.sun.azimuth)), 2),
        "view:sun_elevation": round(90 - float(np.degrees(flight.sun.zenith)), 2),
    }


def _asset(flight: Pass, tile: Tile, name: str) -> dict[str, Any]:
    """Describe a file."""
    resolution = resolution_of(name)
    side = tile.size * int(PIXEL) // resolution
    layer: dict[str, Any] = {"data_type": "uint8" if name == "SCL" else "uint16", "nodata": 0}
    layer["spatial_resolution"] = resolution
    asset: dict[str, Any] = {
        "href": file_name(flight, tile, name),
        "type": COG,
        "title": name,
        "roles": ["data"],
        "gsd": resolution,
        "proj:code": CRS,
        "proj:shape": [side, side],
        "proj:transform": list(tile.transform(resolution))[:6],
        "raster:bands": [layer],
    }
    if name in OPTICS:
        layer |= {"scale": 0.0001, "offset": -flight.offset / 10_000 + 0.0}
        common, centre, width = OPTICS[name]
        optics = {
            "name": name,
            "common_name": common,
            "center_wavelength": centre,
            "full_width_half_max": width,
        }
        asset["eo:bands"] = [optics]
        asset["roles"] = ["data", "reflectance"]
    return asset


def _footprint(flight: Pass, tile: Tile) -> list[list[float]]:
    """Outline the part of a tile that the swath covers: longitudes and latitudes, closed, anticlockwise."""
    from rasterio.warp import transform as project

    height = tile.size
    right = [float(tile.column + tile.size)] * 2
    if flight.is_partial:
        right = [min(right[0], float(swath_edge(area_shape(height), row))) for row in (height, 0)]
    cols = [tile.column, right[0], right[1], tile.column, tile.column]
    rows = [height, height, 0, 0, height]
    lon, lat = project(CRS, "EPSG:4326", [LEFT + PIXEL * c for c in cols], [TOP - PIXEL * r for r in rows])
    return [[round(float(x), 6), round(float(y), 6)] for x, y in zip(lon, lat, strict=True)]


def build_collection(items: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """Describe the collection.

    Parameters
    ----------
    items : tuple of dict
        Its items, in order of time.

    Returns
    -------
    dict
        STAC collection without links.
    """
    boxes = np.array([item["bbox"] for item in items])
    moments = [item["properties"]["datetime"] for item in items]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": COLLECTION,
        "title": "cubekit sample archive",
        "description": "A simulated year of Sentinel-2 Level-2A over invented land; no satellite took it.",
        "license": "CC0-1.0",
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
            "temporal": {"interval": [[min(moments), max(moments)]]},
        },
        "links": [],
    }
