import numpy as np
import odc.geo.xr
import pytest
import rasterio.warp
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cubekit.cube.regrid import Kernel, regrid
from cubekit.errors import CubeError, OptionError

FINE = GeoBox.from_bbox((600_000, 5_000_000, 601_000, 5_000_800), "EPSG:32631", resolution=10)
COARSE = GeoBox.from_bbox((598_900, 4_998_700, 602_400, 5_002_200), "EPSG:32631", resolution=250)


def image(box: GeoBox = COARSE, seed: int = 0) -> xr.DataArray:
    values = np.random.default_rng(seed).random((2, 3, *box.shape)).astype("float32")
    coords = {str(name): coord for name, coord in odc.geo.xr.xr_coords(box, dims=("y", "x")).items()}
    return xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords)


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "cubic"])
def test_without_gaps_it_is_what_gdal_does(kernel: Kernel) -> None:
    coarse = image()
    found = regrid(coarse, FINE, resampling=kernel)
    expected = np.empty(FINE.shape.yx, "float32")
    rasterio.warp.reproject(
        coarse.to_numpy()[1, 2],
        expected,
        src_transform=COARSE.transform,
        src_crs="EPSG:32631",
        dst_transform=FINE.transform,
        dst_crs="EPSG:32631",
        resampling=rasterio.warp.Resampling[kernel],
        XSCALE=1,
        YSCALE=1,
    )
    np.testing.assert_allclose(found.to_numpy()[1, 2], expected, atol=2e-6)
    assert found.odc.geobox == FINE


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(7, 90), columns=st.integers(7, 110), kernel=st.sampled_from(["bilinear", "cubic"]))
def test_any_chunks_give_the_same_numbers(rows: int, columns: int, kernel: Kernel) -> None:
    coarse = image()
    coarse[0, 0, 6, 7] = np.nan
    sizes = tuple(
        tuple(min(step, full - first) for first in range(0, full, step))
        for full, step in zip(FINE.shape.yx, (rows, columns), strict=True)
    )
    lazy = regrid(coarse.chunk({"time": 1, "band": 3}), FINE, resampling=kernel, chunks=sizes)
    assert lazy.chunks is not None
    assert lazy.chunks[2:] == sizes
    np.testing.assert_array_equal(lazy.to_numpy(), regrid(coarse, FINE, resampling=kernel).to_numpy())


def test_a_gap_stays_one_and_spreads_no_further() -> None:
    coarse = image()
    coarse[:, :, 6, 7] = np.nan
    found = regrid(coarse, FINE).to_numpy()
    left, top = COARSE.transform * (7, 6)  # corner of the coarse pixel without data
    x, y = FINE.coordinates["x"].values, FINE.coordinates["y"].values
    gap = ((y < top) & (y > top - 250))[:, None] & ((x > left) & (x < left + 250))[None, :]
    assert gap.any()
    np.testing.assert_array_equal(np.isnan(found[0, 0]), gap)


def test_stored_numbers_are_decoded_and_other_crs_are_reached() -> None:
    stored = (image() * 10_000).astype("uint16").assign_attrs(_FillValue=0, scale_factor=1e-4)
    degrees = GeoBox.from_bbox((4.28, 45.148, 4.29, 45.155), "EPSG:4326", resolution=0.0005)
    found = regrid(stored, degrees)
    assert found.dtype == "float32"
    assert -0.3 < float(found.min()) < float(found.max()) < 1.3  # cubic overshoots
    assert "scale_factor" not in found.attrs
    smooth = image()
    smooth.values[:] = smooth["x"].to_numpy()
    eastings = regrid(smooth, degrees).to_numpy()[0, 0]
    lon, lat = np.meshgrid(degrees.coordinates["longitude"].values, degrees.coordinates["latitude"].values)
    expected, _ = rasterio.warp.transform("EPSG:4326", "EPSG:32631", lon.ravel(), lat.ravel())
    np.testing.assert_allclose(eastings.ravel(), expected, atol=0.2)


def test_the_same_grid_changes_nothing_and_wrong_input_is_refused() -> None:
    coarse = image()
    np.testing.assert_array_equal(regrid(coarse, COARSE).to_numpy(), coarse.to_numpy())
    far = GeoBox.from_bbox((0, 0, 100, 100), "EPSG:32631", resolution=10)
    assert np.isnan(regrid(coarse, far).to_numpy()).all()
    with pytest.raises(OptionError, match="Did you mean"):
        regrid(coarse, FINE, resampling="cubik")  # type: ignore[arg-type]
    with pytest.raises(CubeError, match="CRS"):
        regrid(coarse.drop_vars(["x", "y", "spatial_ref"]), FINE)
