"""FVC and RSEI against their definitions written out and against scikit-learn's components."""

from typing import Any, get_args

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.cube.ecology import EcologyIndex, ecological_index, vegetation_cover, vegetation_index
from cubekit.errors import CubeError, OptionError, UnknownNameError

BANDS = ["blue", "green", "red", "nir08", "swir16", "swir22", "lst"]


def reflectance(seed: int = 0, *, dates: int = 3) -> xr.Dataset:
    """A cube of random reflectance with a temperature band and one pixel without data."""
    box = GeoBox.from_bbox((0, 0, 240, 210), "EPSG:32633", resolution=30)
    data = np.random.default_rng(seed).uniform(0.02, 0.5, (dates, 7, *box.shape)).astype("float32")
    data[:, 1] = data[:, 4] * 0.5  # no water
    data[:, 6] = 280 + 40 * data[:, 6]
    data[0, :, 0, 0] = np.nan
    coords = {**xr_coords(box), "band": BANDS, "time": np.array(["2001", "2002", "2003"][:dates], "M8[ns]")}
    return xr.Dataset({"data": (("time", "band", "y", "x"), data, {"grid_mapping": "spatial_ref"})}, coords)


def test_the_four_plain_ones_by_hand() -> None:
    cube = reflectance()
    blue, red, nir = (cube["data"].sel(band=band).to_numpy() for band in ("blue", "red", "nir08"))
    expected: dict[EcologyIndex, Any] = {
        "NDVI": (nir - red) / (nir + red),
        "RVI": nir / red,
        "SAVI": 1.5 * (nir - red) / (nir + red + 0.5),
        "EVI": 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1),
    }
    for name, values in expected.items():
        found = vegetation_index(cube, name)
        assert found["band"].to_numpy().tolist() == [name]
        np.testing.assert_allclose(found["data"][:, 0], values, rtol=1e-4)


def test_cover_divides_ndvi_between_soil_and_vegetation() -> None:
    cube = reflectance()
    ndvi = vegetation_index(cube, "NDVI")["data"].to_numpy()[:, 0]
    low, high = np.nanpercentile(ndvi, (5, 95))
    expected = np.clip((ndvi - low) / (high - low), 0, 1)
    found = vegetation_index(cube.chunk({"time": 1, "y": 3}), "FVC")
    np.testing.assert_allclose(found["data"][:, 0], expected, atol=1e-5)
    assert found["data"].attrs["ndvi_soil"] == pytest.approx(low, abs=1e-6)
    given = vegetation_cover(cube, soil=0.05, vegetation=0.8)["data"].to_numpy()[:, 0]
    np.testing.assert_allclose(given, np.clip((ndvi - 0.05) / 0.75, 0, 1), atol=1e-5)
    with pytest.raises(OptionError, match="below vegetation"):
        vegetation_cover(cube, soil=0.8, vegetation=0.1)


@pytest.mark.parametrize("chunks", [{}, {"time": 1, "x": 4}])
def test_rsei_is_the_first_component_of_scikit_learn(chunks: dict[str, int]) -> None:
    PCA = pytest.importorskip("sklearn.decomposition").PCA  # noqa: N806

    cube = reflectance()
    b, g, r, n, s, t, heat = (cube["data"].to_numpy()[:, i].astype("f8") for i in range(7))
    wet = 0.1511 * b + 0.1973 * g + 0.3283 * r + 0.3407 * n - 0.7117 * s - 0.4559 * t
    si = ((s + r) - (n + b)) / ((s + r) + (n + b))
    inner = n / (n + r) + g / (g + s)
    ibi = (2 * s / (s + n) - inner) / (2 * s / (s + n) + inner)
    table = np.stack([((n - r) / (n + r)), wet, (si + ibi) / 2, heat], -1).reshape(-1, 4)
    known = np.isfinite(table).all(1)
    table = (table[known] - table[known].min(0)) / (table[known].max(0) - table[known].min(0))
    pca = PCA(1).fit(table)
    first = pca.transform(table)[:, 0] * np.sign(pca.components_[0, 0])
    found = ecological_index(cube.chunk(chunks) if chunks else cube)["data"]
    values = found.to_numpy()[:, 0].ravel()
    assert np.isnan(values[~known]).all()
    np.testing.assert_allclose(values[known], (first - first.min()) / np.ptp(first), atol=2e-5)
    assert found.attrs["explained"] == pytest.approx(pca.explained_variance_ratio_[0], abs=1e-6)
    assert found.attrs["loadings"][0] > 0


def test_water_is_left_out_unless_wanted() -> None:
    cube = reflectance()
    cube["data"][1, BANDS.index("green"), 2, 3] = 0.9
    assert np.isnan(vegetation_index(cube, "RSEI")["data"][1, 0, 2, 3])
    assert np.isfinite(vegetation_index(cube, "RSEI", water=True)["data"][1, 0, 2, 3])


def test_what_is_missing_is_named() -> None:
    cube = reflectance()
    assert set(get_args(EcologyIndex)) == {"EVI", "FVC", "NDVI", "RVI", "RSEI", "SAVI"}
    with pytest.raises(OptionError, match="NDVI"):
        vegetation_index(cube, "NDIV")  # type: ignore[arg-type]
    with pytest.raises(CubeError, match="temperature"):
        vegetation_index(cube, "RSEI", heat="st")
    with pytest.raises(UnknownNameError, match="S2"):
        ecological_index(cube.sel(band=[b for b in BANDS if b != "swir22"]))
