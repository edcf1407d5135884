"""A patch model as prediction calls it: windows of physical numbers in, shares or values of pixels out."""

import inspect
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cubekit.cube.contract import Encoding
from cubekit.errors import PredictionError
from cubekit.nn.fold import fold_norms
from cubekit.nn.reach import Reach, measure_reach
from cubekit.prediction.outputs import Kind
from cubekit.prediction.prepare import PHYSICAL, Preparation
from cubekit.prediction.rule import PROBE
from cubekit.prediction.shipping import model_digest
from cubekit.tasks.series import SeriesInput
from cubekit.typing import Array, FloatArray


class PatchForward:
    """A network behind the preprocessing it was trained with, for windows of a scene.

    Batch norms are folded, the values of a pixel lie side by side in memory, nothing is recorded for
    gradients.

    Parameters
    ----------
    network : torch.nn.Module
        Takes ``x`` ``(1, t, c, h, w)`` and, if its ``forward`` names them, ``doy`` ``(1, t)`` and
        ``ancillary`` ``(1, a, h, w)``; returns ``(1, k, h, w)`` or ``(1, h, w)``: logits where `kind` is
        ``class``, else fractions or values as they are.
    inputs : SeriesInput
        Fills gaps and normalises.
    kind : {"class", "fractions", "value"}
        What the network gives.
    coding : Encoding, optional
        Of the numbers of the windows. Default: they are physical, NaN where there is no data.
    temperature : float, optional
        Divides logits, so that probabilities are as often right as they say.
    rescale : bool, optional
        Whether the network answers in normalised units, as forecasts do, which become those of its one band.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: SeriesInput,
        kind: Kind,
        *,
        coding: Encoding = PHYSICAL,
        temperature: float = 1.0,
        rescale: bool = False,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folded = fold_norms(network).to(self.device)
        self.network = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prepared = Preparation(inputs, coding, self.device)
        self.kind: Kind = kind
        self.temperature = temperature
        scale = inputs.normalisation
        self._scale = (scale.width[0], scale.shift[0]) if rescale else (1.0, 0.0)
        self._takes = inspect.signature(network.forward).parameters

    @torch.inference_mode()
    def __call__(self, windows: Sequence[FloatArray]) -> FloatArray:
        """Predict one window.

        Parameters
        ----------
        windows : sequence of numpy.ndarray
            Numbers ``(t, c, h, w)``; then physical ones ``(a, h, w)`` where the network takes ancillary
            numbers.

        Returns
        -------
        numpy.ndarray
            ``(k, h, w)`` float32, NaN where a band was never observed.
        """
        x, usable = self.prepared(windows[0])
        extra: dict[str, Tensor] = {}
        if "doy" in self._takes:
            extra["doy"] = self.prepared.inputs.doy[None]
        if len(windows) > 1 and "ancillary" in self._takes:
            extra["ancillary"] = torch.from_numpy(np.ascontiguousarray(windows[1]))[None].to(self.device)
        raw: Tensor = self.network(x.permute(2, 3, 0, 1)[None], **extra)[0]
        values = raw if raw.ndim == 3 else raw[None]  # noqa: PLR2004  (k, h, w)
        if self.kind == "class":
            values = (values / self.temperature).softmax(dim=0)
        elif self._scale != (1.0, 0.0):
            values = values * self._scale[0] + self._scale[1]
        result: FloatArray = torch.where(usable, values, torch.nan).cpu().numpy()
        return result

    def layer_bytes(self, lead: tuple[int, int], side: int) -> float:
        """Count the bytes a pixel that the layers take at most at a time.

        Parameters
        ----------
        lead : tuple of int
            Dates and bands.
        side : int
            Pixels a side of the image to try.

        Returns
        -------
        float
            Bytes; the input is not counted.
        """
        from cubekit.nn.activations import activation_bytes

        x = torch.zeros((1, side, side, *lead), device=self.device).permute(0, 3, 4, 1, 2)
        extra: dict[str, Tensor] = {"doy": self.prepared.inputs.doy[None]} if "doy" in self._takes else {}
        return activation_bytes(lambda: self.network(x, **extra)) / side**2


def forward_of(model: Any, kind: Kind, coding: Encoding = PHYSICAL) -> Any:
    """Return what predicts a window with a model.

    Parameters
    ----------
    model : PatchModel
        With ``values(x)``, or with the network and card of a `cubekit.training.bundle.Model`.
    kind : {"class", "fractions", "value"}
        What it gives.
    coding : Encoding, optional
        Of the numbers, for models that are `prepared_here`; the others take physical ones.

    Returns
    -------
    callable
        Takes ``[(t, c, h, w), …]``, gives ``(k, h, w)``.
    """
    if not prepared_here(model):
        if hasattr(model, "values"):
            return _Values(model)
        from cubekit.prediction.fusion import FusionForward

        return FusionForward(model.network)
    inputs = SeriesInput(model.card.dates(), model.card.normalisation)
    temperature = getattr(model, "temperature", None) or getattr(model.card, "temperature", None) or 1.0
    rescale = getattr(model.card, "task", None) == "forecast"
    return PatchForward(
        model.network, inputs, kind, coding=coding, temperature=float(temperature), rescale=rescale
    )


def prepared_here(model: Any) -> bool:
    """Tell whether a model takes its numbers as they are stored, and does not prepare them itself.

    Parameters
    ----------
    model : PatchModel
        Any.

    Returns
    -------
    bool
        Whether `forward_of` makes a `PatchForward` of it.
    """
    return not hasattr(model, "values") and getattr(model.card, "task", None) != "fuse"


class _Values:
    """A model that does its own preprocessing."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, windows: Sequence[FloatArray]) -> FloatArray:
        values: Array = np.asarray(self.model.values(*[window[None] for window in windows]))
        if values.ndim < 3 or len(values) != 1:  # noqa: PLR2004  (n, h, w)
            raise PredictionError(f"the model returned shape {values.shape}, expected (1, k, h, w)")
        return (values[0] if values.ndim == 4 else values).astype("float32")  # noqa: PLR2004  (n, k, h, w)


