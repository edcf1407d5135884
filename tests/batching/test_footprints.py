"""Patches on the split of the pixels: what a patch network is shown, and what it must never see."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import cubekit as ck
from cubekit.batching.footprints import label_raster, patches_of, pixels_of
from cubekit.batching.patches import PatchPlan
from cubekit.errors import LabelError, OptionError
from cubekit.labels import ClassTable

SIDE = 48


def land(seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    """Give a cube of 48 x 48 pixels and labels on two of three of them."""
    rng = np.random.default_rng(seed)
    coords = xr_coords(GeoBox.from_bbox((0, 0, 480, 480), "EPSG:32631", resolution=10), always_yx=True)
    attrs = {"grid_mapping": "spatial_ref", "scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": 0}
    times = np.array(["2023-01-01", "2023-02-01"], "datetime64[ns]")
    data = rng.integers(1, 9999, (2, 1, SIDE, SIDE)).astype("uint16")
    cube = xr.Dataset(
        {"data": (("time", "band", "y", "x"), data, attrs)}, coords | {"time": times, "band": ["red"]}
    )
    label = np.where(rng.random((SIDE, SIDE)) < 0.67, rng.integers(0, 2, (SIDE, SIDE)), -1).astype("int16")
    table = ClassTable.of(["bare", "crop"])
    labels = xr.Dataset(
        {
            "label": (("y", "x"), label, {"_FillValue": np.int16(-1), **table.attrs()}),
            "group": (("y", "x"), np.arange(SIDE**2, dtype="int32").reshape(SIDE, SIDE)),
        },
        coords,
    )
    return cube, labels


def test_samples_return_to_their_pixels() -> None:
    cube, labels = land()
    parts = ck.split(cube, labels, block=120, buffer=10)
    whole = np.full((SIDE, SIDE), -1)
    for part in parts:
        raster = label_raster(part, cube)
        assert (raster.to_numpy() >= 0).sum() == len(part)
        assert (whole[raster.to_numpy() >= 0] == -1).all()
        whole = np.where(raster >= 0, raster, whole)
        np.testing.assert_array_equal(
            cube["data"].to_numpy()[:, :, *pixels_of(part, cube)], part.x.transpose(1, 2, 0)
        )
    known = whole >= 0
    np.testing.assert_array_equal(whole[known], labels["label"].to_numpy()[known])
    shifted = cube.assign_coords(x=cube["x"] + 3)
    with pytest.raises(OptionError, match="no pixels of this cube"):
        pixels_of(parts[0], shifted)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 16), st.integers(1, 9), st.integers(0, 3), st.sampled_from([80, 120, 240]))
def test_no_training_patch_sees_a_pixel_of_another_part(
    size: int, stride: int, seed: int, block: int
) -> None:
    cube, labels = land(seed)
    train, valid, test = ck.split(cube, labels, block=block, seed=seed)
    part = np.full((SIDE, SIDE), -1)
    for number, each in enumerate((train, valid, test)):
        part[pixels_of(each, cube)] = number
    whole = PatchPlan(cube, size, stride=stride)
    windows = zip(whole.bounds("y").tolist(), whole.bounds("x").tolist(), strict=True)
    expected = [
        (rows, columns)
        for rows, columns in windows
        if {0} <= set(np.unique(part[slice(*rows), slice(*columns)])) <= {-1, 0}
    ]
    if not expected:
        with pytest.raises(LabelError, match="smaller patches"):
            patches_of(train, [valid, test], cube, size=size, stride=stride)
        return
    plan, known = patches_of(train, [valid, test], cube, size=size, stride=stride)
    assert [*zip(plan.bounds("y").tolist(), plan.bounds("x").tolist(), strict=True)] == expected
    np.testing.assert_array_equal(known.to_numpy() >= 0, part == 0)


def test_patches_that_fit_nowhere_are_told() -> None:
    cube, labels = land()
    train, valid, test = ck.split(cube, labels, by="random")
    with pytest.raises(LabelError, match="smaller patches"):
        patches_of(train, [valid, test], cube, size=16)
    assert len(patches_of(train, [], cube, size=16)[0])
