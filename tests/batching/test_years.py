"""Which years and pixels train, validate and test a forecast."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.batching.patches import PatchPlan
from cubekit.batching.years import VALID, split_years
from cubekit.errors import OptionError
from cubekit.typing import FloatArray


def yearly(maps: FloatArray, *, first: int = 2001) -> xr.Dataset:
    """A cube of maps (t, y, x)."""
    box = GeoBox.from_bbox((0, 0, 30 * maps.shape[2], 30 * maps.shape[1]), "EPSG:32633", shape=maps.shape[1:])
    dates = np.array([f"{first + i}-01-01" for i in range(len(maps))], "M8[ns]")
    attrs = {"_FillValue": np.float32("nan"), "grid_mapping": "spatial_ref"}
    coords = {**xr_coords(box), "time": dates, "band": ["NDVI"]}
    return xr.Dataset({"data": (("time", "band", "y", "x"), maps[:, None].astype("float32"), attrs)}, coords)


@settings(max_examples=25, deadline=None)
@given(
    years=st.integers(6, 14), window=st.integers(1, 4), hold_out=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_held_out_years_reach_no_training_target(years: int, window: int, hold_out: int, seed: int) -> None:
    cube = yearly(np.random.default_rng(seed).random((years, 20, 24)))
    if years < window + hold_out + 1:
        with pytest.raises(OptionError, match="at least"):
            split_years(cube, window=window, patch=8, hold_out=hold_out)
        return
    split = split_years(cube, window=window, patch=8, hold_out=hold_out, seed=seed)
    assert split.test == tuple(range(years - hold_out, years))
    assert max(split.train) < min(split.test)
    assert min(split.train) == window  # no window begins before the first map
    assert not (split.targets("train") & split.targets("valid")).any()
    share = (split.role == VALID).mean()
    assert 0.15 < share < 0.4  # whole blocks of 5 x 5 in 20 x 24
    for corners in split.corners.values():
        assert corners.min() >= 0
        assert (corners <= [12, 16]).all()


def test_years_kept_apart_are_later() -> None:
    cube = yearly(np.random.default_rng(0).random((10, 16, 16)))
    split = split_years(cube, window=3, patch=8, hold_out=2, by="years", valid_years=2)
    assert (split.train, split.valid, split.test) == ((3, 4, 5), (6, 7), (8, 9))
    assert split.targets("train").all()
    assert split.targets("valid").all()


def test_a_patch_may_hold_some_masked_pixels_but_not_more() -> None:
    maps = np.random.default_rng(0).random((6, 20, 20))
    maps[:, :, 12:] = np.nan
    cube = yearly(maps)
    strict = split_years(cube, window=2, patch=8, masked=0, block=4).corners["train"]
    loose = split_years(cube, window=2, patch=8, masked=0.25, block=4).corners["train"]
    assert strict[:, 1].max() == 4
    assert loose[:, 1].max() == 6  # two of eight columns masked
    inside = np.zeros((20, 20), bool)
    inside[4:12, 4:12] = True
    one = split_years(cube, window=2, patch=8, masked=0, block=4, zone=inside).corners["train"]
    assert one.tolist() == [[4, 4]]


def test_a_narrow_zone_is_refused_not_searched_for_ever() -> None:
    zone = np.zeros((20, 20), bool)
    zone[:, 9:11] = True
    cube = yearly(np.random.default_rng(0).random((6, 20, 20)))
    with pytest.raises(OptionError, match="masked pixels: the best has 75%"):
        split_years(cube, window=2, patch=8, zone=zone, block=4)
    assert len(split_years(cube, window=2, patch=8, zone=zone, block=4, masked=0.8).corners["train"])


def test_holes_in_the_years_are_refused() -> None:
    cube = yearly(np.random.default_rng(0).random((8, 12, 12))).isel(time=[0, 1, 2, 4, 5, 6, 7])
    with pytest.raises(OptionError, match=r"missing \[2004\]"):
        split_years(cube, window=2, patch=8)
    with pytest.raises(OptionError, match="larger than the map"):
        split_years(yearly(np.ones((8, 12, 12))), window=2, patch=64)


def test_patches_lie_at_the_corners_given() -> None:
    cube = yearly(np.random.default_rng(0).random((6, 20, 24)))
    corners = np.array([[0, 3, 4], [2, 12, 16], [0, 3, 4]])
    plan = PatchPlan.at(cube, 8, corners=corners, steps=3, horizon=1)
    for patch, (time, row, column) in zip(plan, corners.tolist(), strict=True):
        expected = cube["data"][time : time + 4, :, row : row + 8, column : column + 8]
        np.testing.assert_array_equal(patch["data"], expected)
    assert len(PatchPlan.at(cube, 8, corners=corners[:, 1:])) == 3
    for wrong in (np.array([[0, 13, 0]]), np.array([[-1, 0, 0]]), np.array([[0, 0]])):
        with pytest.raises(OptionError, match="corners"):
            PatchPlan.at(cube, 8, corners=wrong, steps=3, horizon=1)
