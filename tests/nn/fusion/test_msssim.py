from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn.fusion.msssim import msssim  # noqa: E402

pytestmark = pytest.mark.torch

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def pair(side: int = 192) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, side // 8, side // 8, generator=generator)
    target = torch.nn.functional.interpolate(target, scale_factor=8, mode="bicubic").clamp(0, 1)
    return (target + 0.05 * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


def library_levels(predicted: Tensor, target: Tensor, data_range: float) -> list[tuple[Tensor, Tensor]]:
    metrics = pytest.importorskip("torchmetrics.functional.image")
    levels = []
    for _ in WEIGHTS:
        options = {"sigma": 1.5, "data_range": data_range}
        measure = metrics.structural_similarity_index_measure
        _, everywhere = measure(predicted, target, **options, return_full_image=True)
        _, structure = measure(predicted, target, **options, return_contrast_sensitivity=True)
        levels.append((everywhere[..., 5:-5, 5:-5].mean(), structure.mean()))  # windows inside the image only
        predicted, target = (torch.nn.functional.avg_pool2d(image, 2) for image in (predicted, target))
    return levels


@pytest.mark.parametrize("compat", [False, True])
def test_scales_are_those_of_the_library(*, compat: bool) -> None:
    predicted, target = pair()
    levels = library_levels(predicted, target, 1.0)
    expected = ((levels[4][0] + 1) / 2) ** (WEIGHTS[4] * (4 if compat else 1))
    for (_, structure), weight in zip(levels[:4], WEIGHTS, strict=False):
        expected = expected * ((structure + 1) / 2) ** weight
    torch.testing.assert_close(msssim(predicted, target, compat=compat), expected, atol=1e-5, rtol=0)


def test_clipped_form_is_that_of_swinstfm() -> None:
    predicted, target = pair()
    levels = library_levels(predicted, target, 2.0)
    expected = (levels[4][0].relu() + 0.01) ** WEIGHTS[4]
    for (_, structure), weight in zip(levels[:4], WEIGHTS, strict=False):
        expected = expected * (structure.relu() + 0.01) ** weight
    found = msssim(predicted, target, data_range=2.0, form="clipped")
    torch.testing.assert_close(found, (expected + 0.05).clamp(max=1), atol=1e-5, rtol=0)
    assert msssim(target, target, form="clipped") == 1


def test_equal_images_score_one_and_worse_ones_less() -> None:
    predicted, target = pair(32)
    torch.testing.assert_close(msssim(target, target), torch.tensor(1.0))
    worse = (predicted + 0.3 * torch.rand_like(predicted)).clamp(0, 1)
    assert msssim(worse, target) < msssim(predicted, target) < 1


def test_smallest_images_have_finite_gradients() -> None:
    predicted, target = (image[..., :16, :16].clone().requires_grad_() for image in pair(32))
    torch.autograd.backward(1 - msssim(predicted, target))
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert predicted.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.zeros(1, 3, 15, 32), "predicted": torch.zeros(1, 3, 15, 32)}, "at least 16"),
        ({"target": torch.zeros(1, 3, 32, 32)}, "expected twice"),
        ({"form": "clamped"}, "'clipped'"),
        ({"form": "clipped", "compat": True}, "compat=True"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    predicted, target = pair(32)
    with pytest.raises(OptionError, match=message):
        msssim(**{"predicted": predicted, "target": target, **change})
