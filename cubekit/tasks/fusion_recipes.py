"""How each fusion network was trained: terms of its loss, judge, features to compare, learning rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from cubekit.nn.fusion.ecpw_stfn import ECPWSTFNAutoencoder, haar
from cubekit.nn.fusion.edcstfn import EDCSTFNAutoencoder
from cubekit.nn.fusion.gan_stfm import GANSTFMAutoencoder, GANSTFMDiscriminator
from cubekit.nn.fusion.mlff_gan import MLFFGANDiscriminator
from cubekit.nn.fusion.msssim import msssim
from cubekit.nn.fusion.srsf_gan import SRSFGANDiscriminator
from cubekit.nn.patches import pad_to_multiple
from cubekit.tasks.task import Schedule

Term = Callable[[Tensor, Tensor], Tensor]
Build = Callable[..., nn.Module]


def _charbonnier(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square() + 1e-6).sqrt().mean()


def _dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    return 1 - msssim(a, b)


def _published_dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    return 1 - msssim(a, b, compat=True)


def _clipped_dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    return 1 - msssim(a, b, data_range=2.0, form="clipped")


def _wavelet(a: Tensor, b: Tensor) -> Tensor:
    """Sum over the four Haar bands of the mean absolute difference."""
    return 4 * nn.functional.l1_loss(haar(pad_to_multiple(a, 2)), haar(pad_to_multiple(b, 2)))


def _spectral(a: Tensor, b: Tensor) -> Tensor:
    """One minus the mean cosine between the spectra (or features) of each place."""
    return 1 - nn.functional.cosine_similarity(a, b, dim=1).mean()


TERMS: Mapping[str, Term] = MappingProxyType(
    {
        "l1": nn.functional.l1_loss,
        "mse": nn.functional.mse_loss,
        "smooth_l1": nn.functional.smooth_l1_loss,
        "charbonnier": _charbonnier,
        "msssim": _dissimilarity,
        "msssim_published": _published_dissimilarity,
        "msssim_clipped": _clipped_dissimilarity,
        "haar": _wavelet,
        "cosine": _spectral,
    }
)
"""Parts of losses, 0 for equal images; "msssim_published" repeats a mistake of the published losses."""


@dataclass(frozen=True, kw_only=True)
class FusionRecipe:
    """Training of one network, as published."""

    terms: Mapping[str, float] = field(default_factory=lambda: {"l1": 1.0, "msssim": 1.0})
    """Weights of the terms between predicted and true image."""

    learning_rate: float = 1e-3
    """Of Adam."""

    schedule: Schedule = "constant"
    """How it falls."""

    lowest_rate: float = 0.0
    """Where a cosine schedule ends."""

    batch: int = 6
    """Samples per step."""

    features: Build | None = None
    """Autoencoder, trained first and frozen then, whose features are compared as well."""

    feature_terms: Mapping[str, float] = field(default_factory=dict)
    """Weights of the terms between the features."""

    autoencoder_terms: Mapping[str, float] = field(default_factory=lambda: {"l1": 1.0, "msssim": 0.8})
    """Loss of the autoencoder."""

    auxiliary_terms: Mapping[str, float] = field(default_factory=dict)
    """Weights of the terms between the second image of ``forward_with_auxiliary`` and the true one."""

    judge: Build | None = None
    """Discriminator, for adversarial training."""

    judge_weight: float = 0.0
    """Weight of the judge's opinion in the loss of the network."""

    judge_rate: float = 1e-3
    """Learning rate of the judge."""

    judge_sees_coarse: bool = True
    """Whether the judge gets the coarse image of the date too."""

    fresh_pass: bool = False
    """Whether the network predicts once more, with other dropout, after the judge has moved."""


_STEPPED: Schedule = "step"

RECIPES: Mapping[str, FusionRecipe] = MappingProxyType(
    {
        "edcstfn": FusionRecipe(
            terms={"mse": 1.0, "msssim": 0.8},
            features=EDCSTFNAutoencoder,
            feature_terms={"mse": 1.0},
            schedule=_STEPPED,
        ),
        "ecpw_stfn": FusionRecipe(
            terms={"haar": 1.0, "msssim": 0.85},
            features=ECPWSTFNAutoencoder,
            feature_terms={"l1": 1.0},
            autoencoder_terms={"smooth_l1": 1.0, "msssim": 0.84},
            schedule=_STEPPED,
        ),
        "gan_stfm": FusionRecipe(
            terms={"l1": 10.0, "msssim": 1.0},
            features=GANSTFMAutoencoder,
            feature_terms={"mse": 1.0, "cosine": 1.0},
            judge=GANSTFMDiscriminator,
            judge_weight=0.5e-3,
            batch=4,
        ),
        "mlff_gan": FusionRecipe(
            terms={"l1": 1.0, "msssim": 1.0, "cosine": 1.0},
            learning_rate=2e-4,
            judge=MLFFGANDiscriminator,
            judge_weight=0.01,
            judge_rate=2e-4,
            fresh_pass=True,
        ),
        "srsf_gan": FusionRecipe(
            terms={"l1": 1.0, "msssim": 1.0},
            auxiliary_terms={"msssim": 1.0},
            learning_rate=2e-4,
            judge=SRSFGANDiscriminator,
            judge_weight=0.005,
            judge_rate=2e-3,
            judge_sees_coarse=False,
            batch=4,
        ),
        "stfdiff": FusionRecipe(terms={"l1": 1.0}, learning_rate=2e-4, schedule=_STEPPED),
        "swinstfm": FusionRecipe(
            terms={"charbonnier": 1.0, "msssim_clipped": 1.0},
            learning_rate=1e-4,
            schedule="cosine",
            lowest_rate=1e-7,
            batch=4,
        ),
    }
)
"""Trainings of the shipped networks, by name; the papers are cited in ``cubekit.nn.fusion``."""

PLAIN = FusionRecipe()
"""Training of any other network."""


def weighted(terms: Mapping[str, float], predicted: Tensor, target: Tensor) -> Tensor:
    """Add up the terms of a loss.

    Parameters
    ----------
    terms : mapping
        Name in :data:`TERMS` to weight.
    predicted, target : torch.Tensor
        Images or features ``(n, c, h, w)``.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    parts = [weight * TERMS[name](predicted, target) for name, weight in terms.items()]
    return torch.stack(parts).sum() if parts else predicted.new_zeros(())
