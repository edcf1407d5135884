"""Honest probabilities: one number that logits are divided by, fitted on validation samples."""

from typing import Any

import torch
from torch import Tensor

from cubekit.tasks.classify import IGNORED, Classifier

LEAST, MOST = 0.05, 20.0
"""Temperatures beyond these say that something else is wrong."""


def fit_temperature(model: Classifier, stream: Any) -> float:
    """Find the temperature under which validation labels are likeliest (Guo et al. 2017).

    The class of a sample does not change, only how sure the model says it is.

    Parameters
    ----------
    model : Classifier
        Trained, in evaluation mode.
    stream : iterable
        Validation batches.

    Returns
    -------
    float
        Above 1 for a model that was too sure; 1 if there is nothing to fit.

    References
    ----------
    https://doi.org/10.48550/arXiv.1706.04599
    """
    logits, labels = _collect(model, stream)
    if not len(labels):
        return 1.0
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(closure)  # type: ignore[no-untyped-call]
    found = float(log_temperature.detach().exp().clamp(LEAST, MOST))
    return found if found == found else 1.0  # noqa: PLR0124  (NaN)


def _collect(model: Classifier, stream: Any) -> tuple[Tensor, Tensor]:
    """Return logits ``(m, K)`` and labels ``(m,)`` of everything that is labelled."""
    logits, labels = [], []
    device = model.inputs.days.device
    with torch.inference_mode():
        for batch in stream:
            results = model({"x": batch["x"].to(device)})
            y = torch.where(results["usable"].cpu(), batch["y"], IGNORED)
            scores = results["logits"].double().cpu().movedim(1, -1)
            logits.append(scores[y != IGNORED])
            labels.append(y[y != IGNORED])
    return torch.cat(logits).clone(), torch.cat(labels).clone()
