"""What every series network does with missing dates before its first layer."""

import torch
from torch import Tensor

from cubekit.errors import OptionError


def observed_dates(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Blank out what is masked and say which dates hold anything.

    Parameters
    ----------
    x : Tensor
        Series, shape ``(n, t, c)``, float; may hold NaN where masked.
    mask : Tensor, optional
        True where observed, shape ``(n, t)`` for whole dates or ``(n, t, c)`` for single values; everything
        is observed when absent.

    Returns
    -------
    x : Tensor
        The series with zeros at masked values, shape ``(n, t, c)``: whatever stood there has no influence.
    dates : Tensor
        True where at least one band is observed, bool, shape ``(n, t)``.

    Raises
    ------
    OptionError
        If the shapes do not fit.
    """
    if mask is None:
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if mask.shape not in (x.shape, x.shape[:2]):
        msg = f"mask has shape {tuple(mask.shape)}, the series {tuple(x.shape)}. Pass (n, t) or (n, t, c)."
        raise OptionError(msg)
    values = (mask if mask.ndim == x.ndim else mask.unsqueeze(-1)).bool()
    return x.masked_fill(~values, 0.0), values.any(dim=-1)


def check_series(x: Tensor, *, bands: int, steps: int | None = None) -> None:
    """Raise unless a batch of series has the shape a network was built for.

    Parameters
    ----------
    x : Tensor
        Series, shape ``(n, t, c)``.
    bands : int
        Expected number of bands.
    steps : int, optional
        Expected number of dates; any number when absent.

    Raises
    ------
    OptionError
        With the shape found and the shape expected.
    """
    if x.ndim == 3 and x.shape[2] == bands and steps in (None, x.shape[1]):  # noqa: PLR2004 - (n, t, c)
        return
    msg = f"x has shape {tuple(x.shape)}, expected (n, {steps or 't'}, {bands}): samples, dates, bands."
    raise OptionError(msg)
