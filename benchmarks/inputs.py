"""The inputs of all rows, made once: two sample archives, stores in several layouts, and models.

Scenes for loading are large and few; the cube for series, patches and prediction has 24 dates and is smaller.
"""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cubekit.typing import Array

if TYPE_CHECKING:
    import pystac
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from cubekit.sources.items import Items
    from cubekit.training.bundle import Model

FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
BANDS = (*FINE, *COARSE)
CLOUDS = (3, 8, 9, 10)
"""Scene classes that the catalog's masks "clouds" and "shadows" name, for the peers."""

SCENES, DATES = 8, 24
LAYOUTS: dict[str, Any] = {
    "256": {"y": 256, "x": 256},
    "128": {"y": 128, "x": 128},
    "scene": {"time": 1, "band": 1},
}
"""Chunks of the stores that patches are drawn from; "scene" is what loaders write by default."""

UNET = {"width": 16, "depth": 3}
"""Arguments of the U-Net: a size that two cores can train too."""

PAST = 12
"""Dates of one band that the ConvLSTM-UNet makes a map from."""

_TILE = "T33UIA"  # one of the two tiles, so that peers without mosaicking do the same work
_BLOCK = 512  # of the tiles in a file, as in the archives that people read
_FIRST = datetime(2023, 3, 3, 10, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Inputs:
    """Where the inputs lie."""

    folder: Path

    def make(self, *, size: int, side: int) -> None:
        """Make what is not there yet: scenes of so many pixels, and a cube of so many."""
        wanted, made = {"size": size, "side": side, "version": 2}, self.folder / "made.json"
        if made.exists() and json.loads(made.read_text("utf-8")) == wanted:
            return
        print(f"making inputs in {self.folder} (once, a few minutes)", file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._make_scenes(size)
        self._make_cube(side)
        self._make_models()
        made.write_text(json.dumps(wanted), encoding="utf-8")

    def _make_scenes(self, size: int) -> None:
        """Write the archive, keep one tile of it, in tiles of 512 pixels."""
        from cubekit.testing.archive import write_sample_archive

        folder = self.folder / "archive"
        write_sample_archive(
            folder, size=size, dates=SCENES + 1, progress=False
        )  # the first is of an old baseline
        for path in folder.iterdir():
            if path.is_dir() and _TILE not in path.name:
                shutil.rmtree(path)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_with_large_tiles, sorted(folder.glob("*/*.tif"))))

    def _make_cube(self, side: int) -> None:
        """Write the cube of 24 dates in all layouts, and its labels."""
        import cubekit as ck
        from cubekit.testing.archive import write_sample_archive

        archive = write_sample_archive(self.folder / "small", size=side, dates=DATES, progress=False)
        records = _of_one_tile(archive.items, archive.folder)
        items = ck.open_items(records, root=archive.folder)
        cube = ck.open_cube(items, _grid(records[0]), bands=BANDS, resampling="bilinear")
        ck.write(cube, self.folder / "cube.zarr", overwrite=True, progress=False)
        for name, layout in LAYOUTS.items():
            data = self.store()[["data"]]
            ck.write(data, self.layout(name), layout=layout, overwrite=True, progress=False)
        archive.labels.rename(self.folder / "labels.gpkg")
        shutil.rmtree(archive.folder)

    def _make_models(self) -> None:
        """Train for one step or two: speed does not depend on what a network has learned."""
        import cubekit as ck
        from cubekit.batching.extract import extract

        labels = ck.load_labels(self.folder / "labels.gpkg", self.store(), column="class", inward=20)
        samples = extract(self.store(), labels, limit_per_class=100, progress=False)
        ck.fit("tempcnn", samples, epochs=1, progress=False).save(self.folder / "tempcnn")
        patches = _patches(self.store(), samples.classes)
        some: dict[str, Any] = {"epochs": 1, "batch": 4, "progress": False}
        ck.fit("unet", patches, arguments=UNET, **some).save(self.folder / "unet")
        ck.fit("convlstm_unet", _past_maps(patches), **some).save(self.folder / "convlstm_unet")

    def records(
        self, count: int | None = None, base: str | None = None, *, dense: bool = False
    ) -> list[dict[str, Any]]:
        """Return items of one tile as STAC says them, a week apart if dense; none of an old baseline."""
        found = _of_one_tile(self.folder / "archive" / "items.json", base or self.folder / "archive")
        wanted = [item for item in found if item["properties"]["s2:processing_baseline"] >= "04"][:count]
        for number, item in enumerate(wanted if dense else []):
            # four dates a month: 3, 10, 17 and 24
            month, week = divmod(number, 4)
            moment = _FIRST.replace(month=_FIRST.month + month) + timedelta(weeks=week)
            item["properties"]["datetime"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        return wanted

    def items(self, count: int | None = None, base: str | None = None, *, dense: bool = False) -> "Items":
        """Return the same items as cubekit opens them."""
        import cubekit as ck

        root = None if base else self.folder / "archive"
        return ck.open_items(self.records(count, base, dense=dense), root=root)

    def stac(
        self, count: int | None = None, base: str | None = None, *, dense: bool = False
    ) -> "list[pystac.Item]":
        """Return the same items as peers take them."""
        import pystac

        return [pystac.Item.from_dict(item) for item in self.records(count, base, dense=dense)]

    def grid(self, side: int | None = None) -> "GeoBox":
        """Return the 10 m grid of the tile, or its middle."""
        whole = _grid(self.records(1)[0])
        if side is None or side >= whole.shape.x:
            return whole
        start = (whole.shape.x - side) // 2 // _BLOCK * _BLOCK
        return whole[start : start + side, start : start + side]

    def other_grid(self) -> "GeoBox":
        """Return a 10 m grid of the same size in another CRS, its middle on that of the tile."""
        from odc.geo.geobox import GeoBox

        here = self.grid()
        (x, y), *_ = here.extent.to_crs("EPSG:3035").centroid.coords
        half = here.shape.x * 5
        left, bottom = round(x, -1) - half, round(y, -1) - half
        return GeoBox.from_bbox(
            (left, bottom, left + 2 * half, bottom + 2 * half), "EPSG:3035", resolution=10
        )

    def store(self) -> "xr.Dataset":
        """Return the store, lazy: all dates, ten bands, in the layout for series."""
        import cubekit as ck

        return ck.open(self.folder / "cube.zarr")

    def layout(self, name: str) -> Path:
        """Return where the cube lies in one of the layouts."""
        return self.folder / f"cube-{name}.zarr"

    def labels(self, cube: "xr.Dataset") -> "xr.Dataset":
        """Return the labels of the cube."""
        import cubekit as ck

        return ck.load_labels(self.folder / "labels.gpkg", cube, column="class", inward=20)

    def model(self, name: str = "tempcnn") -> "Model":
        """Return a model; its speed does not depend on its quality."""
        import cubekit as ck

        return ck.load_model(self.folder / name)


def check(values: Array) -> float:
    """Return a number that cases of the same work share: the mean of a sparse sample."""
    return float(values[..., ::7, ::11].astype("float64").mean())


def _of_one_tile(path: Path, root: Any) -> list[dict[str, Any]]:
    features = json.loads(path.read_text("utf-8"))["features"]
    wanted = [item for item in features if _TILE in item["id"]]
    for item in wanted:
        for asset in item["assets"].values():
            asset["href"] = f"{root}/{asset['href']}"
    return wanted


def _grid(record: dict[str, Any]) -> "GeoBox":
    from affine import Affine
    from odc.geo.geobox import GeoBox

    asset = record["assets"]["B02"]
    return GeoBox(asset["proj:shape"], Affine(*asset["proj:transform"][:6]), asset["proj:code"])


def _with_large_tiles(path: Path) -> None:
    from rasterio.shutil import copy

    made = path.with_suffix(".new")
    codes = "SCL" in path.name
    options = {"compress": "deflate", "level": 6, "predictor": "standard", "num_threads": 1}
    averaging = "nearest" if codes else "average"
    copy(
        path,
        made,
        driver="COG",
        blocksize=_BLOCK,
        overviews="ignore_existing",
        overview_resampling=averaging,
        **options,
    )
    made.replace(path)


def _patches(cube: "xr.Dataset", classes: Any) -> Any:
    """Return a few patches with invented labels, to build and fit a network on."""
    import numpy as np

    from cubekit.cube.contract import to_physical
    from cubekit.tasks.examples import Examples

    values = to_physical(cube["data"][..., :64, :64]).fillna(0.1).to_numpy().astype("float32")
    x = np.stack([values, values[..., ::-1], values[..., ::-1, :], values[..., ::-1, ::-1]])
    y = np.random.default_rng(0).integers(0, len(classes.names), (4, 64, 64))
    return Examples(arrays={"x": x, "y": y}, bands=BANDS, times=cube["time"].to_numpy(), classes=classes)


def _past_maps(patches: Any) -> Any:
    """Return patches of one band, and the next map of it, for a network that forecasts."""
    from cubekit.tasks.examples import Examples

    x = patches.arrays["x"][:, :, 3:4]
    arrays = {"x": x[:, :PAST], "y": x[:, PAST, 0]}
    return Examples(arrays=arrays, bands=BANDS[3:4], times=patches.times[:PAST])
