"""Multi-scale structural similarity, the part that all fusion losses share."""

from typing import Literal

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError, check_option

_LEVELS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA, _WINDOW, _SMALLEST = 1.5, 11, 16


def msssim(
    predicted: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    form: Literal["shifted", "clipped"] = "shifted",
    compat: bool = False,
) -> Tensor:
    """Similarity of structure at five scales; differentiable.

    Each scale gives one number for structure (of all images, bands and places) and the coarsest one for
    luminance too; their weighted product is the result. After Wang, Simoncelli and Bovik 2003
    (https://doi.org/10.1109/ACSSC.2003.1292216).

    Parameters
    ----------
    predicted, target : torch.Tensor
        Images ``(n, c, h, w)``, sides of 16 and more.
    data_range : float, optional
        Difference between the largest and the smallest value that can occur: 1 for reflectance. The published
        loss of SwinSTFM uses 2.
    form : {"shifted", "clipped"}, optional
        How numbers are kept positive: moved by ``(x + 1) / 2`` as for most networks, or ``relu(x) + 0.01``
        with 0.05 added to the result and at most 1, as for SwinSTFM.
    compat : bool, optional
        Take the last scale to the fourth power, as the published losses do by mistake; only with
        ``form="shifted"``.

    Returns
    -------
    torch.Tensor
        Scalar; 1 for equal images.

    Raises
    ------
    OptionError
        If shapes differ, a side is too short, or the options do not go together.
    """
    check_option("form", form, ("shifted", "clipped"))
    if predicted.shape != target.shape or predicted.ndim != 4 or min(predicted.shape[-2:]) < _SMALLEST:  # noqa: PLR2004
        raise OptionError(
            f"Images have shapes {tuple(predicted.shape)} and {tuple(target.shape)}, expected twice "
            f"(n, c, h, w) with sides of at least {_SMALLEST}."
        )
    if compat and form == "clipped":
        raise OptionError("compat=True has no meaning with form='clipped': that form never had the mistake.")
    factors = []
    for level, weight in enumerate(_LEVELS):
        if level:
            predicted, target = nn.functional.avg_pool2d(predicted, 2), nn.functional.avg_pool2d(target, 2)
        similarity, structure = _one_scale(predicted, target, data_range)
        last = level == len(_LEVELS) - 1
        value = similarity if last else structure
        value = (value + 1) / 2 if form == "shifted" else value.relu() + 0.01
        factors.append(value ** (4 * weight if compat and last else weight))
    result = torch.stack(factors).prod()
    return result if form == "shifted" else (result + 0.05).clamp(max=1.0)


def _one_scale(a: Tensor, b: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Mean similarity and mean of its contrast-structure factor, over windows that fit into the image."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
    mean_a, mean_b, square_a, square_b, product = _blur(moments).chunk(5, dim=1)
    var_a, var_b, covariance = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * structure).mean(), structure.mean()


def _blur(x: Tensor) -> Tensor:
    """Gaussian means without padding, one axis after the other."""
    size = min(_WINDOW, *x.shape[-2:])
    place = torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2
    weights = (-(place**2) / (2 * _SIGMA**2)).exp()
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, size)
    rows = nn.functional.conv2d(x, weights, groups=x.shape[1])
    return nn.functional.conv2d(rows, weights.transpose(2, 3), groups=x.shape[1])
