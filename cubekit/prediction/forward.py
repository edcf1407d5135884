"""A patch model as prediction calls it: windows of physical numbers in, shares or values of pixels out."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cubekit.errors import PredictionError
from cubekit.nn.fold import fold_norms
from cubekit.nn.reach import Reach, measure_reach
from cubekit.prediction.outputs import Kind
from cubekit.prediction.rule import STRIP
from cubekit.prediction.shipping import model_digest
from cubekit.tasks.series import SeriesInput
from cubekit.typing import Array, FloatArray


class PatchForward:
    """A network behind the preprocessing it was trained with, for windows of a scene.

    Batch norms are folded, images lie channel by channel in memory on the CPU, nothing is recorded for
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
        temperature: float = 1.0,
        rescale: bool = False,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folded = fold_norms(network).to(self.device)
        self.network = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.inputs = copy.deepcopy(inputs).to(self.device)
        self.kind: Kind = kind
        self.temperature = temperature
        scale = self.inputs.normalisation
        self._scale = (scale.width[0], scale.shift[0]) if rescale else (1.0, 0.0)
        self._takes = inspect.signature(network.forward).parameters

    @torch.inference_mode()
    def __call__(self, windows: Sequence[FloatArray]) -> FloatArray:
        """Predict one window.

        Parameters
        ----------
        windows : sequence of numpy.ndarray
            Physical numbers ``(t, c, h, w)``, NaN where there is no data; then ``(a, h, w)`` where the
            network takes ancillary numbers.

        Returns
        -------
        numpy.ndarray
            ``(k, h, w)`` float32, NaN where a band was never observed.
        """
        x, usable = self._prepared(windows[0])
        extra: dict[str, Tensor] = {}
        if "doy" in self._takes:
            extra["doy"] = self.inputs.doy[None]
        if len(windows) > 1 and "ancillary" in self._takes:
            extra["ancillary"] = torch.from_numpy(np.ascontiguousarray(windows[1]))[None].to(self.device)
        raw: Tensor = self.network(x[None], **extra)[0]
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

        x = torch.zeros((1, *lead, side, side), device=self.device)
        extra: dict[str, Tensor] = {"doy": self.inputs.doy[None]} if "doy" in self._takes else {}
        return activation_bytes(lambda: self.network(x, **extra)) / side**2

    def _prepared(self, window: FloatArray) -> tuple[Tensor, Tensor]:
        """Fill gaps and normalise, a strip of rows at a time."""
        steps, bands, height, width = window.shape
        x = torch.empty((steps, bands, height, width), device=self.device)
        usable = torch.empty((height, width), dtype=torch.bool, device=self.device)
        for rows in _strips(height, width):
            part = torch.from_numpy(np.ascontiguousarray(window[:, :, rows])).to(self.device)
            ready = self.inputs(part.permute(2, 3, 0, 1).reshape(-1, steps, bands))
            shape = (rows.stop - rows.start, width)
            x[:, :, rows] = ready["x"].view(*shape, steps, bands).permute(2, 3, 0, 1)
            usable[rows] = ready["usable"].view(shape)
        return x, usable


def _strips(height: int, width: int) -> Iterator[slice]:
    rows = max(1, STRIP // width)
    yield from (slice(first, min(first + rows, height)) for first in range(0, height, rows))


def forward_of(model: Any, kind: Kind) -> Any:
    """Return what predicts a window with a model.

    Parameters
    ----------
    model : PatchModel
        With ``values(x)``, or with the network and card of a `cubekit.training.bundle.Model`.
    kind : {"class", "fractions", "value"}
        What it gives.

    Returns
    -------
    callable
        Takes ``[(t, c, h, w), …]``, gives ``(k, h, w)``.
    """
    if hasattr(model, "values"):
        return _Values(model)
    if model.card.task == "fuse":
        from cubekit.prediction.fusion import FusionForward

        return FusionForward(model.network)
    inputs = SeriesInput(model.card.dates(), model.card.normalisation)
    temperature = getattr(model, "temperature", None) or getattr(model.card, "temperature", None) or 1.0
    rescale = getattr(model.card, "task", None) == "forecast"
    return PatchForward(model.network, inputs, kind, temperature=float(temperature), rescale=rescale)


class _Values:
    """A model that does its own preprocessing."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, windows: Sequence[FloatArray]) -> FloatArray:
        values: Array = np.asarray(self.model.values(*[window[None] for window in windows]))
        if values.ndim < 3 or len(values) != 1:  # noqa: PLR2004  (n, h, w)
            raise PredictionError(f"the model returned shape {values.shape}, expected (1, k, h, w)")
        return (values[0] if values.ndim == 4 else values).astype("float32")  # noqa: PLR2004  (n, k, h, w)


_MEASURED: dict[tuple[object, ...], Reach] = {}
"""What was measured in this process, by the model's digest."""


def reach_of(model: Any, inputs: Sequence[tuple[int, ...]]) -> Reach:
    """Return how far a model's network looks: as its bundle says, or else as measured now.

    Parameters
    ----------
    model : PatchModel
        ``reach`` is taken where it has one; else its ``network`` is measured; a model without either counts
        as unbounded.
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
    if isinstance(getattr(model, "network", None), nn.Module):
        key = (model_digest(model), *inputs)
        if key not in _MEASURED:
            _MEASURED[key] = measure_reach(model.network, inputs)
        return _MEASURED[key]
    return Reach(halo=None, multiple=int(getattr(model, "multiple", 1)))
