"""Several predictions of one place, averaged: models of an ensemble, thinned networks, turned images."""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from cubekit.cube.contract import Encoding
from cubekit.nn.fold import quick_series
from cubekit.prediction.forward import forward_of, prepared_here
from cubekit.prediction.outputs import Kind
from cubekit.prediction.prepare import PHYSICAL, Preparation
from cubekit.tasks.classify import Classifier
from cubekit.tasks.series import SeriesInput
from cubekit.training.bundle import Model
from cubekit.typing import Array, FloatArray

Turning: TypeAlias = Literal["none", "flips", "rotations"]
"""Test-time augmentation: as it is; and its mirror images; and all eight ways to lay a square."""

_TURNS: dict[Turning, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "rotations": tuple((quarter, mirror) for quarter in range(4) for mirror in (False, True)),
}


class _ThinnedDropout(nn.Module):
    """Dropout that leaves out the same values for every pixel: one network out of the many that dropout is.

    The mask belongs to channels (to all but the samples where there is no image), is drawn once from its
    seed, and does not depend on how a scene is cut.
    """

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share, self.seed = share, seed

    def forward(self, x: Tensor) -> Tensor:
        if not self.share:
            return x
        images = 4  # dims (n, c, h, w): channels are dropped whole
        shape = (1, x.shape[1], *(1,) * (x.ndim - 2)) if x.ndim >= images else (1, *x.shape[1:])
        generator = torch.Generator().manual_seed(self.seed)
        kept = (torch.rand(shape, generator=generator) >= self.share).to(x.device, x.dtype)
        return x * kept / (1 - self.share)


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def thinned(network: nn.Module, number: int) -> nn.Module:
    """Draw one network out of those that dropout averages over (Gal & Ghahramani 2016).

    Parameters
    ----------
    network : torch.nn.Module
        With dropout layers; not changed. Source: https://doi.org/10.48550/arXiv.1506.02142.
    number : int
        Which one; the same number gives the same network.

    Returns
    -------
    torch.nn.Module
        A copy in evaluation mode whose dropout layers drop the same channels for every pixel.
    """
    drawn = copy.deepcopy(network).eval()
    places = [
        (part, name, child)
        for part in drawn.modules()
        for name, child in part.named_children()
        if isinstance(child, _DROPOUTS)
    ]
    for index, (part, name, child) in enumerate(places):
        setattr(part, name, _ThinnedDropout(child.p, seed=1000 * number + index))
    return drawn


def has_dropout(network: Any) -> bool:
    """Tell whether a network has a dropout layer that drops anything.

    Parameters
    ----------
    network : object
        A network, or anything else, which drops nothing.

    Returns
    -------
    bool
        Whether `thinned` would change it.
    """
    return isinstance(network, nn.Module) and any(
        isinstance(part, _DROPOUTS) and part.p > 0 for part in network.modules()
    )


class PatchMembers:
    """Average of what several networks say of a window, turned in several ways.

    Parameters
    ----------
    models : sequence of PatchModel
        At least one, all giving the same.
    kind : {"class", "fractions", "value"}
        What they give.
    passes : int, optional
        Thinned networks to draw from each model; 0 takes the model itself.
    turning : {"none", "flips", "rotations"}, optional
        Ways to lay a window; what is predicted is laid back.
    coding : Encoding, optional
        Of the cube's numbers.

    Attributes
    ----------
    takes_stored : bool
        Whether windows hold the cube's numbers as they are stored; else physical ones, as for `coding`'s
        default.
    """

    def __init__(
        self,
        models: Sequence[Any],
        kind: Kind,
        *,
        passes: int = 0,
        turning: Turning = "none",
        coding: Encoding = PHYSICAL,
    ) -> None:
        drawn = [version for model in models for version in _versions(model, passes)]
        self.takes_stored = all(map(prepared_here, drawn))
        self._forwards = [
            forward_of(model, kind, coding if self.takes_stored else PHYSICAL) for model in drawn
        ]
        self._turns = _TURNS[turning]
        self.count = len(self._forwards) * len(self._turns)

    def __call__(self, windows: Sequence[FloatArray]) -> FloatArray:
        """Return mean and, below it, standard deviation ``(2 k, h, w)``; of one member its values alone."""
        if self.count == 1:
            result: FloatArray = self._forwards[0](windows)
            return result
        mean = _Mean()
        for forward in self._forwards:
            for quarter, mirror in self._turns:
                turned = [_turn(window, quarter, mirror=mirror) for window in windows]
                mean.add(_turn_back(forward(turned), quarter, mirror=mirror))
        return np.concatenate(mean.result())

    def layer_bytes(self, lead: tuple[int, int], side: int) -> float:
        """Count the bytes a pixel that the layers of the heaviest member take; see `PatchForward`.

        Parameters
        ----------
        lead : tuple of int
            Dates and bands.
        side : int
            Pixels a side of the image to try.

        Returns
        -------
        float
            Bytes; 0 for models that do their own preprocessing, whose layers are not seen.
        """
        counts = [f.layer_bytes(lead, side) for f in self._forwards if hasattr(f, "layer_bytes")]
        return max(counts, default=0.0)


