from pathlib import Path

import numpy as np
import odc.geo.xr
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.batching.dates import pair_dates
from cubekit.batching.pair_splits import split_pairs
from cubekit.batching.pairs import Pairs, open_pairs
from cubekit.errors import CubeError, OptionError, SplitError, UnknownNameError
from cubekit.store.write import write

FINE = GeoBox.from_bbox((600_000, 5_000_000, 600_500, 5_000_300), "EPSG:32631", resolution=10)
COARSE = GeoBox.from_bbox((599_000, 4_999_000, 601_500, 5_001_500), "EPSG:32631", resolution=250)
DATES = ("2020-01-01", "2020-01-09", "2020-01-17", "2020-01-25", "2020-02-02", "2020-02-10")


def days(*dates: str) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return np.array(dates, "datetime64[D]")


def cube(
    box: GeoBox, dates: tuple[str, ...] = DATES, bands: tuple[str, ...] = ("red", "nir"), *, seed: int = 0
) -> xr.DataArray:
    values = np.random.default_rng(seed).random((len(dates), len(bands), *box.shape)).astype("float32")
    space = {str(name): coord for name, coord in odc.geo.xr.xr_coords(box, dims=("y", "x")).items()}
    coords = {"time": np.array(dates, "datetime64[ns]"), "band": list(bands), **space}
    return xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords)


def pairs(dates: tuple[str, ...] = DATES) -> Pairs:
    return open_pairs(cube(FINE, dates), cube(COARSE, dates, ("nir", "blue", "red"), seed=1))


def test_the_closest_dates_find_each_other_and_the_rest_is_reported() -> None:
    fine = days("2020-01-01", "2020-01-05", "2020-01-20", "2020-03-01")
    coarse = days("2020-01-02", "2020-01-04", "2020-01-19", "2020-01-20", "2020-02-01")
    exact = pair_dates(fine, coarse)
    assert (exact.fine.tolist(), exact.coarse.tolist()) == ([2], [3])
    near = pair_dates(fine, coarse, tolerance=1)
    assert (near.fine.tolist(), near.coarse.tolist()) == ([0, 1, 2], [0, 1, 3])
    assert near.unmatched_fine.tolist() == days("2020-03-01").tolist()
    assert near.unmatched_coarse.tolist() == days("2020-01-19", "2020-02-01").tolist()
    assert "1 fine date(s) without a partner (2020-03-01)" in repr(near)
    # one coarse date never serves two fine ones: their change would be none
    assert pair_dates(days("2020-01-01", "2020-01-02"), days("2020-01-02"), tolerance=5).fine.tolist() == [1]
    with pytest.raises(OptionError, match="-1"):
        pair_dates(fine, coarse, tolerance=-1)


def test_pairs_are_lazy_on_the_fine_grid_with_bands_by_name() -> None:
    found = pairs()
    assert (len(found), found.bands, found.grid) == (5, ("red", "nir"), FINE)
    assert found.coarse.chunks is not None
    first = found[0]
    assert (str(first.t1), str(first.t2)) == DATES[:2]
    images = first.load()
    assert {image.shape for image in images.values()} == {(2, 30, 50)}
    reference = cube(COARSE, bands=("nir", "blue", "red"), seed=1).odc.reproject(
        FINE, resampling="cubic", dst_nodata=np.nan, tolerance=0
    )
    np.testing.assert_allclose(images["coarse_t2"], reference.to_numpy()[1][[2, 0]], atol=1e-6)
    np.testing.assert_array_equal(images["fine_t1"], cube(FINE).to_numpy()[0])
    np.testing.assert_array_equal(images["fine_t2"], cube(FINE).to_numpy()[1])