def pixel_bytes(models: Sequence[Any], lead: tuple[int, int], itemsize: int, multiple: int) -> float | None:
    """Count what a pixel of a window takes: its numbers, stored and as floats, and the layers.

    Parameters
    ----------
    models : sequence of PatchModel
        One at a time predicts; the heaviest counts.
    lead : tuple of int
        Dates and bands.
    itemsize : int
        Bytes of a stored number.
    multiple : int
        What the sides of the network's images divide by.

    Returns
    -------
    float or None
        Bytes; None for models that prepare their numbers themselves, whose layers are not seen.
    """
    if not all(map(prepared_here, models)):
        return None
    side = -(-PROBE // multiple) * multiple
    layers = []
    for model in models:
        key = (model_digest(model), *lead, side)
        if key not in _LAYERS:
            _LAYERS[key] = forward_of(model, "value").layer_bytes(lead, side)
        layers.append(_LAYERS[key])
    return prod(lead) * (itemsize + 4) + max(layers)


_LAYERS: dict[tuple[object, ...], float] = {}
_MEASURED: dict[tuple[object, ...], Reach] = {}
"""What was measured in this process, by the model's digest."""


def reach_of(model: Any, inputs: Sequence[tuple[int, ...]]) -> Reach:
    """Return how far a model's network looks: as the model or its network says, or else as measured now.

    Parameters
    ----------
    model : PatchModel
        ``reach`` is taken where it has one, then ``reach_over(steps)`` of its ``network``; else that is
        measured, which takes seconds; a model without either counts as unbounded.
    inputs : sequence of tuple of int
        See `cubekit.nn.reach.measure_reach`.

    Returns
    -------
    Reach
        Halo and multiple.
    """
    for holder in (model, getattr(model, "card", None)):
        if isinstance(getattr(holder, "reach", None), Reach):
            return holder.reach  # type: ignore[no-any-return, union-attr]
    network: Any = getattr(model, "network", None)
    if hasattr(network, "reach_over"):
        said: Reach = network.reach_over(inputs[0][0])
        return said
    if isinstance(network, nn.Module):
        key = (model_digest(model), *inputs)
        if key not in _MEASURED:
            _MEASURED[key] = measure_reach(network, inputs)
        return _MEASURED[key]
    return Reach(halo=None, multiple=int(getattr(model, "multiple", 1)))
