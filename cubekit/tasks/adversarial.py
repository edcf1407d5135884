"""Fusion trained with a judge: network and discriminator take turns, each with its own optimiser."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cubekit.tasks.fuse import Fuse, Fuser
from cubekit.tasks.fusion_recipes import FusionRecipe
from cubekit.tasks.task import Recipe, adam, scheduler_of, size_of


class FuseAdversarial(Fuse):
    """Train a fusion network against a judge, with least-squares losses (Mao et al. 2017).

    In every batch the judge moves first, on a prediction cut off from the network: half the squared distance
    of its opinion of true images from 1 and of predicted ones from 0. Then the network moves, towards the
    target and towards an opinion of 1, with the same prediction or, where the recipe says so, a fresh one.

    Parameters
    ----------
    model : Fuser
        The network.
    judge : torch.nn.Module
        Takes an image and, as the recipe says, the coarse image of its date.
    how : FusionRecipe
        Terms of the loss and weight of the judge.
    features : torch.nn.Module, optional
        Trained autoencoder with ``encode``; is frozen.
    recipe : Recipe, optional
        Learning rate, schedule and the like.

    References
    ----------
    https://doi.org/10.1109/ICCV.2017.304
    """

    def __init__(
        self,
        model: Fuser,
        judge: nn.Module,
        *,
        how: FusionRecipe,
        features: nn.Module | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(model, how=how, features=features, recipe=recipe)
        self.judge = judge
        self.automatic_optimization = False

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Move the judge, then the network.

        Parameters
        ----------
        batch : mapping
            Images and ``y``.
        batch_idx : int
            Number of the batch in its epoch.

        Returns
        -------
        torch.Tensor
            Loss of the network, detached.

        Raises
        ------
        TrainingError
            If a loss is not finite.
        """
        if size_of(batch) == 1:  # a rest: no batch norm can learn from one value
            batch = {name: values.repeat_interleave(2, dim=0) for name, values in batch.items()}
        both: Any = self.optimizers()
        own, judging = both
        results = self(batch)
        predicted = results["predicted"]
        true, drawn = self.opinion(batch["y"], batch), self.opinion(predicted.detach(), batch)
        judged = 0.5 * ((true - 1).square().mean() + drawn.square().mean())
        self.check_finite(judged, batch, batch_idx)
        self._move(judging, judged)
        if self.how.fresh_pass:
            results = self(batch)
            predicted = results["predicted"]
        self.judge.requires_grad_(requires_grad=False)  # its weights only pass the gradient on
        doubt = (self.opinion(predicted, batch) - 1).square().mean()
        loss = self.loss(results, batch) + self.how.judge_weight * doubt
        self.check_finite(loss, batch, batch_idx)
        self._move(own, loss)
        self.judge.requires_grad_(requires_grad=True)
        size = size_of(batch)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=size)
        self.log("train_judge_loss", judged.detach(), on_step=False, on_epoch=True, batch_size=size)
        return loss.detach()

    def opinion(self, image: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Ask the judge.

        Parameters
        ----------
        image : torch.Tensor
            True or predicted fine image ``(n, c, h, w)``.
        batch : mapping
            Holds the coarse image of its date.

        Returns
        -------
        torch.Tensor
            1 for true, 0 for predicted; shape as the judge gives it.
        """
        said: Tensor = (
            self.judge(image, batch["coarse_t2"]) if self.how.judge_sees_coarse else self.judge(image)
        )
        return said

    def on_train_epoch_end(self) -> None:
        """Step the schedules."""
        found: Any = self.lr_schedulers() or []
        for scheduler in found if isinstance(found, list) else [found]:
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(self.trainer.callback_metrics["valid_loss"])
            else:
                scheduler.step()

    def configure_optimizers(self) -> Any:
        """Build one optimiser for the network and one for the judge.

        Returns
        -------
        tuple
            Optimisers and schedules.
        """
        own = adam(self.model.network.parameters(), self.recipe)
        judging = adam(self.judge.parameters(), self.recipe, rate=self.how.judge_rate)
        schedules = [scheduler_of(optimizer, self.recipe) for optimizer in (own, judging)]
        return [own, judging], [schedule for schedule in schedules if schedule is not None]

    def _move(self, optimizer: Any, loss: Tensor) -> None:
        """Take one step down a loss, with the gradient clipped."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.recipe.clip is not None:
            self.clip_gradients(optimizer, self.recipe.clip, gradient_clip_algorithm="norm")
        optimizer.step()
