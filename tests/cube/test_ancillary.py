"""Ancillary layers: against published slopes, an inclined plane, pyproj and GDAL's own averages."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from pyproj import Transformer
from rasterio.warp import Resampling, calculate_default_transform, reproject

import cubekit as ck
from cubekit.cube.ancillary import slope
from cubekit.errors import OptionError, SourceError

GRID = GeoBox((8, 10), Affine(300, 0, 300_000, 0, -300, 4_100_000), "EPSG:32630")
FINE = GeoBox((120, 140), Affine(30, 0, 299_400, 0, -30, 4_100_600), "EPSG:32630")


def cube() -> xr.Dataset:
    return wrap_xr(np.zeros(GRID.shape, "float32"), GRID).to_dataset(name="values")


def write(path: Path, values: np.ndarray, *, nodata: float | None = None, scale: float = 1.0) -> Path:
    profile = {"crs": "EPSG:32630", "transform": FINE.transform, "nodata": nodata, "dtype": values.dtype}
    rows, columns = values.shape
    with rasterio.open(path, "w", driver="GTiff", height=rows, width=columns, count=1, **profile) as file:
        file.write(values, 1)
        file.scales = (scale,)
    return path


def test_slope_is_that_of_the_worked_example() -> None:
    # How slope works, ArcGIS documentation: pixels of 5 m, the middle one slopes by 75.25762 degrees
    heights = np.array([[50, 45, 50], [30, 30, 30], [8, 10, 10]], "float64")
    found = slope(heights, resolution=(5, 5))
    assert found[1, 1] == pytest.approx(75.25762, abs=1e-4)
    assert np.isnan(found).sum() == 8  # nothing is invented at the edges


@pytest.mark.parametrize("crs", ["EPSG:32630", "EPSG:4326", "EPSG:32629"])
def test_an_inclined_plane_slopes_alike_in_any_crs(crs: str) -> None:
    down, across = np.indices(FINE.shape)
    plane = 100 + 30 * np.tan(np.radians(10)) * (0.6 * across + 0.8 * down)
    heights = wrap_xr(plane.astype("float32"), FINE)
    if crs != "EPSG:32630":
        size = FINE.shape.x, FINE.shape.y
        transform, columns, rows = calculate_default_transform("EPSG:32630", crs, *size, *FINE.boundingbox)
        box = GeoBox((rows, columns), transform, crs)
        heights = heights.odc.reproject(box, resampling="bilinear", dst_nodata=np.nan)
    found = ck.add_ancillary(cube(), elevation=heights, place=False)
    np.testing.assert_allclose(found["slope"], 10, atol=0.05)
    middle = plane[70:80, 70:80].mean()  # the pixel in row 5, column 5 begins 20 fine pixels further in
    assert float(found["altitude"][5, 5]) == pytest.approx(middle, abs=0.5)
    assert found["altitude"].attrs["units"] == "m"


def test_fine_rasters_are_averaged_as_gdal_does_and_decoded(tmp_path: Path) -> None:
    rain = np.random.default_rng(0).integers(1, 2000, FINE.shape).astype("int16")
    rain[40:60, 40:60] = -1
    path = write(tmp_path / "rain.tif", rain, nodata=-1, scale=0.1)
    found = ck.add_ancillary(cube(), layers={"rain": path})["rain"]
    expected = np.full(GRID.shape, np.nan, "float32")
    reproject(
        np.where(rain < 0, np.nan, rain * 0.1).astype("float32"),
        expected,
        src_transform=FINE.transform,
        dst_transform=GRID.transform,
        src_crs="EPSG:32630",
        dst_crs="EPSG:32630",
        resampling=Resampling.average,
        src_nodata=np.nan,
        dst_nodata=np.nan,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.isnull().sum() == 4  # the pixels that hold nothing else


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heights = np.random.default_rng(1).random(FINE.shape).astype("float32") * 50
    path = write(tmp_path / "dem.tif", heights)
    whole = ck.add_ancillary(cube(), elevation=path)
    monkeypatch.setattr("cubekit.cube.ancillary._BLOCK", 1000)
    parts = ck.add_ancillary(cube(), elevation=path)
    for name in ("altitude", "slope"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)


def test_places_are_those_of_the_pixels_middle() -> None:
    found = ck.add_ancillary(cube())
    east, north = Transformer.from_crs("EPSG:32630", "EPSG:4326", always_xy=True).transform(
        300_450, 4_099_250
    )
    assert float(found["longitude"][2, 1]) == pytest.approx(east, abs=1e-5)
    assert float(found["latitude"][2, 1]) == pytest.approx(north, abs=1e-5)


def test_what_cannot_be_laid_is_refused(tmp_path: Path) -> None:
    far = wrap_xr(np.ones((20, 20), "float32"), GeoBox((20, 20), FINE.transform, "EPSG:32610"))
    with pytest.raises(SourceError, match="does not reach the grid"):
        ck.add_ancillary(cube(), elevation=far)
    with pytest.raises(SourceError, match="no raster file"):
        ck.add_ancillary(cube(), elevation=tmp_path / "dem.vrt")
    with pytest.raises(OptionError, match="nothing to add"):
        ck.add_ancillary(cube(), place=False)
    with pytest.raises(OptionError, match="longitude"):
        ck.add_ancillary(ck.add_ancillary(cube()))
