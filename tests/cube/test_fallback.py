"""Pixels without a clear date take what was measured anyway."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import cubekit as ck
from cubekit.cube.contract import RECIPE
from cubekit.cube.fallback import fall_back
from cubekit.errors import CubeError


def cube(seed: int, *, gaps: float, days: int = 40) -> xr.Dataset:
    """Give a date every five days, each missing for some pixels."""
    rng = np.random.default_rng(seed)
    coords = xr_coords(GeoBox.from_bbox((0, 0, 70, 50), "EPSG:32631", resolution=10), always_yx=True)
    times = np.datetime64("2021-11-01", "ns") + np.arange(0, days, 5) * np.timedelta64(1, "D")
    data = rng.integers(1, 9999, (len(times), 2, 5, 7)).astype("uint16")
    data[np.broadcast_to(rng.random((len(times), 1, 5, 7)) < gaps, data.shape)] = 0
    attrs = {"grid_mapping": "spatial_ref", "scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": 0}
    return xr.Dataset(
        {"data": (("time", "band", "y", "x"), data, attrs)},
        coords | {"time": times, "band": ["red", "nir"]},
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([None, 3]))
def test_only_pixels_never_seen_clearly_take_the_second_choice(seed: int, chunk: int | None) -> None:
    plain = cube(seed, gaps=0.1)
    masked = plain.copy(deep=True)
    cloud = np.random.default_rng(seed + 1).random((plain.sizes["time"], 1, 5, 7)) < 0.7
    masked["data"].values[np.broadcast_to(cloud, masked["data"].shape)] = 0
    if chunk:
        plain, masked = plain.chunk(x=chunk), masked.chunk(x=chunk + 1)
    options = {"every": "14D", "start": "2021-10-31"}
    first, second = (ck.composite(each, **options) for each in (masked, plain))  # type: ignore[arg-type]
    made = fall_back(first, second)
    assert bool(made["data"].chunks) == bool(chunk)
    clear = (first["data"] != 0).any("band")
    xr.testing.assert_equal(made["data"], first["data"].where(clear, second["data"]).astype("uint16"))
    assert made["data"].dtype == "uint16"
    assert RECIPE not in made.attrs


def test_cubes_that_differ_are_refused() -> None:
    first = cube(0, gaps=0.5)
    for other in (cube(0, gaps=0, days=30), first.isel(band=[0])):
        with pytest.raises(CubeError, match="differ in grid, dates, bands or coding"):
            fall_back(first, other)
