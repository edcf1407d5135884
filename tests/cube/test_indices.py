"""Indices against their formulas on decoded reflectance."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.cube.contract import MAIN, check_cube, to_physical
from cubekit.cube.indices import add_indices
from cubekit.errors import CubeError, OptionError, UnknownNameError

BOX = GeoBox.from_bbox((0, 0, 60, 40), "EPSG:32630", resolution=10)


def a_cube(bands: list[str], **attrs: Any) -> xr.Dataset:
    values = np.random.default_rng(0).integers(1, 6000, (3, len(bands), *BOX.shape.yx)).astype("uint16")
    values[0, 0, 0] = 0
    coding = {
        "_FillValue": np.uint16(0),
        "scale_factor": 1e-4,
        "add_offset": -0.1,
        "grid_mapping": "spatial_ref",
    }
    times = pd.date_range("2023-01-01", periods=3)
    coords = {"time": times, "band": bands, **xr_coords(BOX, dims=("y", "x"))}
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords, attrs=coding)
    return xr.Dataset({MAIN: data, "observations": (("time", "y", "x"), values[:, 0])}, attrs=attrs)


def band(cube: xr.Dataset, name: str) -> npt.NDArray[Any]:
    return np.asarray(to_physical(cube[MAIN], dtype="float64").sel(band=name).to_numpy())


@pytest.mark.parametrize(
    ("names", "attrs"),
    [
        (["red", "nir", "blue", "swir16"], {}),
        (["B04", "B08", "B02", "B11"], {}),
        (["B4", "B8", "B2", "B11"], {"collection": "sentinel-2-l2a"}),
        (
            ["b", "n", "a", "s"],
            {"common_names": json.dumps({"b": "red", "n": "nir", "a": "blue", "s": "swir16"})},
        ),
        (["red", "nir08", "blue", "swir16"], {"collection": "landsat-c2-l2"}),
    ],
)
@pytest.mark.parametrize("lazy", [True, False])
def test_indices_follow_their_formulas(names: list[str], attrs: dict[str, str], lazy: bool) -> None:  # noqa: FBT001
    cube = a_cube(names, **attrs)
    found = add_indices(cube.chunk({"time": 1, "x": 2, "band": 2}) if lazy else cube, ["NDVI", "EVI", "NDMI"])
    check_cube(found)
    red, nir, blue, swir = (band(cube, name) for name in names)
    assert found.indexes["band"].tolist() == [*names, "NDVI", "EVI", "NDMI"]
    assert found[MAIN].dtype == "float32"
    assert (found[MAIN].chunks is not None) == lazy
    values = {name: found[MAIN].sel(band=name).to_numpy() for name in ("NDVI", "EVI", "NDMI", names[0])}
    expected = (nir - red) / (nir + red)
    near = np.abs(nir + red) > 0.01  # elsewhere float32 cannot tell
    np.testing.assert_allclose(values["NDVI"][near], expected[near], rtol=1e-3, atol=1e-4)
    bottom = nir + 6 * red - 7.5 * blue + 1
    near = np.abs(bottom) > 0.01
    np.testing.assert_allclose(values["EVI"][near], (2.5 * (nir - red) / bottom)[near], rtol=1e-3, atol=1e-4)
    near = np.abs(nir + swir) > 0.01
    np.testing.assert_allclose(
        values["NDMI"][near], ((nir - swir) / (nir + swir))[near], rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(values[names[0]], red, atol=1e-6)
    assert np.isnan(values["NDVI"][0, 0]).all()
    np.testing.assert_array_equal(found["observations"], cube["observations"])


def test_a_formula_that_divides_by_zero_gives_no_data() -> None:
    cube = a_cube(["red", "nir"])
    cube[MAIN][1] = 1000  # reflectance 0 in both bands
    found = add_indices(cube, "NDVI")[MAIN].sel(band="NDVI").to_numpy()
    assert np.isnan(found[1]).all()
    assert not np.isinf(found).any()


def test_wrong_wishes_are_refused() -> None:
    cube = a_cube(["red", "nir"])
    with pytest.raises(UnknownNameError, match=r"'NDVII'.*'NDVI'"):
        add_indices(cube, "NDVII")
    with pytest.raises(UnknownNameError, match=r"'EVI' needs a band 'blue' \(B\)"):
        add_indices(cube, "EVI")
    with pytest.raises(OptionError, match="each once"):
        add_indices(cube, ["NDVI", "NDVI"])
    with pytest.raises(OptionError, match="none that is a band"):
        add_indices(add_indices(cube, "NDVI"), "NDVI")
    del cube[MAIN].attrs["scale_factor"]
    with pytest.raises(CubeError, match="uint16 without scale_factor"):
        add_indices(cube, "NDVI")


def test_the_catalogue_needs_no_network_and_loads_late() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "import cubekit.cube.indices\n"
        "assert 'spyndex' not in sys.modules\n"
        "assert len(cubekit.cube.indices._catalogue()[0]) > 200\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
