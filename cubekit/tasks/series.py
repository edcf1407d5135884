"""What a model does to series and patches before its network sees them: fill gaps in time, then normalise."""

import numpy as np
import torch
from torch import Tensor, nn

from cubekit.batching.decode import day_of_year
from cubekit.batching.normalise import Normalisation
from cubekit.typing import Array

PATCH_AXES = 5
"""Number of axes of patches: (n, t, c, h, w)."""


def interpolate_gaps(x: Tensor, days: Tensor) -> tuple[Tensor, Tensor]:
    """Fill gaps of pixel series in time, each band on its own.

    Parameters
    ----------
    x : torch.Tensor
        Physical values ``(n, t, c)``, float; NaN where there is no data. Not changed.
    days : torch.Tensor
        Time of each step ``(t,)``, increasing, in any unit; float.

    Returns
    -------
    filled : torch.Tensor
        Observed values as they were; between two observations the straight line between them; before the
        first and after the last the nearest observation; 0 in a band without any.
    observed : torch.Tensor
        Where ``x`` holds data, ``(n, t, c)`` bool.
    """
    observed = ~torch.isnan(x)
    if bool(observed.all()):
        return x, observed
    whole = observed.any(dim=2, keepdim=True)
    # Clouds hide all bands at once: then days are carried once a date, not once a band; numbers stay equal.
    seen = whole if bool((whole == observed).all()) else observed
    start, since = _carry(x, seen, days, range(x.shape[1]))
    stop, until = _carry(x, seen, days, range(x.shape[1] - 1, -1, -1))
    share = (days[None, :, None] - since) / (until - since)
    line = start + torch.where(torch.isnan(share), 0.0, share) * (stop - start)
    nearest = torch.where(torch.isnan(start), stop, start)
    filled = torch.where(torch.isnan(line), nearest, line)
    filled = torch.where(torch.isnan(filled), 0.0, filled)
    return torch.where(observed, x, filled), observed


def _carry(x: Tensor, observed: Tensor, days: Tensor, order: range) -> tuple[Tensor, Tensor]:
    """Carry the last observation, and its day, along the steps in the given order; NaN before the first.

    `observed` is (n, t, c), or (n, t, 1) where bands are observed at the same dates; the days are then too.
    """
    values, times = torch.empty_like(x), x.new_empty(observed.shape)
    value, time = torch.full_like(x[:, 0], torch.nan), x.new_full(observed[:, 0].shape, torch.nan)
    for step in order:  # a few dozen steps over many thousand series; faster than gathering by index
        value = torch.where(observed[:, step], x[:, step], value)
        time = torch.where(observed[:, step], days[step], time)
        values[:, step], times[:, step] = value, time
    return values, times


class SeriesInput(nn.Module):
    """Turn physical pixel series with gaps into what a network takes.

    The same module serves training and prediction, so the two cannot differ. It learns nothing.

    Parameters
    ----------
    times : numpy.ndarray
        Dates of the steps ``(t,)``, datetime64.
    normalisation : Normalisation
        Applied after gaps are filled.
    """

    days: Tensor
    doy: Tensor

    def __init__(self, times: Array, normalisation: Normalisation) -> None:
        super().__init__()
        self.normalisation = normalisation
        dates = times.astype("datetime64[s]")
        days = (dates - dates[0]).astype(np.float64) / 86400
        self.register_buffer("days", torch.from_numpy(days.astype(np.float32)), persistent=False)
        doy = torch.from_numpy(day_of_year(times).astype(np.int64))
        self.register_buffer("doy", doy, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Fill and normalise.

        Parameters
        ----------
        x : torch.Tensor
            Physical values, series ``(n, t, c)`` or patches ``(n, t, c, h, w)``, float32, NaN where there is
            no data. The pixels of a patch are series that do not know of each other.

        Returns
        -------
        dict
            ``x``, of the same shape, normalised, without gaps; ``mask``, bool, of the same shape, true where
            observed; ``doy`` ``(n, t)`` int64, day of the year from 1; ``usable`` ``(n,)`` or ``(n, h, w)``
            bool, false where a band was never observed: part of such a series is invented, so its output
            must be nodata.
        """
        if x.ndim == PATCH_AXES:
            return self._patches(x)
        filled, observed = interpolate_gaps(x, self.days)
        seen = observed.any(dim=1, keepdim=True)
        scaled = self.normalisation.apply(filled)
        return {
            "x": torch.where(seen, scaled, 0.0),
            "mask": observed,
            "doy": self.doy.expand(x.shape[0], -1),
            "usable": seen.all(dim=(1, 2)),
        }

    def _patches(self, x: Tensor) -> dict[str, Tensor]:
        """Treat every pixel as a series of its own."""
        n, steps, bands, rows, columns = x.shape
        ready = self(x.permute(0, 3, 4, 1, 2).reshape(-1, steps, bands))
        back = {
            name: ready[name].reshape(n, rows, columns, steps, bands).permute(0, 3, 4, 1, 2)
            for name in ("x", "mask")
        }
        return {
            **back,
            "doy": self.doy.expand(n, -1),
            "usable": ready["usable"].reshape(n, rows, columns),
        }
