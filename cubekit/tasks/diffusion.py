"""Fusion trained by removing noise: the loss of a diffusion model, and the moving average of its weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cubekit.nn.patches import pad_to_multiple
from cubekit.tasks.fuse import IMAGES, Fuse, Fuser
from cubekit.tasks.fusion_recipes import FusionRecipe, weighted
from cubekit.tasks.task import Recipe, Task, size_of

_MULTIPLE = 4  # what the sides of the network's images divide by

DECAY = 0.995
"""Of the moving average, a step."""

WARM_UP = 100
"""Steps during which the average forgets faster, ``(1 + step) / (10 + step)``: it starts at random."""


class FuseDiffusion(Fuse):
    """Train a diffusion model to guess the true image behind a noised one.

    The result is the moving average of the weights, updated every step. The validation loss is that of the
    average, at noise levels and with noise that are the same every epoch.

    Parameters
    ----------
    model : Fuser
        Its network has ``add_noise``, ``denoise`` and ``times``, as :mod:`cubekit.nn.fusion.stfdiff`.
    how : FusionRecipe
        Terms of the loss.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    def __init__(self, model: Fuser, *, how: FusionRecipe, recipe: Recipe | None = None) -> None:
        super().__init__(model, how=how, recipe=recipe)
        self.average = AveragedModel(model.network, multi_avg_fn=_average(DECAY), use_buffers=False)

    @property
    def kept(self) -> nn.Module:
        """The moving average."""
        module: nn.Module = self.average.module
        return module

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss at noise levels drawn at random.

        Parameters
        ----------
        batch : mapping
            Images and ``y``.
        batch_idx : int
            Number of the batch in its epoch.

        Returns
        -------
        torch.Tensor
            Scalar.

        Raises
        ------
        TrainingError
            If it is not finite.
        """
        y = batch["y"]
        network: Any = self.model.network
        levels = torch.randint(0, network.times, (len(y),), device=y.device)
        loss = self._denoising(network, batch, levels, torch.randn_like(y))
        self.check_finite(loss, batch, batch_idx)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Move the weights, then their average.

        Parameters
        ----------
        epoch, batch_idx : int
            As Lightning counts them.
        optimizer : object
            Adam.
        optimizer_closure : callable, optional
            Computes the loss.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        step = int(self.average.n_averaged)
        decay = min(DECAY, (1 + step) / (10 + step)) if step < WARM_UP else DECAY
        self.average.multi_avg_fn = _average(decay)
        self.average.update_parameters(self.model.network)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Log the loss of the average.

        Parameters
        ----------
        batch : mapping
            Images and ``y``.
        batch_idx : int
            Seeds levels and noise.
        """
        y = batch["y"]
        dice = torch.Generator().manual_seed(batch_idx)
        network: Any = self.kept
        levels = torch.randint(0, network.times, (len(y),), generator=dice).to(y.device)
        noise = torch.randn(y.shape, generator=dice).to(y)
        loss = self._denoising(network, batch, levels, noise)
        self.log("valid_loss", loss, batch_size=size_of(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Build Adam over the network that is trained, not over its average.

        Returns
        -------
        object
            As Lightning takes it.
        """
        return Task.configure_optimizers(self)

    def _denoising(self, network: Any, batch: Mapping[str, Tensor], levels: Tensor, noise: Tensor) -> Tensor:
        """Noise the true image, let the network guess it, and compare."""
        noised = pad_to_multiple(network.add_noise(batch["y"], levels, noise), _MULTIPLE)
        known = [pad_to_multiple(batch[name], _MULTIPLE) for name in IMAGES]
        rows, columns = batch["y"].shape[-2:]
        guess = network.denoise(noised, levels, *known)[..., :rows, :columns]
        return weighted(self.how.terms, guess, batch["y"])


def _average(decay: float) -> Any:
    """Build torch's rule of a moving average."""
    rule: Any = get_ema_multi_avg_fn
    return rule(decay)
