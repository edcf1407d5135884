"""The task "past maps to the next map": what a sample, target, loss, metric and output are.

sample
    A patch of one index at the past steps ``(t, 1, h, w)``, oldest first, NaN where there is no data.
target
    The map of the next step ``(h, w)``, NaN where it is not known.
loss
    Mean squared error over the pixels that are known; 0 where none is.
metric
    Root mean squared and mean absolute error and R² over all known pixels.
output
    The next map ``(h, w)`` in the unit of the input; NaN where a pixel was never observed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score

from cubekit.tasks.series import SeriesInput
from cubekit.tasks.task import Predictor, Recipe, Task, size_of


class Forecaster(Predictor):
    """A network behind the preprocessing it was trained with.

    Parameters
    ----------
    inputs : SeriesInput
        Fills gaps and normalises; the forecast is brought back to the unit of the input.
    network : torch.nn.Module
        Takes ``x`` ``(n, t, 1, h, w)`` and, if its ``forward`` names it, ``doy`` ``(n, t)``; returns the next
        map ``(n, h, w)``.
    """

    def __init__(self, inputs: SeriesInput, network: nn.Module) -> None:
        super().__init__(network)
        self.inputs = inputs

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Forecast, in normalised units.

        Parameters
        ----------
        batch : mapping
            ``x`` physical, NaN where there is no data.

        Returns
        -------
        dict
            ``scaled`` ``(n, h, w)``; ``usable`` ``(n, h, w)`` bool, false where a pixel was never observed.
        """
        ready = self.inputs(batch["x"])
        extra = {"doy": ready["doy"]} if "doy" in self.asked else {}
        return {"scaled": self.network(ready["x"], **extra), "usable": ready["usable"]}

    def outputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the next map.

        Parameters
        ----------
        batch : mapping
            ``x`` physical, NaN where there is no data.

        Returns
        -------
        dict
            ``predicted`` ``(n, h, w)`` in the unit of the input.
        """
        results = self(batch)
        return {"predicted": torch.where(results["usable"], self.physical(results["scaled"]), torch.nan)}

    def physical(self, scaled: Tensor) -> Tensor:
        """Bring a forecast back to the unit of the input.

        Parameters
        ----------
        scaled : torch.Tensor
            What the network returned.

        Returns
        -------
        torch.Tensor
            Same shape.
        """
        scale = self.inputs.normalisation
        return scaled * scale.width[0] + scale.shift[0]


class Forecast(Task):
    """Train a network to draw the next map.

    Parameters
    ----------
    model : Forecaster
        Network and preprocessing.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    model: Forecaster

    def __init__(self, model: Forecaster, *, recipe: Recipe | None = None) -> None:
        super().__init__(model, recipe=recipe)
        self.squared = MeanSquaredError(squared=False)
        self.absolute = MeanAbsoluteError()
        self.r2 = R2Score()

    def weight(self, batch: Mapping[str, Tensor]) -> int:
        """Count the known pixels of a batch, so that the loss of an epoch is that of its pixels.

        Parameters
        ----------
        batch : mapping
            ``y`` ``(n, h, w)``, NaN where not known.

        Returns
        -------
        int
            At least 1.
        """
        return max(1, int(torch.isfinite(batch["y"]).sum()))

    def loss(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error over known pixels, in normalised units.

        Parameters
        ----------
        results : mapping
            ``scaled``, ``usable``.
        batch : mapping
            ``y`` physical ``(n, h, w)``, NaN where not known.

        Returns
        -------
        torch.Tensor
            Scalar; 0, with a gradient of zero, where no pixel is known.
        """
        scale = self.model.inputs.normalisation
        known = _known(results, batch)
        target = (batch["y"].nan_to_num() - scale.shift[0]) / scale.width[0]
        squared = torch.where(known, results["scaled"] - target, 0.0).square()
        return squared.sum() / known.sum().clamp(min=1)

    def measure(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Update the errors over known pixels.

        Parameters
        ----------
        results : mapping
            ``scaled``, ``usable``.
        batch : mapping
            ``y``.
        """
        known = _known(results, batch)
        if int(known.sum()) < 2:  # noqa: PLR2004  (R² needs two)
            return
        found, y = self.model.physical(results["scaled"])[known], batch["y"][known]
        for name, metric in (("rmse", self.squared), ("mae", self.absolute), ("r2", self.r2)):
            metric.update(found, y)
            self.log(f"valid_{name}", metric, batch_size=size_of(batch), prog_bar=name == "rmse")


def _known(results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Pixels whose target is known and whose past was observed."""
    return torch.isfinite(batch["y"]) & results["usable"]
