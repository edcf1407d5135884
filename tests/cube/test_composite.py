"""Composites against pandas and NumPy, pixel by pixel."""

import warnings
from itertools import pairwise
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.cube.composite import composite
from cubekit.cube.contract import MAIN, check_cube, encoding_of
from cubekit.errors import CubeError, OptionError

Array = npt.NDArray[Any]
BOX = GeoBox.from_bbox((0, 0, 70, 50), "EPSG:32630", resolution=10)


def a_cube(times: pd.DatetimeIndex, *, dtype: str = "uint16", seed: int = 0, gaps: float = 0.4) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 5000, (len(times), 2, *BOX.shape.yx)).astype(dtype)
    fill = np.array("nan" if dtype == "float32" else 0).astype(dtype)
    values[rng.random(values.shape) < gaps] = fill
    attrs = {"_FillValue": fill, "scale_factor": 1e-4, "add_offset": -0.1, "grid_mapping": "spatial_ref"}
    coords = {"time": times, "band": ["red", "nir"], **xr_coords(BOX, dims=("y", "x"))}
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords, attrs=attrs)
    return xr.Dataset({MAIN: data}, attrs={"collection": "test"})


DAYS = pd.DatetimeIndex(
    [
        "2022-12-30",
        "2023-01-01",
        "2023-01-05",
        "2023-01-31",
        "2023-02-01",
        "2023-04-02",
        "2023-04-03",
        "2023-04-30",
    ]
)


def by_hand(cube: xr.Dataset, edges: pd.DatetimeIndex) -> tuple[Array, Array]:
    values = np.where(cube[MAIN] == 0, np.nan, cube[MAIN].astype(float))
    periods, counts = [], []
    for start, stop in pairwise(edges):
        inside = values[(cube.indexes["time"] >= start) & (cube.indexes["time"] < stop)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            median = np.nanmedian(inside, axis=0) if len(inside) else np.full(values.shape[1:], np.nan)
        periods.append(np.nan_to_num(np.rint(median)))
        counts.append((~np.isnan(inside)).any(axis=1).sum(axis=0))
    return np.stack(periods), np.stack(counts)


@pytest.mark.parametrize(
    "chunks", [None, {"time": 1}, {"time": 3, "y": 2, "x": 3}, {"time": -1}, {"band": 1}]
)
def test_monthly_medians_on_a_complete_calendar(chunks: dict[str, int] | None) -> None:
    cube = a_cube(DAYS)
    edges = pd.date_range("2022-12-01", "2023-05-01", freq="MS")
    expected, counts = by_hand(cube, edges)
    found = composite(cube if chunks is None else cube.chunk(chunks))
    check_cube(found)
    assert found.indexes["time"].equals(edges[:-1])
    assert found[MAIN].dtype == "uint16"
    assert found["observations"].dtype == "uint16"
    assert (found[MAIN].chunks is None) == (chunks is None)
    np.testing.assert_array_equal(found[MAIN].to_numpy(), expected)
    np.testing.assert_array_equal(found["observations"].to_numpy(), counts)
    assert (found[MAIN].sel(time="2023-03-01") == 0).all()
    assert encoding_of(found[MAIN]) == encoding_of(cube[MAIN])
    assert found.attrs["composite"] == "median every 1MS"


@pytest.mark.parametrize(
    ("every", "start", "end", "expected"),
    [
        ("14D", "2023-01-01", "2023-02-10", ["2023-01-01", "2023-01-15", "2023-01-29"]),
        ("QS", None, None, ["2022-10-01", "2023-01-01", "2023-04-01"]),
        ("YS", None, None, ["2022-01-01", "2023-01-01"]),
        ("2MS", "2023-01-15", "2023-04-01", ["2023-01-01", "2023-03-01"]),
        ("1MS", "2023-01-01", "2023-01-01", ["2023-01-01"]),
    ],
)
def test_calendars(every: str, start: str | None, end: str | None, expected: list[str]) -> None:
    found = composite(a_cube(DAYS).chunk({"time": 2}), every=every, start=start, end=end)
    assert found.indexes["time"].tolist() == [pd.Timestamp(day) for day in expected]
    assert found.sizes["time"] == found[MAIN].to_numpy().shape[0]
    total = int(found["observations"].sum())
    seen = a_cube(DAYS).sel(time=slice(expected[0], None))
    last = pd.Timestamp(expected[-1]) + pd.tseries.frequencies.to_offset(every)
    seen = seen.sel(time=seen.indexes["time"] < last)
    assert total == (seen[MAIN] > 0).any("band").sum().item()


def test_dates_outside_the_calendar_are_left_out() -> None:
    found = composite(a_cube(DAYS, gaps=0), start="2023-01-01", end="2023-02-28", how="mean")
    assert found.sizes["time"] == 2
    assert found["observations"].to_numpy()[:, 0, 0].tolist() == [3, 1]


def test_nothing_is_computed_and_no_warning_is_given_for_empty_pixels() -> None:
    cube = a_cube(DAYS, gaps=1.0).chunk({"time": 2})

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("computed early")

    with dask.config.set(scheduler=refuse):
        lazy = composite(cube, every="14D")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (lazy[MAIN].to_numpy() == 0).all()
        assert (lazy["observations"].to_numpy() == 0).all()


@pytest.mark.parametrize("how", ["median", "mean", "min", "max", "first"])
def test_floats_keep_their_type(how: Any) -> None:
    cube = a_cube(DAYS, dtype="float32")
    found = composite(cube.chunk({"time": 2}), how=how)
    assert found[MAIN].dtype == "float32"
    month = cube[MAIN].sel(time="2023-02").to_numpy()[0]
    np.testing.assert_array_equal(found[MAIN].sel(time="2023-02-01").to_numpy(), month)
    assert np.isnan(found[MAIN].sel(time="2023-03-01")).all()


def test_static_variables_stay_and_dated_ones_go() -> None:
    cube = a_cube(DAYS).assign(
        height=(("y", "x"), np.ones(BOX.shape.yx)), cloud=("time", np.zeros(len(DAYS)))
    )
    found = composite(cube)
    assert set(found.data_vars) == {MAIN, "observations", "height"}


def test_long_series_do_not_make_long_blocks() -> None:
    days = pd.date_range("2018-01-01", "2020-12-31", freq="5D")
    cube = a_cube(days).chunk({"time": 10})
    lazy = composite(cube)
    assert max(lazy[MAIN].chunksizes["time"]) <= 2
    np.testing.assert_array_equal(lazy[MAIN].to_numpy(), composite(cube.compute())[MAIN].to_numpy())


def test_wrong_wishes_are_refused() -> None:
    cube = a_cube(DAYS)
    with pytest.raises(OptionError, match="every='1fortnight'"):
        composite(cube, every="1fortnight")
    with pytest.raises(OptionError, match="every='-1MS'"):
        composite(cube, every="-1MS")
    with pytest.raises(OptionError, match=r"how='medain'.*'median'"):
        composite(cube, how="medain")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="lies after"):
        composite(cube, start="2023-05-01", end="2023-01-01")
    with pytest.raises(CubeError, match="No date of the cube"):
        composite(cube, start="2030-01-01", end="2030-03-01")
    with pytest.raises(OptionError, match="over 10000 periods"):
        composite(cube, every="1h", start="2000-01-01", end="2030-01-01")
    with pytest.raises(CubeError, match="needs a variable 'data'"):
        composite(cube.rename(data="other"))
    del cube[MAIN].attrs["_FillValue"]
    with pytest.raises(CubeError, match="no nodata value"):
        composite(cube)
