import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import cubekit as ck
from cubekit.batching.normalise import Method, Normalisation
from cubekit.batching.normalise_fit import fit_normalisation
from cubekit.batching.samples import Samples
from cubekit.batching.tally import Moments, Tally
from cubekit.cube.contract import to_physical
from cubekit.errors import OptionError, TrainingError

Make = Callable[..., Samples]


def with_gaps(samples: Samples) -> Samples:
    x = samples.x.copy()
    x[np.random.default_rng(0).random(x.shape) < 0.3] = 0
    return replace(samples, x=x)


def test_percentiles_of_valid_values_become_0_and_1(make_samples: Make) -> None:
    samples = with_gaps(make_samples(500))
    normalisation = fit_normalisation(samples)
    scaled = normalisation.apply(samples.physical())
    low, high = np.nanpercentile(scaled, [2, 98], axis=(0, 1))
    np.testing.assert_allclose(low, 0, atol=1e-5)
    np.testing.assert_allclose(high, 1, atol=1e-5)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(scaled), ~samples.valid())


def test_standard_scores_agree_with_scikit_learn(make_samples: Make) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    samples = with_gaps(make_samples(500))
    normalisation = fit_normalisation(samples, method="standard")
    flat = samples.physical().reshape(-1, 2).astype("float64")
    scaler = preprocessing.StandardScaler().fit(flat)
    np.testing.assert_allclose(normalisation.mean, scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(normalisation.std, scaler.scale_, rtol=1e-6)
    np.testing.assert_allclose(normalisation.apply(flat), scaler.transform(flat), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["percentile", "standard"])
def test_it_survives_json(make_samples: Make, method: Method) -> None:
    normalisation = fit_normalisation(make_samples(), method=method)
    assert Normalisation.from_dict(json.loads(json.dumps(normalisation.to_dict()))) == normalisation


@pytest.mark.torch
def test_tensors_keep_type_and_values(make_samples: Make) -> None:
    torch = pytest.importorskip("torch")
    samples = with_gaps(make_samples())
    normalisation = fit_normalisation(samples)
    x = samples.physical()
    scaled = normalisation.apply(torch.from_numpy(x))
    assert scaled.dtype == torch.float32
    np.testing.assert_allclose(scaled.numpy(), normalisation.apply(x), rtol=1e-5, atol=1e-6)
    patches = torch.from_numpy(x).permute(0, 2, 1)
    torch.testing.assert_close(normalisation.apply(patches, axis=1).permute(0, 2, 1), scaled, equal_nan=True)


@pytest.mark.parametrize("method", ["percentile", "standard"])
def test_a_constant_band_is_named(make_samples: Make, method: Method) -> None:
    samples = make_samples()
    x = samples.x.copy()
    x[..., 1] = 1234
    with pytest.raises(TrainingError, match="'B01' is constant"):
        fit_normalisation(replace(samples, x=x), method=method)
    x[..., 1] = 0
    with pytest.raises(TrainingError, match="'B01' has no valid value"):
        fit_normalisation(replace(samples, x=x), method=method)


def test_other_bands_are_refused(make_samples: Make) -> None:
    normalisation = fit_normalisation(make_samples())
    with pytest.raises(OptionError, match=r"has 3 entries.*2 bands \(B00, B01\)"):
        normalisation.apply(np.zeros((4, 5, 3), "float32"))


def test_malformed_states_are_refused(make_samples: Make) -> None:
    state = fit_normalisation(make_samples()).to_dict()
    for change in ({"scale": 1}, {"low": [0.0]}, {"method": "minmax"}, {"high": state["low"]}):
        with pytest.raises(OptionError):
            Normalisation.from_dict(state | change)
    with pytest.raises(OptionError, match="'percentile'"):
        fit_normalisation(make_samples(), method="percentiles")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["percentile", "standard"])
