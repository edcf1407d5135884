"""A year of Sentinel-2 over an invented mountain forest: scenes, and the tables Earth Engine exports."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import cubekit
from cubekit.batching.earth_engine import CLASS, DATE, MISSING
from cubekit.typing import IntArray

if TYPE_CHECKING:
    import xarray as xr

log = logging.getLogger("cubekit")

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
YEAR = ("2023-01", "2023-12")
EPOCHS = 30
SIDE = 60
"""Pixels a side of the square that the table to predict holds."""


@contextmanager
def mountain_forest(
    folder: Path, *, seed: int = 0, size: int = 140, dates: int = 30
) -> Iterator[Mapping[str, object]]:
    """Make scenes, field plots, and both tables.

    Parameters
    ----------
    folder : pathlib.Path
        Where they go; what lies there finished is not made again.
    seed : int, optional
        Seed of forest, clouds and plots.
    size : int, optional
        Side of a scene in pixels of 10 m.
    dates : int, optional
        Dates in the year.

    Yields
    ------
    mapping
        ``items``, ``labels``, ``colours``, ``start``, ``end``, ``epochs``. Beside the scenes lie
        ``plots.csv`` and ``unlabelled.csv``, for the settings ``table`` and ``unlabelled``.
    """
    from cubekit.testing.forest import COLOURS, SPECIES, ForestArchive, write_forest_archive

    archive = ForestArchive(folder / "items.json", folder / "plots.gpkg", folder / "truth.tif")
    if not (folder / "unlabelled.csv").exists():
        log.info("sample forest: two overlapping scenes of Sentinel-2 type, %d dates", dates)
        archive = write_forest_archive(folder, seed=seed, size=size, dates=dates)
        _write_tables(archive.items, archive.plots, folder)
    log.info("the same plots as a table: --set table=%s", folder / "plots.csv")
    yield {
        "items": str(archive.items),
        "labels": str(archive.plots),
        "colours": dict(zip(SPECIES, COLOURS, strict=True)),
        "start": YEAR[0],
        "end": YEAR[1],
        "epochs": EPOCHS,
    }


def _write_tables(items: Path, plots: Path, folder: Path) -> None:
    """Write pixel-months as Earth Engine exports them: of the plots, and of a square to predict."""
    cube = cubekit.open_cube(cubekit.open_items(str(items)), bands=list(BANDS), mask="clouds")
    cube = cubekit.composite(cube, every="1MS", how="earliest", start=YEAR[0], end="2023-12-31").compute()
    labels = cubekit.load_labels(str(plots), cube, column=CLASS)
    names = np.array(labels["label"].attrs["classes"])
    rows, columns = np.nonzero(labels["label"].to_numpy() >= 0)
    known = {CLASS: names[labels["label"].to_numpy()[rows, columns]]}
    _exported(cube, rows, columns, known).to_csv(folder / "plots.csv", index=False)
    square = np.indices((SIDE, SIDE)).reshape(2, -1) + 20
    _exported(cube, square[0], square[1], {}).to_csv(folder / "unlabelled.csv", index=False)


def _exported(
    cube: "xr.Dataset", rows: IntArray, columns: IntArray, known: Mapping[str, IntArray]
) -> pd.DataFrame:
    """Return one row for each pixel and month, integers of reflectance x 10000, -999 where masked."""
    from pyproj import Transformer

    from cubekit.cube.contract import geobox_of, to_physical

    box = geobox_of(cube)
    east, north = np.asarray(box.affine * np.stack([columns + 0.5, rows + 0.5]))
    lon, lat = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True).transform(east, north)
    points = [
        f'{{"geodesic":false,"type":"Point","coordinates":[{x:.8f},{y:.8f}]}}'
        for x, y in zip(lon, lat, strict=True)
    ]
    numbers = np.rint(to_physical(cube["data"]).to_numpy()[:, :, rows, columns] * 10_000)
    months = []
    for month, values in zip(cube["time"].dt.strftime("%Y-%m-%d").to_numpy(), numbers, strict=True):
        bands = {band.replace("B0", "B"): column for band, column in zip(BANDS, values, strict=True)}
        blue, green, red, nir = (bands[name] for name in ("B2", "B3", "B4", "B8"))
        # as scripts there do it, from integers: reading the table computes them anew
        bands["EVI"] = 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)
        bands["NDVI"] = (nir - red) / (nir + red)
        bands["NDWI"] = (green - nir) / (green + nir)
        filled = {name: np.where(np.isfinite(column), column, MISSING) for name, column in bands.items()}
        months.append(pd.DataFrame({**filled, DATE: month, **known, ".geo": points}))
    table = pd.concat(months, ignore_index=True)
    table.insert(0, "system:index", [f"{number}_0" for number in range(len(table))])
    return table
