"""The task "series to shares of classes": what a sample, target, loss, metric and output are.

sample
    A pixel series ``(t, c)`` of physical values, NaN where there is no data; where the network was built
    with them, ancillary variables ``(a,)``, physical, NaN where not known.
target
    Shares of the K classes, which sum to one.
loss
    Squared error, summed over classes, mean over samples. A network that fills gaps itself and returns the
    error of doing so is trained for both at once (see :func:`cubekit.nn.brits.brits_loss`).
metric
    Root mean squared and mean absolute error, each the mean over classes; accuracy of the largest share.
output
    Shares ``(K,)`` that sum to one; the completed series, physical, where the network gives one. NaN where a
    band was never observed, or for networks that fill gaps themselves, where nothing was; and where an
    ancillary variable is not known.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from cubekit.batching.normalise import Normalisation
from cubekit.nn.brits import brits_loss
from cubekit.tasks.series import SeriesInput
from cubekit.tasks.task import Predictor, Recipe, Task, size_of


class FractionEstimator(Predictor):
    """A network behind the preprocessing it was trained with.

    Parameters
    ----------
    inputs : SeriesInput
        Fills gaps and normalises.
    network : torch.nn.Module
        Takes ``x`` ``(n, t, c)`` and, of ``mask`` ``(n, t, c)``, ``doy`` ``(n, t)`` and ``ancillary``
        ``(n, a)``, what its ``forward`` names. Gaps of ``x`` are filled in time; ``mask`` says which values
        were observed, for networks that fill gaps themselves. Returns logits ``(n, K)``, or a dictionary
        with ``fractions`` ``(n, K)``.
    ancillary : Normalisation, optional
        Scaling of the ancillary variables, by name.
    """

    def __init__(
        self, inputs: SeriesInput, network: nn.Module, *, ancillary: Normalisation | None = None
    ) -> None:
        super().__init__(network)
        self.inputs = inputs
        self.ancillary = ancillary

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Estimate shares.

        Parameters
        ----------
        batch : mapping
            ``x`` physical, NaN where there is no data; ``ancillary`` if the network takes it.

        Returns
        -------
        dict
            ``fractions`` ``(n, K)``; ``usable`` ``(n,)`` bool; whatever else the network returned.
        """
        ready = self.inputs(batch["x"])
        known = {"mask": ready["mask"], "doy": ready["doy"]}
        # Who is told what was observed needs no value in every band.
        usable = ready["mask"].any(dim=(1, 2)) if "mask" in self.asked else ready["usable"]
        if self.ancillary is not None:
            scaled = self.ancillary.apply(batch["ancillary"])
            known["ancillary"] = scaled.nan_to_num(nan=0.0)
            usable = usable & scaled.isfinite().all(dim=1)
        extra = {name: value for name, value in known.items() if name in self.asked}
        found = self.network(ready["x"], **extra)
        results = found if isinstance(found, dict) else {"fractions": found.softmax(dim=1)}
        return {**results, "usable": usable}

    def outputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give shares, and the completed series where the network fills gaps.

        Parameters
        ----------
        batch : mapping
            As for :meth:`forward`.

        Returns
        -------
        dict
            ``fractions`` ``(n, K)``, NaN where they are not usable; ``imputed`` ``(n, t, c)`` physical.
        """
        results = self(batch)
        given = {"fractions": torch.where(results["usable"][:, None], results["fractions"], torch.nan)}
        if "imputed" in results:
            given["imputed"] = self.inputs.normalisation.undo(results["imputed"])
        return given


class Fractions(Task):
    """Train a network to estimate shares of classes.

    Parameters
    ----------
    model : FractionEstimator
        Network and preprocessing.
    classes : int
        Number of classes, K.
    recipe : Recipe, optional
        Learning rate, schedule and the like.
    """

    monitor = "valid_rmse"

    def __init__(self, model: FractionEstimator, *, classes: int, recipe: Recipe | None = None) -> None:
        super().__init__(model, recipe=recipe)
        self.squared = MeanSquaredError(squared=False, num_outputs=classes)
        self.absolute = MeanAbsoluteError()
        self.dominant = MulticlassAccuracy(classes, average="micro")

    def loss(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error of the shares, joined with the error of filling gaps where the network gives it.

        Parameters
        ----------
        results : mapping
            ``fractions``, and ``imputation_error`` of networks that fill gaps.
        batch : mapping
            ``y`` shares ``(n, K)``.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        if "imputation_error" in results:
            return brits_loss(dict(results), batch["y"]).total
        return (results["fractions"] - batch["y"]).square().sum(dim=1).mean()

    def measure(self, results: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Update the errors.

        Parameters
        ----------
        results : mapping
            ``fractions``.
        batch : mapping
            ``y``.
        """
        found, y = results["fractions"].contiguous(), batch["y"]
        self.squared.update(found, y)
        self.absolute.update(found, y)
        self.dominant.update(found, y.argmax(dim=1))
        self.log("valid_mae", self.absolute, batch_size=size_of(batch))
        self.log("valid_dominant", self.dominant, batch_size=size_of(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the mean over classes of the root mean squared error of each."""
        self.log("valid_rmse", self.squared.compute().mean(), prog_bar=True)
        self.squared.reset()
