from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.errors import OptionError
from cubekit.evaluation.fusion_metrics import METRICS, fusion_scores
from cubekit.evaluation.fusion_scores import assess_fusion, assess_patches
from cubekit.typing import FloatArray


def pair(bands: int = 3, height: int = 61, width: int = 47) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(0)
    target = random.uniform(0.1, 0.6, (bands, height, width))
    return target + random.normal(0, 0.02, target.shape), target


@pytest.mark.shared
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("number", [0, 2])
def test_blocks_give_the_published_and_the_textbook_values(
    shared: Path, number: int, *, compat: bool
) -> None:
    with np.load(shared / "parity" / "metrics_example.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name.startswith(f"pair{number}/")}
    predicted, target = (arrays[f"pair{number}/{name}"][0] for name in ("pred", "target"))
    found = assess_fusion(predicted, target, compat=compat, block=37).scores
    theirs = {"RMSE_global": "RMSE", "ERGAS_ratio16": "ERGAS", "RASE_global": "RASE", "CC": "CC"}
    theirs |= {"PSNR_unclipped": "PSNR", "SAM_degrees": "SAM", "R2_per_band_mean": "R2"}
    names = (
        {f"ref/{name}": name for name in METRICS}
        if compat
        else {f"textbook/{a}": b for a, b in theirs.items()}
    )
    for key, name in names.items():
        tolerance = 2e-4 if name == "RASE" else 1e-5
        expected = float(arrays[f"pair{number}/{key}"])
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=1e-5, err_msg=name)


@settings(max_examples=12, deadline=None)
@given(block=st.integers(11, 70), compat=st.booleans())
def test_blocks_of_any_size_give_the_one_shot_value(*, block: int, compat: bool) -> None:
    predicted, target = pair()
    expected = fusion_scores(predicted, target, compat=compat)
    found = assess_fusion(predicted, target, compat=compat, block=block)
    for name in METRICS:
        np.testing.assert_allclose(found.scores[name], expected[name], rtol=1e-9, err_msg=name)
    assert (found.pixels, found.n_invalid, found.unknown) == (61 * 47, 0, 0)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), block=st.integers(11, 40), compat=st.booleans())
def test_gaps_give_the_same_for_any_blocks(*, seed: int, block: int, compat: bool) -> None:
    predicted, target = pair()
    random = np.random.default_rng(seed)
    for image in (predicted, target):
        rows, columns = random.integers(0, 61, 6), random.integers(0, 47, 6)
        image[random.integers(0, 3, 6), rows, columns] = random.choice([np.nan, np.inf], 6)
    whole = assess_fusion(predicted, target, compat=compat)
    parts = assess_fusion(predicted, target, compat=compat, block=block)
    assert (whole.pixels, whole.n_invalid, whole.unknown) == (parts.pixels, parts.n_invalid, parts.unknown)
    for name in METRICS:
        np.testing.assert_allclose(parts.scores[name], whole.scores[name], rtol=1e-9, err_msg=name)
    known = np.isfinite(predicted).all(axis=0) & np.isfinite(target).all(axis=0)
    difference = (predicted - target)[:, known]
    np.testing.assert_allclose(whole.scores["MAE"], np.abs(difference).mean())
    expected = [np.corrcoef(p[known], g[known])[0, 1] for p, g in zip(predicted, target, strict=True)]
    np.testing.assert_allclose(whole.scores["CC"], np.mean(expected))
    assert whole.pixels == known.sum()
    assert whole.unknown == (~np.isfinite(target).all(axis=0)).sum()
    assert whole.pixels + whole.n_invalid + whole.unknown == known.size


def test_windows_with_a_gap_do_not_count() -> None:
    predicted, target = pair(bands=1, height=20, width=23)
    predicted[0, 9, 12] = np.nan
    values = []
    for row in range(20 - 7):
        for column in range(23 - 7):
            x, y = (a[0, row : row + 8, column : column + 8].ravel() for a in (predicted, target))
            if np.isfinite(x).all():
                covariance = np.mean((x - x.mean()) * (y - y.mean()))
                means = x.mean() ** 2 + y.mean() ** 2
                values.append(4 * covariance * x.mean() * y.mean() / ((x.var() + y.var()) * means))
    assert len(values) == 13 * 16 - 64
    for block in (11, 100):
        found = assess_fusion(predicted, target, block=block).scores["UQI"]
        np.testing.assert_allclose(found, np.mean(values), rtol=1e-9)


