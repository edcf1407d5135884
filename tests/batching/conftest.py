"""Small cubes, labels and samples with known content."""

from collections.abc import Callable

import numpy as np
import odc.geo.xr
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.labels import ClassTable


@pytest.fixture(scope="session")
def make_cube() -> Callable[..., xr.Dataset]:
    """Return a maker of cubes of random digital numbers, 0 is nodata."""

    def make(
        *, rows: int = 23, columns: int = 31, steps: int = 4, bands: int = 3, crs: str = "EPSG:32633"
    ) -> xr.Dataset:
        resolution = 10 if crs != "EPSG:4326" else 1e-4
        corner = (500_000, 5_000_000) if crs != "EPSG:4326" else (15, 45)
        box = (*corner, corner[0] + columns * resolution, corner[1] + rows * resolution)
        grid = GeoBox.from_bbox(box, crs, shape=(rows, columns))
        values = (
            np.random.default_rng(1).integers(0, 6, (steps, bands, rows, columns)).astype("uint16") * 1000
        )
        times = np.datetime64("2020-01-15", "ns") + np.arange(steps) * np.timedelta64(30, "D")
        data = xr.DataArray(
            values,
            dims=("time", "band", "y", "x"),
            coords=odc.geo.xr.xr_coords(grid, always_yx=True)
            | {"time": times, "band": np.array([f"B{index:02d}" for index in range(bands)], dtype=object)},
            attrs={"_FillValue": np.uint16(0), "scale_factor": 1e-4, "add_offset": -0.1},
        )
        return xr.Dataset({"data": data})

    return make


@pytest.fixture
def make_labels() -> Callable[..., xr.Dataset]:
    """Return a maker of labels: a share of the pixels of a cube, three classes, groups of 4 x 4 pixels."""

    def make(cube: xr.Dataset, *, share: float = 0.3) -> xr.Dataset:
        random = np.random.default_rng(2)
        shape = (cube.sizes["y"], cube.sizes["x"])
        label = np.where(random.random(shape) < share, random.integers(0, 3, shape), -1).astype("int16")
        row, column = np.indices(shape)
        group = np.where(label >= 0, (row // 4) * 100 + column // 4, -1).astype("int32")
        table = ClassTable.of(["water", "forest", "crop"])
        coords = {name: cube.coords[name] for name in ("y", "x", "spatial_ref")}
        return xr.Dataset(
            {"label": (("y", "x"), label, table.attrs()), "group": (("y", "x"), group)}, coords=coords
        )

    return make


@pytest.fixture
def make_samples() -> Callable[..., Samples]:
    """Return a maker of samples at random places of a square, in clustered groups."""

    def make(
        n: int = 200, *, classes: int = 3, steps: int = 5, bands: int = 2, side: float = 3000, seed: int = 0
    ) -> Samples:
        random = np.random.default_rng(seed)
        y = np.concatenate([np.arange(classes), random.integers(0, classes, n)])[:n].astype("int16")
        position = random.uniform(0, side, (n, 2))
        return Samples(
            x=random.integers(0, 5000, (n, steps, bands)).astype("uint16"),
            y=y,
            bands=tuple(f"B{index:02d}" for index in range(bands)),
            times=np.datetime64("2021-01-01", "ns") + np.arange(steps) * np.timedelta64(60, "D"),
            classes=ClassTable.of([f"class {index}" for index in range(classes)]),
            group=(position[:, 0] // 300 * 100 + position[:, 1] // 300).astype("int64"),
            position=position,
            crs="EPSG:32633",
            resolution=10.0,
            encoding=Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1),
        )

    return make
