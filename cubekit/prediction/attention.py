"""Which dates a network with attention looks at, class by class."""

from typing import Any

import numpy as np
import torch
import xarray as xr

from cubekit.batching.samples import Samples
from cubekit.errors import OptionError
from cubekit.tasks.classify import Classifier
from cubekit.training.bundle import BATCH, Model
from cubekit.typing import FloatArray


def date_attention(model: Model, samples: Samples, *, batch: int = BATCH) -> xr.Dataset:
    """Average the attention that a network pays to each date, over the samples of each class.

    Attention tells where the network looked, not by how much the result would change without that date.

    Parameters
    ----------
    model : Model
        Trained, with attention over dates: ``"ltae"``, or a network of your own with a method
        ``attend(x, mask, doy)`` that returns logits and weights ``(n, head, time)``.
    samples : Samples
        Labelled series with the model's bands and dates; better not those it was trained on.
    batch : int, optional
        Series per forward pass.

    Returns
    -------
    xarray.Dataset
        ``weight`` and ``spread`` (category, time) float32: mean over samples and heads, and standard
        deviation over the samples of the mean over heads; ``by_head`` (category, head, time) float32;
        ``samples`` (category) int64. Weights of a sample sum to one over the dates; NaN for a class without
        samples. Class names and colours are in the attributes. Samples that lack a band are left out.

    Raises
    ------
    OptionError
        If the network has no attention over dates.
    ModelMismatchError
        If bands, dates or classes of the samples are not the model's.

    Examples
    --------
    >>> seen = date_attention(model, test)  # doctest: +SKIP
    >>> seen.weight.sel(category="forest").to_series().nlargest(3)  # doctest: +SKIP
    """
    predictor = model.predictor
    network: Any = model.network
    if not isinstance(predictor, Classifier) or not hasattr(network, "attend"):
        raise OptionError(
            f"Network {model.card.network!r} has no attention over dates: train 'ltae' to see which dates "
            "decide."
        )
    model.check_samples(samples)
    x = samples.physical()
    parts: list[FloatArray] = []
    usable: list[FloatArray] = []
    device = next(network.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(x), batch):
            ready = predictor.inputs(torch.from_numpy(x[start : start + batch]).to(device))
            _, weights = network.attend(ready["x"], None, ready["doy"])
            parts.append(weights.float().cpu().numpy())
            usable.append(ready["usable"].cpu().numpy())
    return _by_class(np.concatenate(parts), np.concatenate(usable).astype(bool), samples)


def _by_class(weights: FloatArray, usable: FloatArray, samples: Samples) -> xr.Dataset:
    """Average weights ``(n, head, time)`` over the samples of each class."""
    _, heads, steps = weights.shape
    count = len(samples.classes)
    by_head = np.full((count, heads, steps), np.nan, "float32")
    spread = np.full((count, steps), np.nan, "float32")
    number = np.zeros(count, "int64")
    for index in range(count):
        own = weights[usable & (samples.y == index)]
        number[index] = len(own)
        if len(own):
            by_head[index], spread[index] = own.mean(axis=0), own.mean(axis=1).std(axis=0)
    return xr.Dataset(
        {
            "weight": (("category", "time"), by_head.mean(axis=1)),
            "spread": (("category", "time"), spread),
            "by_head": (("category", "head", "time"), by_head),
            "samples": ("category", number),
        },
        coords={"category": list(samples.classes.names), "time": samples.times},
        attrs={"long_name": "attention by date", **samples.classes.attrs()},
    )