@pytest.mark.parametrize("compat", [False, True])
def test_each_band_is_scored_as_an_image_of_one_band(*, compat: bool) -> None:
    predicted, target = pair()
    found = assess_fusion(predicted, target, bands=["red", "nir", "swir"], compat=compat, block=20)
    for index, scores in enumerate(found.bands.values()):
        expected = fusion_scores(predicted[index : index + 1], target[index : index + 1], compat=compat)
        for name in METRICS:
            if name == "SAM":  # the angle between numbers is none
                assert np.isnan(scores["SAM"])
            else:
                np.testing.assert_allclose(scores[name], expected[name], rtol=1e-9, err_msg=name)


def test_lazy_images_are_read_by_blocks() -> None:
    predicted, target = pair()
    largest = 0

    def watched(block: FloatArray) -> FloatArray:
        nonlocal largest
        largest = max(largest, block.size)
        return block

    lazy = da.from_array(predicted, chunks=(3, 16, 16)).map_blocks(watched, dtype="float64")  # type: ignore[no-untyped-call]
    image = xr.DataArray(da.from_array(target, chunks=(1, 30, 47)), dims=("band", "y", "x"))  # type: ignore[no-untyped-call]
    image = image.assign_coords(band=["red", "nir", "swir"])
    found = assess_fusion(lazy, image, block=16)
    assert 0 < largest <= 3 * 16 * 16
    assert list(found.bands) == ["red", "nir", "swir"]
    expected = fusion_scores(predicted, target)
    np.testing.assert_allclose([found.scores[name] for name in METRICS], [*expected.values()], rtol=1e-9)


def test_the_table_and_the_dictionary_say_everything() -> None:
    predicted, target = pair(bands=2)
    predicted[0, 3, 3] = np.nan
    target[:, 4, 4] = np.nan
    found = assess_fusion(predicted, target, bands=["red", "nir"])
    lines = found.table().splitlines()
    assert lines[0].split() == list(METRICS)
    assert [line.split()[0] for line in lines[1:4]] == ["red", "nir", "all"]
    assert lines[4].startswith(f"{61 * 47 - 2} pixels; 1 more without a prediction, 1 without truth")
    assert found.to_dict()["bands"]["red"]["SAM"] is None
    assert found.overall == found.scores["RMSE"]
    equal = assess_fusion(target, target)
    assert equal.scores["PSNR"] == np.inf
    assert equal.to_dict()["scores"]["PSNR"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros((3, 40, 31))}, r"\(3, 40, 31\)"),
        ({"block": 8}, "block=8"),
        ({"bands": ["red"]}, "1 names for 3"),
        ({"predicted": np.full((3, 61, 47), np.nan)}, "2867 no prediction"),
    ],
)
def test_what_cannot_be_scored_is_refused(change: dict[str, Any], message: str) -> None:
    predicted, target = pair()
    with pytest.raises(OptionError, match=message):
        assess_fusion(**{"predicted": predicted, "target": target, **change})


def test_patches_are_scored_one_by_one_and_none_is_left_out() -> None:
    predicted, target = (np.stack([image[:, :20, :20], image[:, 20:40, 20:40]]) for image in pair())
    predicted[1] += 5  # far out of any range: a published comparison would drop it
    target = np.concatenate([target, target[:1]])
    predicted = np.concatenate([predicted, target[:1]])
    found = assess_patches(predicted, target)
    each = [fusion_scores(p, g, compat=True) for p, g in zip(predicted, target, strict=True)]
    for name in METRICS:
        values = np.array([scores[name] for scores in each])
        values = values[np.isfinite(values)]
        np.testing.assert_allclose((found.mean[name], found.std[name]), (values.mean(), values.std()))
    assert found.mean["MAE"] > 1.5
    assert (found.n_invalid["PSNR"], found.n_invalid["MAE"], found.patches) == (1, 0, 3)  # equal images
    assert found.table().splitlines()[3].split()[0] == "PSNR"
    assert found.table().endswith("3 patches")
    with pytest.raises(OptionError, match="expected some"):
        assess_patches(predicted[:0], target[:0])