def test_stores_coded_numbers_and_other_band_names(tmp_path: Path) -> None:
    stored = (cube(FINE) * 9_000 + 1).astype("uint16")
    stored[0, 0, 3, 4] = 0
    stored = stored.assign_attrs(_FillValue=np.uint16(0), scale_factor=1e-4, add_offset=-0.1)
    write(xr.Dataset({"data": stored}), tmp_path / "fine.zarr")
    coarse = cube(COARSE, bands=("b1", "b2"))
    found = open_pairs(tmp_path / "fine.zarr", coarse, bands={"nir": "b1"})
    image = found[0].load()["fine_t1"]
    assert found.bands == ("nir",)
    np.testing.assert_allclose(image[0], stored.to_numpy()[0, 1] * 1e-4 - 0.1, atol=1e-6)
    both = open_pairs(tmp_path / "fine.zarr", coarse, bands={"red": "b2", "nir": "b1"})
    assert np.argwhere(~both[0].valid.to_numpy()).tolist() == [[3, 4]]
    with pytest.raises(OptionError, match="no name is the same"):
        open_pairs(cube(FINE), coarse)
    with pytest.raises(UnknownNameError, match="'red'"):
        open_pairs(cube(FINE), coarse, bands={"rad": "b1"})


def test_which_dates_make_a_pair() -> None:
    assert len(open_pairs(cube(FINE), cube(FINE), steps="all")) == 15
    backward = open_pairs(cube(FINE), cube(FINE), steps=[(DATES[3], DATES[0])])
    assert [tuple(map(str, span)) for span in backward.spans] == [(DATES[3], DATES[0])]
    found = pairs()
    assert [str(t2) for _, t2 in found.take(DATES[2:4], at="t2").spans] == [*DATES[2:4]]
    assert len(found.take(DATES[2:4])) == 1
    assert len(found[1:3]) == 2
    with pytest.raises(OptionError, match="2021-01-01"):
        found.take(["2021-01-01"])
    with pytest.raises(OptionError, match="tolerance"):
        open_pairs(cube(FINE), cube(COARSE, tuple(date.replace("2020", "2019") for date in DATES)))


def test_patches_cover_the_edges_and_count_what_has_gaps() -> None:
    found = pairs(DATES[:3])
    fine = found.fine.copy()
    fine[1, 0, 29, 49] = np.nan
    patches = Pairs(fine=fine, coarse=found.coarse, steps=found.steps, match=found.match).patches(16)
    assert {name: a.shape[1:] for name, a in patches.arrays.items()} == dict.fromkeys(
        ("coarse_t1", "coarse_t2", "fine_t1", "y"), (2, 16, 16)
    )
    assert patches.dropped == 2
    assert len(patches) == 2 * 2 * 4 - 2
    assert set(zip(patches.row.tolist(), patches.column.tolist(), strict=True)) >= {
        (0, 34),
        (14, 32),
        (14, 0),
    }
    number = int(np.flatnonzero((patches.pair == 1) & (patches.row == 14) & (patches.column == 32))[0])
    np.testing.assert_array_equal(patches.arrays["y"][number], fine.to_numpy()[2, :, 14:, 32:48])
    assert patches.valid.all()
    assert (patches.crs, patches.resolution) == ("EPSG:32631", 10.0)
    assert patches.extent is not None
    kept = Pairs(fine=fine, coarse=found.coarse, steps=found.steps, match=found.match).patches(
        16, gaps="keep"
    )
    assert (len(kept), kept.dropped, int((~kept.valid).sum())) == (16, 0, 2)
    assert len(found.patches(16, edge="drop")) == 2 * 1 * 3
    with pytest.raises(OptionError, match="64"):
        found.patches(64)


@pytest.mark.torch
def test_patches_are_examples_for_the_task_fuse() -> None:
    pytest.importorskip("torch")
    from cubekit.tasks.examples import Examples

    patches = pairs(DATES[:3]).patches(16)
    examples = Examples(
        arrays=patches.arrays, bands=patches.bands, crs=patches.crs, resolution=patches.resolution
    )
    assert len(examples) == len(patches)


def test_scaling_sets_negatives_to_zero_and_keeps_gaps() -> None:
    found = pairs(DATES[:3])
    fine = found.fine.copy()
    fine[0, 0, 0, :2] = [-0.5, np.nan]
    raw = Pairs(fine=fine * 10_000, coarse=found.coarse, steps=found.steps, match=found.match)
    scaled = raw.normalised(10_000, coarse_scale=1)
    image = scaled[0].load()
    assert image["fine_t1"][0, 0, 0] == 0
    assert np.isnan(image["fine_t1"][0, 0, 1])
    np.testing.assert_allclose(image["fine_t2"], found[0].load()["fine_t2"], rtol=1e-6)
    assert raw.normalised(10_000, negative=True)[0].load()["fine_t1"][0, 0, 0] == -0.5
    with pytest.raises(OptionError, match="above zero"):
        raw.normalised(0)


