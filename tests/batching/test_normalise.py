import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cubekit.batching.normalise import Method, Normalisation, fit_normalisation
from cubekit.batching.samples import Samples
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
