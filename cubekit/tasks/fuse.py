"""The task "coarse and fine images to a fine image": what a sample, target, loss, metric and output are.

sample
    Reflectance of a coarse image of an earlier date and of the wanted one, and the fine image of the earlier
    date, ``(c, h, w)`` each, on the fine grid, without gaps.
target
    The fine image of the wanted date ``(c, h, w)``.
loss
    As published for each network (:mod:`cubekit.tasks.fusion_recipes`); for any other, mean absolute error
    and dissimilarity of structure (MS-SSIM). Features of an autoencoder, trained first and frozen then, may
    be compared as well; :mod:`cubekit.tasks.adversarial` and :mod:`cubekit.tasks.diffusion` train with a
    judge and by removing noise.
metric
    Root mean squared error over all pixels and bands.
output
    The fine image of the wanted date ``(c, h, w)``, not clipped.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from cubekit.tasks.fusion_recipes import PLAIN, FusionRecipe, weighted
from cubekit.tasks.task import Predictor, Recipe, Task, size_of

IMAGES = ("coarse_t1", "coarse_t2", "fine_t1")
"""Inputs, in the order of the networks' arguments."""


class Fuser(Predictor):
    """A fusion network; images go in as they are.

    It takes ``coarse_t1, coarse_t2, fine_t1`` ``(n, c, h, w)`` and returns the fine image of the second date.
    """

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the fine image.

        Parameters
        ----------
        batch : mapping
            ``coarse_t1``, ``coarse_t2``, ``fine_t1`` ``(n, c, h, w)``.

        Returns
        -------
        dict
            ``predicted`` ``(n, c, h, w)``; ``auxiliary`` while training networks that give one.
        """
        images = [batch[name] for name in IMAGES]
        if self.training and hasattr(self.network, "forward_with_auxiliary"):
            both: Any = self.network.forward_with_auxiliary
            predicted, auxiliary = both(*images)
            return {"predicted": predicted, "auxiliary": auxiliary}
        return {"predicted": self.network(*images)}


class Fuse(Task):
    """Train a fusion network.

    Parameters
    ----------
    model : Fuser
        The network.
    how : FusionRecipe, optional
        Terms of the loss; those of any network by default.
    features : torch.nn.Module, optional
        Trained autoencoder with ``encode``; is frozen.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    def __init__(
        self,
        model: Fuser,
        *,
        how: FusionRecipe = PLAIN,
        features: nn.Module | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(model, recipe=recipe)
        self.how = how
        self.features = None if features is None else features.eval().requires_grad_(requires_grad=False)
        self.squared = MeanSquaredError(squared=False)
        self.absolute = MeanAbsoluteError()

    def loss(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare predicted and true image, and their features.

        Parameters
        ----------
        results : mapping
            ``predicted``, ``auxiliary`` where there is one.
        batch : mapping
            ``y`` ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        predicted, y = results["predicted"], batch["y"]
        total = weighted(self.how.terms, predicted, y)
        if self.features is not None and self.how.feature_terms:
            encode: Any = self.features.encode
            total = total + weighted(self.how.feature_terms, encode(predicted), encode(y))
        if "auxiliary" in results:
            total = total + weighted(self.how.auxiliary_terms, results["auxiliary"], y)
        return total

    def measure(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Update the errors.

        Parameters
        ----------
        results : mapping
            ``predicted``.
        batch : mapping
            ``y``.
        """
        for name, metric in (("rmse", self.squared), ("mae", self.absolute)):
            metric.update(results["predicted"].contiguous(), batch["y"])
            self.log(f"valid_{name}", metric, batch_size=size_of(batch), prog_bar=name == "rmse")


class Reconstructor(Predictor):
    """An autoencoder that gives fine images ``(n, c, h, w)`` of both dates back."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give both images back.

        Parameters
        ----------
        batch : mapping
            ``fine_t1`` and ``y`` ``(n, c, h, w)``.

        Returns
        -------
        dict
            ``restored`` ``(2 n, c, h, w)``.
        """
        return {"restored": self.network(torch.cat([batch["fine_t1"], batch["y"]]))}


class Reconstruct(Task):
    """Train an autoencoder whose features a fusion network is compared by.

    Parameters
    ----------
    model : Reconstructor
        The autoencoder.
    how : FusionRecipe
        Terms of its loss.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    def __init__(self, model: Reconstructor, *, how: FusionRecipe, recipe: Recipe | None = None) -> None:
        super().__init__(model, recipe=recipe)
        self.how = how

    def loss(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare the images with what came back.

        Parameters
        ----------
        results : mapping
            ``restored``.
        batch : mapping
            ``fine_t1``, ``y``.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        return weighted(
            self.how.autoencoder_terms, results["restored"], torch.cat([batch["fine_t1"], batch["y"]])
        )
