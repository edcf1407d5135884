"""Gap filling against numpy.interp and brute force, series by series."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.cube.contract import MAIN, check_cube
from cubekit.cube.fill import fill_gaps
from cubekit.errors import CubeError, OptionError

Array = npt.NDArray[Any]


def a_cube(values: Array, days: list[int], nodata: float = 0) -> xr.Dataset:
    """Put series of shape (time, band, pixel) into a cube of one row."""
    box = GeoBox.from_bbox((0, 0, 10 * values.shape[2], 10), "EPSG:32630", resolution=10)
    times = pd.Timestamp("2023-01-01") + pd.to_timedelta(days, unit="D")
    coords = {
        "time": times,
        "band": [f"b{n}" for n in range(values.shape[1])],
        **xr_coords(box, dims=("y", "x")),
    }
    attrs = {"_FillValue": values.dtype.type(nodata), "grid_mapping": "spatial_ref"}
    data = xr.DataArray(values[:, :, None, :], dims=("time", "band", "y", "x"), coords=coords, attrs=attrs)
    return xr.Dataset({MAIN: data})


def filled(cube: xr.Dataset, **options: Any) -> Array:
    return np.asarray(fill_gaps(cube, **options)[MAIN].to_numpy()[:, :, 0])


@st.composite
def series(draw: st.DrawFn) -> tuple[Array, list[int]]:
    count = draw(st.integers(1, 12))
    steps = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    shape = (count, 2, 3)
    values = draw(
        st.lists(st.one_of(st.just(0), st.integers(1, 9999)), min_size=count * 6, max_size=count * 6)
    )
    return np.array(values, "uint16").reshape(shape), np.cumsum(steps).tolist()


@given(series())
@settings(max_examples=50, deadline=None)
def test_linear_equals_numpy_interp_by_true_days(given_series: tuple[Array, list[int]]) -> None:
    values, days = given_series
    expected = values.copy()
    for band, pixel in np.ndindex(values.shape[1:]):
        seen = values[:, band, pixel] > 0
        if seen.any():
            line = np.interp(days, np.array(days)[seen], values[seen, band, pixel])
            expected[:, band, pixel] = np.rint(line)
    found = filled(a_cube(values, days))
    assert np.abs(found.astype(int) - expected).max(initial=0) <= 1  # halves may fall to either side
    np.testing.assert_array_equal(found[values > 0], values[values > 0])
    lazy = filled(a_cube(values, days).chunk({"time": 1, "x": 2}))
    np.testing.assert_array_equal(lazy, found)


@given(series())
@settings(max_examples=50, deadline=None)
def test_nearest_takes_the_nearest_date_and_of_two_the_earlier(given_series: tuple[Array, list[int]]) -> None:
    values, days = given_series
    found = filled(a_cube(values, days), how="nearest")
    for step, band, pixel in np.argwhere(values == 0):
        seen = np.flatnonzero(values[:, band, pixel])
        if seen.size == 0:
            assert found[step, band, pixel] == 0
            continue
        distance = np.abs(np.array(days)[seen] - days[step])
        assert found[step, band, pixel] == values[seen[distance.argmin()], band, pixel]
    np.testing.assert_array_equal(found[values > 0], values[values > 0])


def column(*values: float, dtype: str = "uint16") -> Array:
    return np.array(values, dtype)[:, None, None]


def test_edges_take_the_nearest_observation_and_empty_series_stay_empty() -> None:
    values = np.stack([column(0, 0, 5, 0, 9, 0)[:, 0, 0], np.zeros(6, "uint16")], axis=1)[:, None]
    found = fill_gaps(a_cube(values, [0, 1, 2, 3, 4, 9]))
    check_cube(found)
    assert found[MAIN].to_numpy()[:, 0, 0, 0].tolist() == [5, 5, 5, 7, 9, 9]
    assert found[MAIN].to_numpy()[:, 0, 0, 1].tolist() == [0] * 6
    assert found["filled"].dtype == bool
    assert found["filled"].to_numpy()[:, 0, 0].tolist() == [True, True, False, True, False, True]
    assert not found["filled"].to_numpy()[:, 0, 1].any()


def test_the_limit_is_the_distance_between_observations_and_at_the_edges_to_the_nearest() -> None:
    cube = a_cube(column(0, 10, 0, 20, 0, 0), [0, 10, 15, 20, 25, 40])
    assert filled(cube, limit=10)[:, 0, 0].tolist() == [10, 10, 15, 20, 20, 0]
    assert filled(cube, limit=9)[:, 0, 0].tolist() == [0, 10, 0, 20, 20, 0]
    assert filled(cube, limit=0)[:, 0, 0].tolist() == [0, 10, 0, 20, 0, 0]


def test_floats_and_nan() -> None:
    cube = a_cube(column(1.0, np.nan, 2.0, dtype="float32"), [0, 1, 4], nodata=np.nan)
    assert filled(cube)[:, 0, 0].tolist() == [1.0, 1.25, 2.0]


def test_a_filled_value_never_becomes_nodata() -> None:
    cube = a_cube(column(-2, 7, 2, dtype="int16"), [0, 1, 2], nodata=7)
    assert filled(cube)[:, 0, 0].tolist() == [-2, 0, 2]
    cube = a_cube(column(6, 7, 8, dtype="int16"), [0, 1, 2], nodata=7)
    assert filled(cube)[:, 0, 0].tolist() == [6, 8, 8]


def test_filled_is_true_where_any_band_was_filled() -> None:
    values = np.array([[[5], [6]], [[0], [6]], [[7], [6]]], "uint16")
    assert fill_gaps(a_cube(values, [0, 1, 2]))["filled"].to_numpy()[:, 0, 0].tolist() == [False, True, False]


def test_long_series_are_cut_into_blocks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cubekit.cube.fill.BLOCK_BYTES", 4096)
    rng = np.random.default_rng(0)
    values = rng.integers(1, 99, (40, 2, 50)).astype("uint16")
    values[rng.random(values.shape) < 0.5] = 0
    cube = a_cube(values, list(range(40)))
    lazy = fill_gaps(cube.chunk({"time": 10}))
    assert math.prod(max(sizes) for sizes in lazy[MAIN].chunksizes.values()) * 2 <= 4096
    assert lazy.chunksizes["time"] == (40,)
    np.testing.assert_array_equal(lazy[MAIN].to_numpy()[:, :, 0], filled(cube))


def test_wrong_wishes_are_refused() -> None:
    cube = a_cube(column(1, 0, 2), [0, 1, 2])
    with pytest.raises(OptionError, match=r"how='cubic'"):
        fill_gaps(cube, how="cubic")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="limit=-1"):
        fill_gaps(cube, limit=-1)
    del cube[MAIN].attrs["_FillValue"]
    with pytest.raises(CubeError, match="no nodata value"):
        fill_gaps(cube)


@given(series(), st.sampled_from(["linear", "nearest", "whittaker", "harmonic"]), st.sampled_from([None, 25]))
@settings(max_examples=25, deadline=None)
def test_observed_values_stay_and_the_flag_says_what_was_filled(
    given_series: tuple[Array, list[int]], how: Any, limit: float | None
) -> None:
    values, days = given_series
    result = fill_gaps(a_cube(values, days), how=how, limit=limit)
    found = result[MAIN].to_numpy()[:, :, 0]
    np.testing.assert_array_equal(found[values > 0], values[values > 0])
    np.testing.assert_array_equal(result["filled"][:, 0], ((found > 0) & (values == 0)).any(axis=1))
    for band, pixel in np.ndindex(values.shape[1:]):
        seen = np.flatnonzero(values[:, band, pixel])
        for step in range(len(values)):
            before = [days[step] - days[n] for n in seen if n <= step]
            after = [days[n] - days[step] for n in seen if n >= step]
            width = (min(before) + min(after)) if before and after else min(before or after, default=np.inf)
            wanted = bool(len(seen)) and width <= (np.inf if limit is None else limit)
            assert (found[step, band, pixel] > 0) == (wanted or values[step, band, pixel] > 0)
            if wanted:
                line = values[seen, band, pixel]
                assert line.min() <= found[step, band, pixel] <= line.max()
    lazy = fill_gaps(a_cube(values, days).chunk({"time": 1, "x": 2}), how=how, limit=limit)
    np.testing.assert_array_equal(lazy[MAIN].to_numpy()[:, :, 0], found)


def test_smoothers_refuse_wrong_settings() -> None:
    cube = a_cube(column(1, 0, 2), [0, 1, 2])
    with pytest.raises(OptionError, match="smoothness=0"):
        fill_gaps(cube, how="whittaker", smoothness=0)
    with pytest.raises(OptionError, match=r"harmonics=2\.5"):
        fill_gaps(cube, how="harmonic", harmonics=2.5)  # type: ignore[arg-type]


@pytest.mark.shared
def test_a_real_season_with_hidden_values_is_filled_nearer_than_by_the_mean(shared: Any) -> None:
    path = shared / "data" / "modis_mod13q1_sinop_2000_2017" / "mod13q1_ndvi_evi_16day.nc"
    with xr.open_dataset(path, mask_and_scale=False) as opened:
        name = next(str(n) for n in opened.data_vars if str(n).lower() == "ndvi")
        ndvi = opened[name].isel(time=slice(0, 92)).to_numpy().reshape(92, 1, -1)[:, :, :400]
        times = opened["time"].isel(time=slice(0, 92)).to_numpy()
    days = ((times - times[0]) / np.timedelta64(1, "D")).astype(int).tolist()
    hidden = np.random.default_rng(0).random(ndvi.shape) < 0.3
    cube = a_cube(np.where(hidden, np.int16(-3000), ndvi), days, nodata=-3000)
    known = hidden & (ndvi != -3000)
    mean = np.abs(ndvi - np.where(hidden, np.nan, ndvi).mean(axis=0, where=~hidden))[known].mean()
    errors = {how: np.abs(filled(cube, how=how) - ndvi)[known].mean() for how in ("whittaker", "harmonic")}
    assert max(errors.values()) < 0.9 * mean
