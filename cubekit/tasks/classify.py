"""The task "series to class": what a sample, target, loss, metric and output are.

sample
    A pixel series ``(t, c)`` of physical values, NaN where there is no data.
target
    The index of its class, 0 to K-1.
loss
    Cross-entropy, optionally with class weights and label smoothing.
metric
    Accuracy and macro F1 over the validation samples.
output
    Class probabilities ``(K,)`` that sum to one; NaN where a band was never observed.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from cubekit.errors import TrainingError
from cubekit.tasks.series import SeriesInput

WEIGHT_DECAY = 1e-6
"""L2 penalty, as for TempCNN (Pelletier et al. 2019)."""


class SeriesClassifier(nn.Module):
    """A network behind the preprocessing it was trained with.

    Parameters
    ----------
    inputs : SeriesInput
        Fills gaps and normalises.
    network : torch.nn.Module
        Takes ``x`` ``(n, t, c)`` and, if its ``forward`` names it, ``doy`` ``(n, t)``; returns logits
        ``(n, K)``. It gets no ``mask``: gaps are filled before.
    """

    def __init__(self, inputs: SeriesInput, network: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs
        self.network = network
        self._takes_doy = "doy" in inspect.signature(network.forward).parameters

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score the classes of physical series.

        Parameters
        ----------
        x : torch.Tensor
            Physical values ``(n, t, c)``, float32, NaN where there is no data.

        Returns
        -------
        logits : torch.Tensor
            ``(n, K)``.
        usable : torch.Tensor
            ``(n,)`` bool, false where a band was never observed.
        """
        ready = self.inputs(x)
        extra = {"doy": ready["doy"]} if self._takes_doy else {}
        return self.network(ready["x"], **extra), ready["usable"]

    def probabilities(self, x: Tensor) -> Tensor:
        """Give class probabilities.

        Parameters
        ----------
        x : torch.Tensor
            Physical values ``(n, t, c)``, float32, NaN where there is no data.

        Returns
        -------
        torch.Tensor
            ``(n, K)``, rows sum to one; NaN rows where a band was never observed.
        """
        logits, usable = self(x)
        return torch.where(usable[:, None], logits.softmax(dim=1), torch.nan)


class Classify(LightningModule):
    """Train a network to tell the class of pixel series.

    Parameters
    ----------
    network : torch.nn.Module
        See :class:`SeriesClassifier`.
    inputs : SeriesInput
        Fills gaps and normalises.
    classes : int
        Number of classes, K.
    learning_rate : float, optional
        Of Adam.
    class_weights : sequence of float, optional
        One weight a class, for unbalanced labels.
    label_smoothing : float, optional
        Share of each target spread over all classes, 0 to 1.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: SeriesInput,
        *,
        classes: int,
        learning_rate: float = 1e-3,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = SeriesClassifier(inputs, network)
        self.learning_rate = learning_rate
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.loss = nn.CrossEntropyLoss(weight=weights, label_smoothing=label_smoothing)
        self.scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "macro_f1": MulticlassF1Score(classes, average="macro"),
            },
            prefix="valid_",
        )

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Parameters
        ----------
        batch : mapping
            ``x`` ``(n, t, c)`` physical, ``y`` ``(n,)`` class indices.
        batch_idx : int
            Number of the batch in its epoch.

        Returns
        -------
        torch.Tensor
            Mean loss.

        Raises
        ------
        TrainingError
            If the loss is not finite; names epoch and batch.
        """
        logits, _ = self.model(batch["x"])
        loss: Tensor = self.loss(logits, batch["y"])
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"The loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}: "
                f"the largest input is {batch['x'].nan_to_num().abs().max():.4g}. "
                f"Lower learning_rate={self.learning_rate:g}, or look for infinite values in the samples."
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(logits))
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
        logits, _ = self.model(batch["x"])
        size = len(logits)
        self.log("valid_loss", self.loss(logits, batch["y"]), batch_size=size, prog_bar=True)
        self.scores.update(logits, batch["y"])
        self.log_dict(self.scores, batch_size=size, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build Adam over the network's weights.

        Returns
        -------
        torch.optim.Optimizer
            With a weight decay of 1e-6.
        """
        return torch.optim.Adam(
            self.model.network.parameters(), lr=self.learning_rate, weight_decay=WEIGHT_DECAY
        )

    def forward(self, x: Tensor) -> Any:
        """Score the classes; see :meth:`SeriesClassifier.forward`.

        Parameters
        ----------
        x : torch.Tensor
            Physical values ``(n, t, c)``.

        Returns
        -------
        tuple of torch.Tensor
            Logits and usability.
        """
        return self.model(x)
