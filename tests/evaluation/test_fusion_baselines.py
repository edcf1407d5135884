from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.errors import OptionError
from cubekit.evaluation.fusion_baselines import BASELINES, Baseline, fit_fc, predict_baseline, starfm
from cubekit.typing import FloatArray

Images = tuple[xr.DataArray, xr.DataArray, xr.DataArray]


def image(values: FloatArray) -> xr.DataArray:
    names = [f"b{number}" for number in range(len(values))]
    return xr.DataArray(values.astype("float32"), {"band": names}, ("band", "y", "x"))


def scene(bands: int = 2, height: int = 21, width: int = 17, seed: int = 0) -> Images:
    random = np.random.default_rng(seed)
    fine = random.uniform(0.05, 0.4, (bands, height, width))
    coarse = [fine.mean((1, 2), keepdims=True) + random.normal(0, 0.05, fine.shape) for _ in range(2)]
    return image(coarse[0]), image(coarse[1]), image(fine)


def fields(height: int = 24, width: int = 24) -> tuple[FloatArray, FloatArray]:
    """Return a fine image of fields of four crops, and a smooth coarse image of it."""
    crops = np.random.default_rng(1).integers(0, 4, (height // 4, width // 4))
    label = np.kron(crops, np.ones((4, 4), int))
    fine = np.array([[0.05, 0.15, 0.25, 0.35], [0.45, 0.30, 0.20, 0.10]])[:, label]
    rows, columns = np.mgrid[:height, :width]
    return fine, fine.mean((1, 2), keepdims=True) + 0.02 * np.sin(rows / 5) + 0.02 * np.cos(columns / 7)


def starfm_by_loops(
    images: Images, *, window: int, classes: int, error: tuple[float, float], unit: float
) -> FloatArray:
    m1, m2, fine = (each.to_numpy() for each in images)
    bands, height, width = fine.shape
    half, result = window // 2, np.full(fine.shape, np.nan)
    for b in range(bands):
        limit = np.float32(2 * fine[b][np.isfinite(fine[b])].std() / classes)
        spectral, temporal = np.abs(fine[b] - m1[b]), np.abs(m1[b] - m2[b])
        s_most = spectral + np.float32(np.hypot(*error))
        t_most = temporal + np.float32(np.hypot(error[1], error[1]))
        for r in range(height):
            for c in range(width):
                if not np.isfinite(fine[b, r, c] + m1[b, r, c] + m2[b, r, c]):
                    continue
                total = weights = 0.0
                for i in range(max(0, r - half), min(height, r + half + 1)):
                    for j in range(max(0, c - half), min(width, c + half + 1)):
                        if not np.isfinite(fine[b, i, j] + m1[b, i, j] + m2[b, i, j]):
                            continue
                        if abs(fine[b, i, j] - fine[b, r, c]) > limit:
                            continue
                        if spectral[i, j] > s_most[r, c] or temporal[i, j] > t_most[r, c]:
                            continue
                        distance = 1 + np.hypot(i - r, j - c) / half
                        weight = 1 / ((spectral[i, j] / unit + 1) * (temporal[i, j] / unit + 1) * distance)
                        total += weight * (fine[b, i, j] + m2[b, i, j] - m1[b, i, j])
                        weights += weight
                result[b, r, c] = total / weights
    return result


def fit_fc_by_loops(images: Images, *, window: int, regression: int, similar: int) -> FloatArray:
    m1, m2, fine = (each.to_numpy().astype("float64") for each in images)
    bands, height, width = fine.shape
    half, reach = window // 2, regression // 2
    changed, result = np.empty(fine.shape), np.empty(fine.shape)
    for b in range(bands):
        for r in range(height):
            for c in range(width):
                near = (slice(max(0, r - reach), r + reach + 1), slice(max(0, c - reach), c + reach + 1))
                slope, intercept = np.polyfit(m1[b][near].ravel(), m2[b][near].ravel(), 1)
                residual = m2[b, r, c] - (slope * m1[b, r, c] + intercept)
                changed[b, r, c] = slope * fine[b, r, c] + intercept + residual
    for r in range(height):
        for c in range(width):
            found = []
            for i in range(max(0, r - half), min(height, r + half + 1)):
                for j in range(max(0, c - half), min(width, c + half + 1)):
                    spectral = np.sqrt(np.mean((fine[:, i, j] - fine[:, r, c]) ** 2))
                    found.append((spectral, np.hypot(i - r, j - c), i, j))
            best = sorted(found)[:similar]
            weight = np.array([1 / (1 + distance / half) for _, distance, _, _ in best])
            values = np.array([changed[:, i, j] for _, _, i, j in best])
            result[:, r, c] = (weight[:, None] * values).sum(axis=0) / weight.sum()
    return result


def test_every_baseline_has_a_name_for_tables() -> None:
    assert set(BASELINES) == set(get_args(Baseline))
    with pytest.raises(OptionError, match="'starfm'"):
        predict_baseline("starfn", *scene())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="shapes"):
        predict_baseline("change", *scene()[:2], scene(height=9)[2])


def test_the_plain_ones_are_what_they_say() -> None:
    c1, c2, f1 = scene()
    np.testing.assert_array_equal(predict_baseline("fine_t1", c1, c2, f1), f1)
    np.testing.assert_array_equal(predict_baseline("coarse_t2", c1, c2, f1), c2)
    np.testing.assert_allclose(predict_baseline("change", c1, c2, f1), f1 + c2 - c1, atol=1e-6)
    assert predict_baseline("coarse_t2", c1, c2, f1)["band"].to_numpy().tolist() == ["b0", "b1"]


def test_starfm_is_what_the_paper_says_pixel_by_pixel() -> None:
    images = scene()
    images[2][0, 4, 5] = np.nan
    images[1][1, 10, 3] = np.nan
    how: dict[str, Any] = {"window": 7, "classes": 3, "unit": 1e-4}
    expected = starfm_by_loops(images, error=(0.01, 0.02), **how)
    found = starfm(*images, fine_error=0.01, coarse_error=0.02, **how)
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=2e-5)
    assert np.isnan(found.to_numpy()).sum() == 2


