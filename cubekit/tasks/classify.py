"""The task "series or patches to class": what a sample, target, loss, metric and output are.

sample
    A pixel series ``(t, c)`` or a patch ``(t, c, h, w)`` of physical values, NaN where there is no data.
target
    The index of its class, 0 to K-1; of every pixel for a patch ``(h, w)``, with -1 where there is no label.
loss
    Cross-entropy over what is labelled, optionally with class weights and label smoothing.
metric
    Accuracy, macro and weighted F1 over the validation samples.
output
    Class probabilities ``(K,)`` or ``(K, h, w)`` that sum to one; NaN where a band was never observed.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from cubekit.tasks.series import SeriesInput
from cubekit.tasks.task import Predictor, Recipe, Task, size_of

IGNORED = -1
"""Target where there is no label."""


class Classifier(Predictor):
    """A network behind the preprocessing it was trained with.

    Parameters
    ----------
    inputs : SeriesInput
        Fills gaps and normalises.
    network : torch.nn.Module
        Takes ``x`` ``(n, t, c)`` or ``(n, t, c, h, w)`` and, if its ``forward`` names it, ``doy`` ``(n, t)``;
        returns logits ``(n, K)`` or ``(n, K, h, w)``. It gets no ``mask``: gaps are filled before.
    temperature : float, optional
        What logits are divided by; fitted on validation samples, so that probabilities are honest.
    """

    def __init__(self, inputs: SeriesInput, network: nn.Module, *, temperature: float = 1.0) -> None:
        super().__init__(network)
        self.inputs = inputs
        self.temperature = temperature

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Score the classes.

        Parameters
        ----------
        batch : mapping
            ``x`` physical, float32, NaN where there is no data.

        Returns
        -------
        dict
            ``logits`` ``(n, K, …)`` before calibration; ``usable`` ``(n, …)`` bool, false where a band was
            never observed.
        """
        ready = self.inputs(batch["x"])
        extra = {"doy": ready["doy"]} if "doy" in self.asked else {}
        return {"logits": self.network(ready["x"], **extra), "usable": ready["usable"]}

    def outputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give class probabilities.

        Parameters
        ----------
        batch : mapping
            ``x`` physical, float32, NaN where there is no data.

        Returns
        -------
        dict
            ``probabilities`` ``(n, K, …)``, sums of one; NaN where a band was never observed.
        """
        results = self(batch)
        likely = (results["logits"] / self.temperature).softmax(dim=1)
        return {"probabilities": torch.where(results["usable"][:, None], likely, torch.nan)}


class Classify(Task):
    """Train a network to tell the class of pixel series, or of the pixels of patches.

    Parameters
    ----------
    model : Classifier
        Network and preprocessing.
    classes : int
        Number of classes, K.
    class_weights : sequence of float, optional
        One weight a class, for unbalanced labels.
    label_smoothing : float, optional
        Share of each target spread over all classes, 0 to 1.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        classes: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(model, recipe=recipe)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.entropy = nn.CrossEntropyLoss(
            weight=weights, label_smoothing=label_smoothing, ignore_index=IGNORED
        )
        self.scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED),
                "macro_f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORED),
                "weighted_f1": MulticlassF1Score(classes, average="weighted", ignore_index=IGNORED),
            },
            prefix="valid_",
        )

    def loss(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy over what is labelled; 0 where nothing is.

        Parameters
        ----------
        results : mapping
            ``logits``, ``usable``.
        batch : mapping
            ``y`` class indices, -1 where there is no label.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        y = _target(results, batch)
        if not bool((y != IGNORED).any()):
            return 0.0 * results["logits"].sum()
        entropy: Tensor = self.entropy(results["logits"], y)
        return entropy

    def measure(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Update accuracy and F1.

        Parameters
        ----------
        results : mapping
            ``logits``, ``usable``.
        batch : mapping
            ``y``.
        """
        self.scores.update(results["logits"], _target(results, batch))
        size = size_of(batch)
        for name in ("accuracy", "macro_f1", "weighted_f1"):
            self.log(f"valid_{name}", self.scores[name], batch_size=size, prog_bar=name != "weighted_f1")


def _target(results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Class indices, with -1 where a band was never observed: part of such a pixel is invented."""
    return torch.where(results["usable"], batch["y"], IGNORED)