@pytest.mark.parametrize("by_step", [False, True])
def test_cubes_are_gone_over_chunk_by_chunk_and_numbers_are_those_of_numpy(
    make_cube: Callable[..., xr.Dataset], tmp_path: Path, method: Method, *, by_step: bool
) -> None:
    cube = make_cube(rows=60, columns=80)
    ck.write(cube, tmp_path / "c.zarr", layout={"y": 16, "x": 16})
    physical = to_physical(cube["data"], dtype="float64").transpose("time", "band", "y", "x").to_numpy()
    axes = (2, 3) if by_step else (0, 2, 3)
    found = fit_normalisation(ck.open(tmp_path / "c.zarr"), method=method, by_step=by_step)
    if method == "percentile":
        first, second = np.nanpercentile(physical, [2, 98], axis=axes)
    else:
        first, second = np.nanmean(physical, axis=axes), np.nanstd(physical, axis=axes)
    np.testing.assert_allclose(found.shift, first.ravel(), rtol=1e-9)
    np.testing.assert_allclose(found.width, (second - first if method == "percentile" else second).ravel())
    assert found.steps == (4 if by_step else 1)
    assert Normalisation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    scaled = found.apply(physical[None], axis=2)
    shift, width = (np.reshape(each, (-1, 3))[..., None, None] for each in (found.shift, found.width))
    np.testing.assert_allclose(scaled[0], (physical - shift) / width)
    np.testing.assert_allclose(found.undo(scaled, axis=2)[0], physical, atol=1e-12)


@pytest.mark.torch
def test_streams_of_the_training_part_leave_out_masked_pixels_and_other_patches(
    make_cube: Callable[..., xr.Dataset],
) -> None:
    pytest.importorskip("torch")
    cube = make_cube(rows=40, columns=40)
    mask = np.random.default_rng(3).random((4, 40, 40)) < 0.7
    train = ck.PatchPlan(cube, 8).take(np.arange(10))
    stream = ck.batches(cube, train, mask=mask, shuffle=True, augment=ck.Augmentation(flip=True, jitter=0.1))
    found = fit_normalisation(stream, method="standard", by_step=True)
    physical = to_physical(
        cube["data"].where(xr.DataArray(mask, dims=("time", "y", "x")), 0), dtype="float64"
    )
    patches = np.stack([physical.to_numpy()[:, :, a:b, c:d] for a, b, c, d in train.windows.bounds.tolist()])
    np.testing.assert_allclose(found.mean, np.nanmean(patches, axis=(0, 3, 4)).ravel(), rtol=1e-9)
    np.testing.assert_allclose(found.std, np.nanstd(patches, axis=(0, 3, 4)).ravel(), rtol=1e-9)
    assert next(iter(stream))["x"].shape == (10, 4, 3, 8, 8)  # the stream itself stands where it stood


def test_a_band_that_is_constant_in_one_step_is_named_with_the_step(make_samples: Make) -> None:
    samples = make_samples()
    x = samples.x.copy()
    x[:, 2, 1] = 1234
    samples = replace(samples, x=x)
    fit_normalisation(samples)
    with pytest.raises(
        TrainingError, match=r"'B01' of step 3 is constant at 0.0234.*one scaling for all steps"
    ):
        fit_normalisation(samples, by_step=True)
    with pytest.raises(TrainingError, match="training part is empty"):
        fit_normalisation(samples.take([]))
    with pytest.raises(OptionError, match="not on dict"):
        fit_normalisation({"x": x})


def test_steps_must_fit_too(make_samples: Make) -> None:
    found = fit_normalisation(make_samples(), by_step=True)
    assert found.steps == 5
    with pytest.raises(OptionError, match=r"knows 5 steps; .* has 4"):
        found.apply(np.zeros((7, 4, 2), "float32"))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "float32"]),
    pieces=st.integers(1, 5),
)
def test_percentiles_in_pieces_are_those_of_the_whole(seed: int, dtype: str, pieces: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(0 if np.dtype(dtype).kind in "if" else 100, 30, 400).clip(-120, 250)
    values = values.clip(0) if dtype.startswith("u") else values
    values = values.astype(dtype)
    tally, moments = Tally(values.dtype), Moments()
    for part in np.array_split(values, pieces):
        tally.add(part)
        moments.add(part)
    wanted = [0, 2, 33.3, 50, 98, 100]
    np.testing.assert_allclose(
        tally.percentiles(wanted), np.percentile(values.astype("float64"), wanted), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(moments.std, values.astype("float64").std(), rtol=1e-9)


def test_many_distinct_values_are_put_together_a_ten_thousandth_apart() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, 400_000).astype("float32")
    tally = Tally(values.dtype)
    for part in np.array_split(values, 4):
        tally.add(part)
    found, expected = tally.percentiles([2, 50, 98]), np.percentile(values, [2, 50, 98])
    np.testing.assert_allclose(found, expected, rtol=3e-4)
    assert tally.distinct <= 1 << 16 < len(np.unique(values))