def test_fit_fc_is_what_the_paper_says_pixel_by_pixel() -> None:
    images = scene(height=13, width=12)
    found = fit_fc(*images, window=5, regression=7, similar=6)
    expected = fit_fc_by_loops(images, window=5, regression=7, similar=6)
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["change", "starfm", "fit_fc"])
def test_a_constant_change_is_recovered_exactly(name: Baseline) -> None:
    fine, coarse = fields()
    change = np.array([0.05, -0.03])[:, None, None]
    found = predict_baseline(name, image(coarse), image(coarse + change), image(fine), ratio=3)
    np.testing.assert_allclose(found.to_numpy(), fine + change, atol=2e-6)


def test_fit_fc_recovers_a_linear_change_that_adding_misses() -> None:
    fine, coarse = fields()
    images = image(coarse), image(1.4 * coarse - 0.02), image(fine)
    np.testing.assert_allclose(fit_fc(*images, regression=9).to_numpy(), 1.4 * fine - 0.02, atol=5e-6)
    added = predict_baseline("change", *images).to_numpy()
    assert np.abs(added - (1.4 * fine - 0.02)).max() > 0.02


def test_starfm_keeps_what_did_not_change_and_takes_what_is_coarse_already() -> None:
    c1, c2, f1 = scene()
    np.testing.assert_array_equal(starfm(c1, c1, f1), f1)
    np.testing.assert_array_equal(starfm(f1, c2, f1), c2)


@pytest.mark.parametrize("method", [starfm, fit_fc])
def test_gaps_spread_to_no_other_pixel(method: Callable[..., xr.DataArray]) -> None:
    images = [each.copy() for each in scene(height=40, width=36)]
    images[2][:, 20, 10] = np.nan
    found = method(*images)
    assert np.argwhere(np.isnan(found.to_numpy()).all(axis=0)).tolist() == [[20, 10]]
    assert int(np.isnan(found.to_numpy()).sum()) == 2


@settings(max_examples=4, deadline=None)
@given(rows=st.integers(9, 50), columns=st.integers(9, 44))
def test_any_chunks_give_the_same_numbers(rows: int, columns: int) -> None:
    images = scene(height=50, width=44)
    images[2][0, 30, 30] = np.nan
    lazy = [each.chunk({"band": 1, "y": rows, "x": columns}) for each in images]
    methods: list[tuple[Callable[..., xr.DataArray], dict[str, int]]] = [
        (starfm, {"window": 9}),
        (fit_fc, {"window": 7, "regression": 9, "similar": 5}),
    ]
    for method, how in methods:
        found = method(*lazy, **how)
        assert found.chunks is not None
        np.testing.assert_array_equal(found.to_numpy(), method(*images, **how).to_numpy())


@pytest.mark.parametrize(
    "change", [{"window": 8}, {"window": 1}, {"classes": 0}, {"unit": 0.0}, {"regression": 4}, {"similar": 0}]
)
def test_impossible_windows_are_refused(change: dict[str, Any]) -> None:
    method: Callable[..., xr.DataArray] = fit_fc if set(change) & {"regression", "similar"} else starfm
    with pytest.raises(OptionError, match=f"{next(iter(change))}="):
        method(*scene(), **change)
