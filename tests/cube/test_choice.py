"""Composites whose bands come from one scene, pixel by pixel against rules written out in plain Python."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import cubekit as ck
from cubekit.cube.composite import composite
from cubekit.cube.contract import MAIN, check_cube
from cubekit.errors import CubeError, OptionError, UnknownNameError

Array = npt.NDArray[Any]
BANDS = ["blue", "red", "nir"]
CHOICES = ["earliest", "latest", "least_cloudy", "max_index", "medoid"]
DAYS = [3, 8, 20, 40, 41, 55, 80]


def a_cube(values: Array, days: list[int]) -> xr.Dataset:
    """Put numbers of shape (time, band, y, x) into a cube with cloud covers."""
    box = GeoBox.from_bbox((0, 0, 10 * values.shape[3], 10 * values.shape[2]), "EPSG:32630", resolution=10)
    times = pd.Timestamp("2023-01-01") + pd.to_timedelta(days, unit="D")
    coords = {"time": times, "band": BANDS, **xr_coords(box, dims=("y", "x"))}
    attrs = {"_FillValue": np.uint16(0), "scale_factor": 1e-4, "add_offset": -0.1}
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords, attrs=attrs)
    cover = [10 * math.sin(day) for day in days]
    return xr.Dataset({MAIN: data}).assign_coords(cloud_cover=("time", cover))


def some(seed: int = 0, *, gaps: float = 0.3) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    values = rng.integers(1100, 6000, (len(DAYS), 3, 5, 7)).astype("uint16")
    values[rng.random((len(DAYS), 1, 5, 7)).repeat(3, axis=1) < gaps] = 0
    values[rng.random(values.shape) < 0.1] = 0
    return a_cube(values, DAYS)


def by_rule(how: str, seen: Array, days: list[int]) -> int:
    """Choose among dates of one pixel, shape (time, band), the slow way."""
    counts = (seen > 0).sum(axis=1)
    dates = [date for date in range(len(seen)) if counts[date] == counts.max()]

    def score(date: int) -> float:
        reflectance = seen[date] * 1e-4 - 0.1
        red, nir = reflectance[1], reflectance[2]
        if how == "max_index":
            known = seen[date, 1] > 0 and seen[date, 2] > 0
            return (nir - red) / (nir + red) if known else -math.inf
        if how == "medoid":
            whole = [d for d in range(len(seen)) if counts[d] == 3]
            others = [math.dist(seen[date].astype(float), seen[d].astype(float)) for d in whole]
            return -sum(others) if counts[date] == 3 else -math.inf
        return {"earliest": 0, "latest": days[date], "least_cloudy": -math.sin(days[date])}[how]

    return max(dates, key=lambda date: (score(date), -date)) if counts.any() else -1


@pytest.mark.parametrize("how", CHOICES)
@pytest.mark.parametrize("chunks", [None, {"time": 2, "band": 1, "x": 3}, {"time": -1, "y": 2}])
def test_all_bands_come_from_the_date_that_the_rule_chooses(how: Any, chunks: dict[str, int] | None) -> None:
    cube = some()
    found = composite(
        cube if chunks is None else cube.chunk(chunks), how=how, layers=["source", "age_days"]
    ).compute()
    check_cube(found)
    assert found[MAIN].dtype == "uint16"
    for period, month in enumerate((1, 2, 3)):
        inside = [step for step, time in enumerate(cube.indexes["time"]) if time.month == month]
        for y, x in np.ndindex(5, 7):
            seen = cube[MAIN].to_numpy()[inside, :, y, x]
            date = by_rule(how, seen, [DAYS[step] for step in inside])
            here = found.isel(time=period, y=y, x=x)
            assert here["source"] == (-1 if date < 0 else inside[date])
            assert here[MAIN].to_numpy().tolist() == (
                [0, 0, 0] if date < 0 else cube[MAIN].to_numpy()[inside[date], :, y, x].tolist()
            )
            if date < 0:
                assert np.isnan(here["age_days"])
            else:
                middle = found.indexes["time"][period] + pd.Timedelta(days=[31, 28, 31][period] / 2)
                assert here["age_days"] == (middle - cube.indexes["time"][inside[date]]) / pd.Timedelta("1D")


def test_the_source_says_which_dates_it_means() -> None:
    found = composite(some(gaps=0), every="YS", how="latest", layers="source")  # type: ignore[arg-type]
    attrs = found["source"].attrs
    assert attrs["flag_meanings"].split()[6] == "2023-03-22"
    assert attrs["flag_values"] == list(range(7))
    assert attrs["_FillValue"] == -1
    assert found.attrs["composite"] == "latest every YS"
    assert found[MAIN].attrs["cell_methods"] == "time: point"


def test_years_together_choose_among_all_years() -> None:
    values = np.arange(1, 10, dtype="uint16").reshape(3, 3, 1, 1)
    cube = a_cube(values, [0, 59, 365])
    for chunked in (cube, cube.chunk(time=1)):
        found = composite(chunked, how="latest", pool_years=True, layers=["source", "age_days"])
        assert found.sizes["time"] == 12
        assert found["source"].to_numpy()[:, 0, 0].tolist() == [2, -1, 1] + 9 * [-1]
        assert found[MAIN].to_numpy()[:3, :, 0, 0].tolist() == [[7, 8, 9], [0, 0, 0], [4, 5, 6]]
        assert found["observations"].to_numpy()[:3, 0, 0].tolist() == [2, 0, 1]
        assert found["age_days"].to_numpy()[0].item() == 15.5
        assert found.attrs["composite"] == "latest every 1MS, all years together"


def test_seasons_are_named() -> None:
    found = composite(some(), every="season")
    assert found["season"].to_numpy().tolist() == ["DJF 2023", "MAM 2023"]


def test_an_index_that_is_nowhere_known_falls_back_to_the_earlier_date() -> None:
    values = np.array([[5, 0, 7], [6, 0, 8], [1, 0, 0]], "uint16")[:, :, None, None]
    found = composite(a_cube(values, [1, 2, 3]), how="max_index", layers=["source"])
    assert found["source"].to_numpy().item() == 0
    assert found[MAIN].to_numpy().ravel().tolist() == [5, 0, 7]


@given(
    arrays("uint16", (5, 3, 2, 2), elements=st.integers(0, 3) | st.integers(1100, 5000)),
    st.permutations(range(5)),
    st.sampled_from(["median", "mean", "min", "max", "max_index", "least_cloudy"]),
)
@settings(max_examples=20, deadline=None)
def test_the_order_of_scenes_matters_only_for_ties(values: Array, order: list[int], how: Any) -> None:
    cube = a_cube(values, [1, 2, 3, 4, 5])
    mixed = cube.copy(data={MAIN: values[order]})
    mixed = mixed.assign_coords(cloud_cover=("time", cube["cloud_cover"].to_numpy()[order]))
    one, other = composite(cube, how=how), composite(mixed, how=how)
    np.testing.assert_array_equal(one["observations"], other["observations"])
    same = (one[MAIN] == other[MAIN]).all("band")
    if how == "max_index":
        red, nir = (one[MAIN].sel(band=name) * 1e-4 - 0.1 for name in ("red", "nir"))
        again, other_nir = (other[MAIN].sel(band=name) * 1e-4 - 0.1 for name in ("red", "nir"))
        tie = np.isclose((nir - red) / (nir + red), (other_nir - again) / (other_nir + again), rtol=1e-5)
        unknown = (one[MAIN].sel(band=["red", "nir"]) == 0).any("band")
        same = same | tie | unknown
    assert bool(same.all())


@given(arrays("uint16", (4, 3, 2, 3), elements=st.integers(0, 2)), st.sampled_from([*CHOICES, "geomedian"]))
@settings(max_examples=20, deadline=None)
def test_what_is_chosen_was_observed_and_empty_pixels_stay_empty(values: Array, how: Any) -> None:
    found = composite(a_cube(values, [1, 2, 3, 4]), how=how)[MAIN].to_numpy()[0]
    for y, x in np.ndindex(2, 3):
        seen = values[:, :, y, x].tolist()
        whole = [date for date in seen if all(date)]
        if how != "geomedian":
            assert found[:, y, x].tolist() in ([date for date in seen if any(date)] or [[0, 0, 0]])
            assert not whole or found[:, y, x].all()
        elif len(set(map(tuple, whole))) < 2:
            assert found[:, y, x].tolist() == (whole or [[0, 0, 0]])[0]


def test_nothing_is_computed_early_and_the_input_is_read_once() -> None:
    read: list[tuple[int, ...]] = []

    def block(values: Array, block_info: Any = None) -> Array:
        read.append(tuple(block_info[0]["chunk-location"]))
        return values

    cube = some().chunk(time=-1, x=4)
    cube[MAIN] = cube[MAIN].copy(
        data=cube[MAIN].data.map_blocks(block, dtype="uint16", meta=np.empty(0, "u2"))
    )
    found = composite(cube, how="medoid", layers=["source", "age_days"])
    assert not read
    found.compute(scheduler="threads")
    assert len(read) == 2


def test_companions_and_names_of_seasons_survive_a_store(tmp_path: Path) -> None:
    made = composite(some().chunk(x=4), every="season", how="medoid", layers=["source", "age_days"])
    back = ck.write(made, tmp_path / "seasons.zarr", progress=False).compute()
    for name in ("data", "observations", "source", "age_days", "season"):
        np.testing.assert_array_equal(back[name], made[name])
    assert back["source"].attrs["flag_meanings"] == made["source"].attrs["flag_meanings"]
    assert back["source"].dtype == "int32"


def test_wrong_wishes_are_refused() -> None:
    cube = some()
    with pytest.raises(OptionError, match=r"how='medoids'.*'medoid'"):
        composite(cube, how="medoids")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="need a composite whose bands come from one date: how='median'"):
        composite(cube, layers=["source"])
    with pytest.raises(OptionError, match=r"layers='sources'.*'source'"):
        composite(cube, how="medoid", layers=["sources"])  # type: ignore[list-item]
    with pytest.raises(UnknownNameError, match="NDVII"):
        composite(cube, how="max_index", index="NDVII")
    with pytest.raises(CubeError, match="'cloud_cover'"):
        composite(cube.drop_vars("cloud_cover"), how="least_cloudy")
    del cube[MAIN].attrs["scale_factor"]
    with pytest.raises(CubeError, match="reflectance"):
        composite(cube, how="max_index")