class SeriesMembers:
    """Average of what several networks say of pixel series.

    Parameters
    ----------
    models : sequence of SeriesModel
        At least one, all giving the same.
    kind : {"class", "fractions", "value"}
        What they give.
    passes : int, optional
        Thinned networks to draw from each model; 0 takes the model itself.
    coding : Encoding, optional
        Of the cube's numbers.

    Attributes
    ----------
    takes_stored : bool
        Whether it is called with numbers ``(t, c, n)`` as they are stored; else with physical series
        ``(n, t, c)`` and, where the models take them, ancillary numbers ``(n, a)``.
    """

    def __init__(
        self, models: Sequence[Any], kind: Kind, *, passes: int = 0, coding: Encoding = PHYSICAL
    ) -> None:
        versions = [version for model in models for version in _versions(model, passes)]
        self.takes_stored = all(map(_is_plain, versions))
        self._forwards: list[Callable[..., FloatArray]] = [
            _SeriesForward(version, coding) if self.takes_stored else _series_forward(version, kind)
            for version in versions
        ]
        self.count = len(self._forwards)

    def __call__(self, *inputs: FloatArray) -> FloatArray:
        """Return mean and, beside it, standard deviation ``(n, 2 k)``; of one member its values alone."""
        if self.count == 1:
            return self._forwards[0](*inputs)
        mean = _Mean()
        for forward in self._forwards:
            mean.add(forward(*inputs))
        return np.concatenate(mean.result(), axis=1)


class _Mean:
    """Running mean and standard deviation (Welford 1962), in the order in which members come."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: FloatArray) -> None:
        self._count += 1
        change = values.astype("float64") - self._mean
        self._mean = self._mean + change / self._count
        self._squares = self._squares + change * (values - self._mean)

    def result(self) -> tuple[FloatArray, FloatArray]:
        spread = np.sqrt(self._squares / self._count)
        return self._mean.astype("float32"), spread.astype("float32")


class _Drawn:
    """A model with another network."""

    def __init__(self, model: Any, network: nn.Module) -> None:
        self.network, self.card = network, model.card
        self.temperature = getattr(model, "temperature", None)


def _versions(model: Any, passes: int) -> list[Any]:
    if not passes:
        return [model]
    return [_Drawn(model, thinned(model.network, number)) for number in range(passes)]


def _is_plain(model: Any) -> bool:
    """Tell whether a model is a network that classifies series on the processor, behind the usual steps."""
    known = isinstance(model, _Drawn) or (
        type(model) is Model and type(model.predictor) is Classifier and not model.ancillary
    )
    return known and all(part.device.type == "cpu" for part in model.network.parameters())


class _SeriesForward:
    """A network that classifies series, from stored numbers to probabilities."""

    def __init__(self, model: Any, coding: Encoding) -> None:
        self._network = quick_series(model.network)
        self._prepared = Preparation(SeriesInput(model.card.dates(), model.card.normalisation), coding)
        self._heat = getattr(model.card, "temperature", 1.0)
        self._takes_doy = "doy" in inspect.signature(model.network.forward).parameters

    @torch.inference_mode()
    def __call__(self, stored: Array) -> FloatArray:
        """Take ``(t, c, n)``, give ``(n, k)``."""
        x, usable = (values[0] for values in self._prepared(stored[:, :, None]))
        extra = {"doy": self._prepared.inputs.doy.expand(len(x), -1)} if self._takes_doy else {}
        likely = (self._network(x, **extra) / self._heat).softmax(dim=1)
        result: FloatArray = torch.where(usable[:, None], likely, torch.nan).numpy()
        return result


def _series_forward(model: Any, kind: Kind) -> Callable[..., FloatArray]:
    """Return what predicts physical series with a model."""
    if isinstance(model, _Drawn):
        inputs = SeriesInput(model.card.dates(), model.card.normalisation)
        heat = getattr(model.card, "temperature", 1.0)
        classifier = Classifier(inputs, model.network, temperature=heat).eval()

        def forward(x: FloatArray) -> FloatArray:
            with torch.inference_mode():
                found = classifier.outputs({"x": torch.from_numpy(x)})
                result: FloatArray = found["probabilities"].numpy()
            return result

        return forward
    if type(model) is Model and all(part.device.type == "cpu" for part in model.network.parameters()):
        model = Model(quick_series(model.network), model.card)
    name = "values" if kind == "value" or not hasattr(model, "probabilities") else "probabilities"

    def whole(*inputs: FloatArray) -> FloatArray:
        result: FloatArray = getattr(model, name)(*inputs)
        return result

    return whole


def _turn(image: FloatArray, quarter: int, *, mirror: bool) -> FloatArray:
    turned = np.rot90(image, quarter, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if mirror else turned)


def _turn_back(image: FloatArray, quarter: int, *, mirror: bool) -> FloatArray:
    return np.rot90(image[..., ::-1] if mirror else image, -quarter, axes=(-2, -1))
