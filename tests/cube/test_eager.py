"""Loading into memory gives what computing gives, with coordinates, attributes and coding."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from odc.geo.geobox import GeoBox

import cubekit as ck
from cubekit.cube.resample import Resampling
from cubekit.errors import OptionError, SourceError
from cubekit.testing.archive import SampleArchive


@pytest.fixture
def cube(sample_archive: SampleArchive) -> xr.Dataset:
    items = ck.open_items(sample_archive.items)
    chunks = {"time": 1, "y": 64, "x": 96}
    return ck.open_cube(items, bands=["red", "nir08"], mask="clouds", chunks=chunks)


def test_it_gives_what_compute_gives(cube: xr.Dataset) -> None:
    cube = ck.composite(cube, every="3MS").isel(y=slice(5, 150))
    loaded = ck.load(cube, workers=2)
    xr.testing.assert_identical(loaded, cube.compute())
    assert loaded["data"].encoding == cube["data"].encoding
    assert isinstance(loaded["data"].data, np.ndarray)
    assert isinstance(loaded["observations"].data, np.ndarray)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3035"])
def test_blocks_of_scenes_are_made_in_their_place(
    sample_archive: SampleArchive, resampling: Resampling, crs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cubekit.cube.eager.da.store", lambda *_, **__: pytest.fail("blocks were copied"))
    items = ck.open_items(sample_archive.items)
    own = ck.open_cube(items, bands=["red"]).odc.geobox
    bounds = rasterio.warp.transform_bounds(str(own.crs), crs, *own.boundingbox.bbox)
    grid = GeoBox.from_bbox(bounds, crs, resolution=10)
    chunks = {"time": 3, "y": 100, "x": 70}
    cube = ck.open_cube(items, grid, bands=["red", "swir16"], chunks=chunks, resampling=resampling)
    loaded = ck.load(cube.isel(time=slice(None)), workers=2)
    xr.testing.assert_identical(loaded, cube.compute())
    assert 0 < (loaded["data"] == 0).mean() < 1


def test_a_cube_that_others_are_made_from_is_not_read_twice(
    cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cubekit.cube.eager.load_block", lambda *_: pytest.fail("Dask shares these blocks"))
    cube["double"] = cube["data"] * 2
    xr.testing.assert_identical(ck.load(cube), cube.compute())


def test_what_is_in_memory_is_shared(cube: xr.Dataset) -> None:
    inside = cube.isel(time=[0], y=slice(0, 8), x=slice(0, 8)).compute()
    assert ck.load(inside)["data"].data is inside["data"].data


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "20230101_red.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint16", "nodata": 0}
    with rasterio.open(
        path, "w", crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), **profile
    ) as file:
        file.write(np.ones((1, 64, 64), "uint16"))
    cube = ck.open_cube(ck.open_archive(tmp_path, "{date:%Y%m%d}_{band}.tif"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceError, match=r"20230101_red\.tif"):
        ck.load(cube)


def test_another_kind_is_refused() -> None:
    with pytest.raises(OptionError, match="open_cube"):
        ck.load(np.zeros(3))  # type: ignore[arg-type]
