"""What all tasks share: a network behind its preprocessing, steps that stop at a bad loss, optimisers."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cubekit.errors import TrainingError

WEIGHT_DECAY = 1e-6
"""L2 penalty, as for TempCNN (Pelletier et al. 2019)."""

Schedule = Literal["constant", "cosine", "plateau", "step"]
"""How the learning rate falls: not at all; to zero along a cosine over all epochs; to a tenth after five
epochs without a lower validation loss; by a fifth after each fifth of the epochs."""

Milestones = tuple[int, ...]
"""Epochs after which the learning rate is halved."""

Keep = Literal["loss", "accuracy", "macro_f1", "weighted_f1"]
"""What chooses the epoch whose weights are kept: the lowest validation loss, or the highest score."""

SHOWN_ITEMS = 5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights are moved."""

    epochs: int = 20
    """Passes over the training samples, which the schedules are stretched to."""

    learning_rate: float = 1e-3
    """Of Adam."""

    weight_decay: float = WEIGHT_DECAY
    """L2 penalty."""

    schedule: Schedule | Milestones = "constant"
    """How the learning rate falls, or after which epochs it is halved."""

    lowest_rate: float = 0.0
    """Where a cosine schedule ends."""

    clip: float | None = 1.0
    """Gradients are clipped to this norm, so that one odd batch cannot throw the weights away."""


class Predictor(nn.Module):
    """A network behind the preprocessing it was trained with: the same in training and prediction.

    Parameters
    ----------
    network : torch.nn.Module
        See the task.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.asked = frozenset(inspect.signature(network.forward).parameters)

    def outputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give what a user gets.

        Parameters
        ----------
        batch : mapping
            Physical inputs, as the task says.

        Returns
        -------
        dict
            Physical outputs by name.
        """
        results: dict[str, Tensor] = self(batch)
        return results


class Task(LightningModule):
    """Base of the tasks: a subclass says what the loss is and which scores are kept.

    Parameters
    ----------
    model : Predictor
        Network and preprocessing.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    monitor = "valid_loss"
    """Score of the validation samples whose lowest value chooses the epoch that is kept."""

    def __init__(self, model: Predictor, *, recipe: Recipe | None = None) -> None:
        super().__init__()
        self.model = model
        self.recipe = Recipe() if recipe is None else recipe

    @property
    def kept(self) -> nn.Module:
        """The network whose weights are the result."""
        return self.model.network

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run preprocessing and network.

        Parameters
        ----------
        batch : mapping
            As the task says.

        Returns
        -------
        dict
            Raw outputs.
        """
        results: dict[str, Tensor] = self.model(batch)
        return results

    def loss(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare raw outputs with the target.

        Parameters
        ----------
        results : mapping
            What the predictor returned.
        batch : mapping
            The batch, with its target ``y``.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        raise NotImplementedError

    def measure(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a validation batch to the scores and log them; nothing by default.

        Parameters
        ----------
        results : mapping
            What the predictor returned.
        batch : mapping
            The batch, with its target ``y``.
        """

    def weight(self, batch: Mapping[str, Tensor]) -> int:
        """Tell how much the loss of a batch counts in the mean of an epoch.

        Parameters
        ----------
        batch : mapping
            The batch, with its target ``y``.

        Returns
        -------
        int
            Number of its members, unless the loss is a mean over something else.
        """
        return size_of(batch)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor | None:
        """Return the loss of one batch.

        Parameters
        ----------
        batch : mapping
            As the task says.
        batch_idx : int
            Number of the batch in its epoch.

        Returns
        -------
        torch.Tensor
            Mean loss.

        Raises
        ------
        TrainingError
            If the loss is not finite; names epoch, batch and items.
        """
        loss = self.loss(self(batch), batch)
        self.check_finite(loss, batch, batch_idx)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=self.weight(batch))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Update loss and scores with one batch of validation samples.

        Parameters
        ----------
        batch : mapping
            As for training.
        batch_idx : int
            Number of the batch.
        """
        del batch_idx
        results = self(batch)
        self.log(
            "valid_loss",
            self.loss(results, batch),
            batch_size=self.weight(batch),
            prog_bar=True,
            sync_dist=True,
        )
        self.measure(results, batch)

    def check_finite(self, loss: Tensor, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Raise unless a loss is a number.

        Parameters
        ----------
        loss : torch.Tensor
            Scalar.
        batch : mapping
            What it was computed from.
        batch_idx : int
            Number of the batch in its epoch.

        Raises
        ------
        TrainingError
            Naming epoch, batch, and the items with the largest inputs.
        """
        if bool(torch.isfinite(loss)):
            return
        items, largest = _suspects(batch)
        raise TrainingError(
            f"The loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}: "
            f"the largest input is {largest:.4g}, in sample{'s' if len(items) > 1 else ''} "
            f"{', '.join(map(str, items))} of those used. "
            f"Lower learning_rate={self.recipe.learning_rate:g}, or look for infinite values in the samples."
        )

    def configure_optimizers(self) -> Any:
        """Build Adam over the network's weights, and the schedule.

        Returns
        -------
        object
            As Lightning takes it.
        """
        recipe = self.recipe
        optimizer = adam(self.model.network.parameters(), recipe)
        scheduler = scheduler_of(optimizer, recipe)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor}}


def adam(
    parameters: Iterable[nn.Parameter], recipe: Recipe, *, rate: float | None = None
) -> torch.optim.Adam:
    """Build the optimiser of a recipe.

    Parameters
    ----------
    parameters : iterable
        Weights to move.
    recipe : Recipe
        Learning rate and weight decay.
    rate : float, optional
        Another learning rate.

    Returns
    -------
    torch.optim.Adam
        Over those that may change.
    """
    free = [weights for weights in parameters if weights.requires_grad]
    return torch.optim.Adam(
        free, lr=recipe.learning_rate if rate is None else rate, weight_decay=recipe.weight_decay
    )


def scheduler_of(optimizer: torch.optim.Optimizer, recipe: Recipe) -> Any:
    """Build the schedule of a recipe, stepped once an epoch.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose learning rate falls.
    recipe : Recipe
        Name of the schedule, and the number of epochs.

    Returns
    -------
    object or None
        A scheduler of torch; None where the rate is constant.
    """
    from torch.optim import lr_scheduler

    if not isinstance(recipe.schedule, str):
        return lr_scheduler.MultiStepLR(optimizer, milestones=list(recipe.schedule), gamma=0.5)
    if recipe.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.epochs, eta_min=recipe.lowest_rate)
    if recipe.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
    if recipe.schedule == "step":
        return lr_scheduler.StepLR(optimizer, step_size=max(1, recipe.epochs // 5), gamma=0.8)
    return None


def size_of(batch: Mapping[str, Tensor]) -> int:
    """Count the members of a batch.

    Parameters
    ----------
    batch : mapping
        Tensors with one entry a member.

    Returns
    -------
    int
        Their number.
    """
    return len(batch["y"])


def _suspects(batch: Mapping[str, Tensor]) -> tuple[list[int], float]:
    """Return the samples with the largest inputs, by number where the batch knows it, and that input."""
    inputs = [value for name, value in batch.items() if value.is_floating_point() and name != "y"]
    largest = torch.stack(
        [
            value.flatten(1).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).abs().amax(1)
            for value in inputs
        ]
    ).amax(0)
    worst = torch.flatten(torch.nonzero(largest == largest.max()))[:SHOWN_ITEMS]
    numbers = batch["index"] if "index" in batch else torch.arange(len(largest))
    return numbers[worst.to(numbers.device)].tolist(), float(largest.max())
