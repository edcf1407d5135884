"""The sample archive: a simulated Sentinel-2 year over invented land, in files like those of a real archive.

``cubekit demo`` and the tests run on it without a network. Ground truth is known everywhere.
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cubekit.errors import OptionError
from cubekit.progress import progress as progress_bar
from cubekit.testing.fieldwork import survey, write_labels
from cubekit.testing.landscape import CLASSES, CODES, COLOURS
from cubekit.testing.scene import (
    ASSETS,
    CRS,
    Tile,
    area_shape,
    build_collection,
    build_item,
    file_name,
    resolution_of,
    tiles,
    transform,
)
from cubekit.testing.year import YEAR, Pass, Year, build_year
from cubekit.typing import BBox, IntArray, StrPath

SMALLEST, LARGEST = 100, 2000  # pixels; below, some class may have no parcel worth a label


@dataclass(frozen=True)
class SampleArchive:
    """What lies where in a sample archive.

    Attributes
    ----------
    folder : pathlib.Path
        Of the whole archive.
    items : pathlib.Path
        STAC ItemCollection with hrefs relative to the folder.
    labels : pathlib.Path
        GeoPackage of label polygons with columns ``class`` and ``code``.
    truth : pathlib.Path
        COG of class codes at 10 m over the area of both tiles; every pixel has one.
    bbox : tuple of float
        West, south, east, north of the area in degrees (WGS 84).
    crs : str
        Of all files.
    classes, colours : tuple of str
        Names and ``"#rrggbb"`` colours of the land covers.
    codes : tuple of int
        Their numbers in labels and truth.
    datetime : str
        Range of time for a search.
    """

    folder: Path
    items: Path
    labels: Path
    truth: Path
    bbox: BBox
    crs: str = CRS
    classes: tuple[str, ...] = CLASSES
    colours: tuple[str, ...] = COLOURS
    codes: tuple[int, ...] = CODES
    datetime: str = f"{YEAR}-01-01/{YEAR}-12-31"

    def item_collection(self, base: str | None = None) -> dict[str, Any]:
        """Return the items with absolute hrefs.

        Parameters
        ----------
        base : str, optional
            Folder or address under which the archive is reached. Default: its folder.

        Returns
        -------
        dict
            STAC ItemCollection.
        """
        root = (str(self.folder) if base is None else base).rstrip("/")
        collection: dict[str, Any] = json.loads(self.items.read_text("utf-8"))
        for item in collection["features"]:
            for part in (*item["assets"].values(), *item["links"]):
                part["href"] = f"{root}/{part['href']}"
        return collection


def write_sample_archive(
    folder: StrPath, *, seed: int = 0, size: int = 500, dates: int = 24, progress: bool | None = None
) -> SampleArchive:
    """Write a sample archive: two overlapping tiles, 10 bands and SCL, clouds, labels and truth.

    Land covers follow published phenology (see :mod:`cubekit.testing.phenology`); files are COGs with digital
    numbers as in processing baseline 05.09, a few early dates as in 03.01. Equal arguments write equal bytes.

    Parameters
    ----------
    folder : str or path-like
        Local folder; files of an earlier archive in it are overwritten.
    seed : int, optional
        Seed of land, weather and labels, not below 0.
    size : int, optional
        Pixels a side of each tile at 10 m: even, 100 to 2000. 500 takes about 115 MB.
    dates : int, optional
        Number of dates in 2023, 1 to 36.
    progress : bool, optional
        Whether to draw a bar; default: where a terminal watches.

    Returns
    -------
    SampleArchive
        Paths and class table. The item collection is written last.

    Raises
    ------
    OptionError
        If size, dates or seed are not accepted.
    """
    if not (SMALLEST <= size <= LARGEST and size % 2 == 0):
        raise OptionError(
            f"size={size} is not accepted: a tile needs an even number of pixels from {SMALLEST} to "
            f"{LARGEST}, so that 10 m and 20 m bands cover the same ground."
        )
    if seed < 0:
        raise OptionError(f"seed={seed} is not accepted: give 0 or a positive number.")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    year = build_year(seed, area_shape(size), dates)
    items = write_scenes(root, year, size, progress=progress)
    archive = SampleArchive(root, root / "items.json", root / "labels.gpkg", root / "truth.tif", _bbox(size))
    write_labels(survey(seed, year.land, transform=transform(10), crs=CRS), archive.labels)
    colours = {code: rgb(colour) for code, colour in zip(CODES, COLOURS, strict=True)}
    write_cog(archive.truth, year.land.truth, resolution=10, colours=colours)
    write_index(root, items)
    return archive


def write_index(root: Path, items: tuple[dict[str, Any], ...]) -> None:
    """Write the collection, and last the items: an archive with items is whole.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the archive.
    items : tuple of dict
        Its items, in order of time.
    """
    _write_json(root / "collection.json", build_collection(items))
    _write_json(root / "items.json", {"type": "FeatureCollection", "features": list(items)})


def write_scenes(
    root: Path, year: Year, size: int, *, progress: bool | None = None
) -> tuple[dict[str, Any], ...]:
    """Write all scenes, a date at a time in each thread.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the archive.
    year : Year
        What was seen.
    size : int
        Pixels a side of each tile.
    progress : bool, optional
        Whether to draw a bar.

    Returns
    -------
    tuple of dict
        Items in order of time.
    """
    places = tiles(size)
    total = len(year.passes) * len(places)
    items: list[dict[str, Any]] = []
    # two at a time: each holds the whole area in all bands, about 150 MB at the default size
    with (
        progress_bar("archive", total, unit="scenes", enabled=progress) as advance,
        ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool,
    ):
        for written in pool.map(lambda flight: _write_pass(root, year, flight, places), year.passes):
            items += written
            advance(len(written))
    return tuple(items)


def _write_pass(root: Path, year: Year, flight: Pass, places: tuple[Tile, ...]) -> list[dict[str, Any]]:
    """Write the scenes of one date."""
    delivered = year.deliver(flight)
    items = []
    for tile in places:
        for asset in ASSETS:
            resolution = resolution_of(asset)
            path = root / file_name(flight, tile, asset)
            path.parent.mkdir(exist_ok=True)
            write_cog(path, tile.cut(delivered[asset], resolution), resolution=resolution, column=tile.column)
        items.append(build_item(flight, tile, tile.cut(delivered["SCL"], 20)))
    return items


def write_cog(
    path: Path,
    array: IntArray,
    *,
    resolution: int,
    column: int = 0,
    colours: Mapping[int, tuple[int, int, int]] | None = None,
) -> None:
    """Write one band as COG; 0 is nodata, and class codes (8 bit) are not averaged in overviews.

    Parameters
    ----------
    path : pathlib.Path
        Overwritten where it exists.
    array : numpy.ndarray
        (y, x) integers.
    resolution : int
        Metres a pixel.
    column : int, optional
        First column, in 10 m pixels of the whole area.
    colours : mapping, optional
        Code to red, green, blue.
    """
    import rasterio

    with rasterio.open(
        path,
        "w",
        driver="COG",
        height=array.shape[0],
        width=array.shape[1],
        count=1,
        dtype=array.dtype,
        crs=CRS,
        transform=transform(resolution, column),
        nodata=0,
        blocksize=256,
        compress="deflate",
        level=6,
        predictor="standard",
        overviews="auto",
        overview_resampling="nearest" if array.dtype == np.uint8 else "average",
        num_threads=1,
    ) as file:
        file.write(array, 1)
        if colours:
            file.write_colormap(1, colours)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people and machines."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def rgb(colour: str) -> tuple[int, int, int]:
    """Read ``"#rrggbb"``.

    Parameters
    ----------
    colour : str
        Six hexadecimal digits behind a hash.

    Returns
    -------
    tuple of int
        Red, green, blue, 0 to 255.
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _bbox(size: int) -> BBox:
    """Return the area under both tiles in degrees."""
    from rasterio.warp import transform_bounds

    rows, cols = area_shape(size)
    left, top = transform(10) @ (0, 0)
    right, bottom = transform(10) @ (cols, rows)
    west, south, east, north = transform_bounds(CRS, "EPSG:4326", left, bottom, right, top)
    return west, south, east, north