def test_harmonised_images_lie_on_the_least_squares_line_of_the_training_dates() -> None:
    coarse = cube(FINE, seed=1)
    fine = coarse * xr.DataArray([2.0, -3.0], dims="band") + 0.25
    fine = fine.transpose(*coarse.dims)
    fine[2:] = 7  # never looked at
    fine[0, 0, 5, 5] = np.nan
    found = open_pairs(fine, coarse).harmonised(DATES[:2])
    np.testing.assert_allclose(
        found.coarse.to_numpy()[:2],
        np.nan_to_num(fine.to_numpy(), nan=found.coarse.to_numpy()[0, 0, 5, 5])[:2],
        atol=1e-5,
    )
    x, y = (np.random.default_rng(seed).random((3, 1, 20, 20)).astype("float32") for seed in (0, 1))
    noisy = [
        xr.DataArray(a, {"time": np.array(DATES[:3], "datetime64[ns]"), "band": ["red"]}, fine.dims)
        for a in (y, x)
    ]
    slope, intercept = np.polyfit(x.ravel(), y.ravel(), 1)
    line = open_pairs(*noisy).harmonised(DATES[:3]).coarse.to_numpy()
    np.testing.assert_allclose(line, slope * x + intercept, rtol=1e-4)
    with pytest.raises(OptionError, match="red"):
        open_pairs(fine, xr.zeros_like(coarse)).harmonised()


def test_fine_numbers_can_be_brought_to_coarse_reflectance() -> None:
    reflectance = cube(FINE, seed=1)
    raw = open_pairs(reflectance * 7_000 + 5_000, reflectance)
    found = raw.harmonised(DATES[:2], to="coarse")
    np.testing.assert_allclose(found.fine.to_numpy(), reflectance.to_numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.coarse.to_numpy(), reflectance.to_numpy())
    with pytest.raises(OptionError, match="no way back"):
        open_pairs(xr.ones_like(reflectance), reflectance).harmonised(to="coarse")


def test_protocol_scene_learns_from_no_test_date() -> None:
    split = split_pairs(pairs(), test=2, valid=1)
    assert [str(t2) for _, t2 in split.test.spans] == [*DATES[4:]]
    assert [str(t2) for _, t2 in split.valid.spans] == [DATES[3]]
    seen = {str(date) for part in (split.train, split.valid) for span in part.spans for date in span}
    assert not seen & set(DATES[4:])
    assert not {str(date) for span in split.train.spans for date in span} & {DATES[3]}
    assert len(split_pairs(pairs(DATES[:3]), test=1, valid=0).train) == 1
    with pytest.raises(SplitError, match="train"):
        split_pairs(pairs(DATES[:3]))
    with pytest.raises(OptionError, match="test=0"):
        split_pairs(pairs(), test=0)


def test_protocol_survey_tests_on_what_it_validates_on() -> None:
    split = split_pairs(pairs(), "survey", train=4)
    assert (len(split.train), len(split.test)) == (3, 1)
    assert split.valid.spans == split.test.spans == [tuple(days(*DATES[4:]))]
    for options in ({}, {"train": 5}):
        with pytest.raises(OptionError, match="from 2 to 4"):
            split_pairs(pairs(), "survey", **options)
    with pytest.raises(OptionError, match="survey"):
        split_pairs(pairs(), train=3)


def test_cubes_without_a_crs_must_have_the_same_size() -> None:
    bare = cube(FINE).drop_vars(["x", "y", "spatial_ref"])
    assert open_pairs(bare, bare * 2).grid is None
    with pytest.raises(CubeError, match="CRS"):
        open_pairs(cube(FINE), bare[..., :-1])
    with pytest.raises(CubeError, match="dims"):
        open_pairs(bare.isel(time=0), bare)
    with pytest.raises(CubeError, match="'data'"):
        open_pairs(xr.Dataset({"value": bare}), bare)
