from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubekit.errors import OptionError
from cubekit.evaluation.fusion_metrics import METRICS, fusion_scores
from cubekit.typing import FloatArray

PAIRS = range(4)
TEXTBOOK = {
    "RMSE_global": "RMSE",
    "ERGAS_ratio16": "ERGAS",
    "RASE_global": "RASE",
    "PSNR_unclipped": "PSNR",
    "SAM_degrees": "SAM",
    "R2_per_band_mean": "R2",
    "CC": "CC",
}


def example(shared: Path, number: int) -> tuple[FloatArray, FloatArray, dict[str, float]]:
    with np.load(shared / "parity" / "metrics_example.npz", allow_pickle=False) as archive:
        prefix = f"pair{number}/"
        arrays = {
            name.removeprefix(prefix): archive[name] for name in archive.files if name.startswith(prefix)
        }
    predicted, target = arrays.pop("pred")[0], arrays.pop("target")[0]
    return predicted, target, {name: float(value) for name, value in arrays.items()}


def pair(bands: int = 3, height: int = 40, width: int = 32) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(0)
    target = random.uniform(0.1, 0.6, (bands, height, width))
    return target + random.normal(0, 0.02, target.shape), target


@pytest.mark.shared
@pytest.mark.parametrize("number", PAIRS)
def test_compat_scores_are_those_of_the_published_comparison(shared: Path, number: int) -> None:
    predicted, target, expected = example(shared, number)
    found = fusion_scores(predicted, target, compat=True)
    assert tuple(found) == METRICS
    for name in METRICS:
        tolerance = 2e-4 if name == "RASE" else 1e-5
        np.testing.assert_allclose(
            found[name], expected[f"ref/{name}"], rtol=tolerance, atol=1e-5, err_msg=name
        )


@pytest.mark.shared
@pytest.mark.parametrize("number", PAIRS)
def test_default_scores_are_the_textbook_ones(shared: Path, number: int) -> None:
    predicted, target, expected = example(shared, number)
    found = fusion_scores(predicted, target)
    for theirs, ours in TEXTBOOK.items():
        np.testing.assert_allclose(
            found[ours], expected[f"textbook/{theirs}"], rtol=1e-5, atol=1e-5, err_msg=ours
        )


@pytest.mark.torch
def test_ssim_is_that_of_the_library() -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("torchmetrics.functional.image")
    predicted, target = pair()
    images = [torch.from_numpy(image)[None] for image in (predicted, target)]
    mean, everywhere = library.structural_similarity_index_measure(
        *images, sigma=1.5, data_range=1.0, return_full_image=True
    )
    found = fusion_scores(predicted, target)["SSIM"]
    np.testing.assert_allclose(found, everywhere[..., 5:-5, 5:-5].mean().item(), atol=1e-6)
    found = fusion_scores(predicted, target, compat=True)["SSIM"]
    np.testing.assert_allclose(found, mean.item(), atol=1e-6)


def test_uqi_is_the_mean_over_all_windows_inside_the_image() -> None:
    predicted, target = pair(bands=2, height=12, width=15)
    values = []
    for band in range(2):
        for row in range(12 - 7):
            for column in range(15 - 7):
                x, y = (a[band, row : row + 8, column : column + 8].ravel() for a in (predicted, target))
                covariance = np.mean((x - x.mean()) * (y - y.mean()))
                means = x.mean() ** 2 + y.mean() ** 2
                values.append(4 * covariance * x.mean() * y.mean() / ((x.var() + y.var()) * means))
    np.testing.assert_allclose(fusion_scores(predicted, target)["UQI"], np.mean(values), rtol=1e-9)


def test_uqi_of_flat_windows_compares_their_means_alone() -> None:
    predicted, target = pair(bands=1, height=30, width=30)
    predicted[:, :, :12], target[:, :, :12] = 0.2, 0.4
    values = []
    for row in range(30 - 7):
        for column in range(30 - 7):
            x, y = (a[0, row : row + 8, column : column + 8].ravel() for a in (predicted, target))
            means = 2 * x.mean() * y.mean() / (x.mean() ** 2 + y.mean() ** 2)
            flat = column + 8 <= 12
            contrast = 1 if flat else 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var())
            values.append(means * contrast)
    np.testing.assert_allclose(fusion_scores(predicted, target)["UQI"], np.mean(values), rtol=1e-9)
    predicted[:, :, :12] = target[:, :, :12] = 0
    assert fusion_scores(target, target)["UQI"] == pytest.approx(1)


def test_scc_ignores_smooth_differences_and_sees_fine_ones() -> None:
    predicted, target = pair()
    ramp = np.linspace(0, 0.3, target.shape[2])
    smooth = fusion_scores(target + ramp, target)
    assert smooth["SCC"] > 0.999
    assert smooth["CC"] < 0.95
    blurred = (predicted + np.roll(predicted, 1, axis=2)) / 2
    assert fusion_scores(blurred, target)["SCC"] < 0.9


@pytest.mark.parametrize("compat", [False, True])
def test_equal_images_get_the_best_scores(*, compat: bool) -> None:
    _, target = pair()
    best = dict.fromkeys(("SSIM", "UQI", "SCC", "CC", "R2"), 1.0)
    best |= dict.fromkeys(("MAE", "RMSE", "SAM", "ERGAS", "RASE"), 0.0) | {"PSNR": np.inf}
    found = fusion_scores(target, target, compat=compat)
    for name in METRICS:
        np.testing.assert_allclose(
            found[name], best[name], atol=2e-5 if name == "UQI" else 2e-6, err_msg=name
        )


def test_scores_that_are_not_defined_are_nan_and_zero_pixels_have_no_angle() -> None:
    predicted, target = pair()
    flat = target.copy()
    flat[0] = 0.5
    assert np.isnan(fusion_scores(predicted, flat)["CC"])
    dark = target.copy()
    dark[:, 3, 4] = 0
    keep = np.ones(target.shape[1:], dtype=bool)
    keep[3, 4] = False
    p, g = predicted[:, keep], dark[:, keep]
    angles = np.degrees(np.arccos((p * g).sum(0) / np.sqrt((p**2).sum(0) * (g**2).sum(0))))
    np.testing.assert_allclose(fusion_scores(predicted, dark)["SAM"], angles.mean())
    assert np.isnan(fusion_scores(predicted, dark, compat=True)["SAM"])
    assert np.isnan(fusion_scores(np.zeros_like(target), target)["SAM"])


def test_ratio_and_range_scale_what_they_should() -> None:
    predicted, target = pair()
    base = fusion_scores(predicted, target)
    np.testing.assert_allclose(fusion_scores(predicted, target, ratio=32)["ERGAS"], base["ERGAS"] / 2)
    scaled = fusion_scores(predicted * 10_000, target * 10_000, data_range=10_000)
    for name in ("PSNR", "SSIM", "SAM", "ERGAS", "RASE", "UQI", "SCC", "CC", "R2"):
        np.testing.assert_allclose(scaled[name], base[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros((3, 40, 31))}, r"\(3, 40, 31\)"),
        ({"predicted": np.zeros((3, 10, 32)), "target": np.zeros((3, 10, 32))}, "at least 11"),
        ({"predicted": np.full((3, 40, 32), np.nan)}, "3840 and the true one 0"),
    ],
)
def test_images_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    predicted, target = pair()
    with pytest.raises(OptionError, match=message):
        fusion_scores(**{"predicted": predicted, "target": target, **change})
