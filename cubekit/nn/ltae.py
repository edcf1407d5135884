"""Lightweight temporal attention over the dates of a pixel."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError, check_option
from cubekit.nn.registry import register
from cubekit.nn.series import check_series, observed_dates

_EMBEDDED, _MODEL, _HEADS, _KEY = 128, 256, 16, 8
_POSITION = _MODEL // _HEADS
_DAYS = 365.0


@register(
    "ltae",
    task="classify",
    form="series",
    paper="Garnot & Landrieu 2020, AALTD, https://doi.org/10.1007/978-3-030-65742-0_12",
)
class LTAE(nn.Module):
    """Temporal attention with one learned query per head and channel groups as values.

    Every date is embedded (``c -> 64 -> 128``), normalised, projected to 256 channels and given the sines
    and cosines of its position. Sixteen heads each weigh the dates with a learned query and average one
    sixteenth of the channels; the joined result goes through an MLP and a small decoder. Masked dates get
    the weight zero and take no part in batch statistics; with ``norm="date"`` the number of dates is free.
    A series without any observed date is decoded from zeros.

    With 13 dates, 10 bands, 10 classes and ``norm="paper"``: core 106,368 + embedding 9,408 + decoder
    10,858 = 126,634 parameters. With ``norm="date"`` the core has 100,224 for any number of dates.

    Parameters
    ----------
    bands : int
        Number of bands ``c``.
    classes : int
        Number of classes.
    steps : int, optional
        Number of dates; needed for ``norm="paper"``, otherwise any number is taken.
    dropout : float
        Dropout after the MLP of the attention.
    norm : {"date", "paper"}
        Normalise the projection over the channels of each date, or over channels and dates together as the
        authors' code does, which fixes the number of dates and counts masked ones in as constants.

    Raises
    ------
    OptionError
        If ``norm="paper"`` comes without `steps`.

    Notes
    -----
    The embedding is cubekit's: the paper embeds parcels as sets of pixels.

    References
    ----------
    Garnot and Landrieu (2020), Lightweight temporal self-attention for classifying satellite images time
    series, doi:10.1007/978-3-030-65742-0_12.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        steps: int | None = None,
        dropout: float = 0.2,
        norm: Literal["date", "paper"] = "date",
    ) -> None:
        super().__init__()
        check_option("norm", norm, ("date", "paper"))
        if norm == "paper" and steps is None:
            msg = "norm='paper' normalises over dates and needs their number. Pass steps=, or norm='date'."
            raise OptionError(msg)
        self.bands, self.steps, self.norm = bands, steps, norm
        self.embed = nn.Sequential(*_dense(bands, 64), *_dense(64, _EMBEDDED))
        self.norm_in = nn.LayerNorm(_EMBEDDED)
        self.project = nn.Linear(_EMBEDDED, _MODEL)
        self.norm_model = nn.LayerNorm([steps, _MODEL] if norm == "paper" and steps else _MODEL)
        self.key = nn.Linear(_MODEL, _HEADS * _KEY)
        self.query = nn.Parameter(torch.empty(_HEADS, _KEY))
        for weight in (self.key.weight, self.query):
            nn.init.normal_(weight, std=math.sqrt(2 / _KEY))
        self.drop_weights = nn.Dropout(0.1)
        self.mlp = nn.Sequential(*_dense(_MODEL, _EMBEDDED), nn.Dropout(dropout), nn.LayerNorm(_EMBEDDED))
        self.decode = nn.Sequential(*_dense(_EMBEDDED, 64), *_dense(64, 32), nn.Linear(32, classes))

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Classify series.

        Parameters
        ----------
        x : Tensor
            Standardised series, float32, shape ``(n, t, c)``.
        mask : Tensor, optional
            True where observed, shape ``(n, t)`` or ``(n, t, c)``; everything is observed when absent.
        doy : Tensor, optional
            Day of year (or any growing day count), shape ``(n, t)``. Positions are the days since the first
            observed date; a falling day of year starts a new year. Without it positions are 1, 2, 3, ...

        Returns
        -------
        Tensor
            Logits, float32, shape ``(n, classes)``.
        """
        return self.attend(x, mask, doy)[0]

    def attend(
        self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Classify series and show which dates decided.

        Parameters
        ----------
        x, mask, doy : Tensor
            As for :meth:`forward`.

        Returns
        -------
        logits : Tensor
            Shape ``(n, classes)``.
        weights : Tensor
            Attention, shape ``(n, 16, t)``: sums to one over the dates in evaluation, zero at masked dates.
        """
        check_series(x, bands=self.bands, steps=self.steps if self.norm == "paper" else None)
        x, dates = observed_dates(x, mask)
        embedded = self._embed_dates(x, None if mask is None else dates)
        values = self.norm_model(self.project(self.norm_in(embedded)))
        values = values + position_table(date_positions(dates, doy)).to(values.dtype)
        keys = self.key(values).unflatten(-1, (_HEADS, _KEY))
        weights = self._weigh(keys, dates)
        groups = values.unflatten(-1, (_HEADS, _POSITION))
        joined = torch.einsum("nht,nthd->nhd", self.drop_weights(weights), groups).flatten(1)
        return self.decode(self.mlp(joined)), weights

    def _embed_dates(self, x: Tensor, dates: Tensor | None) -> Tensor:
        """Embed observed dates, ``(n, t, c) -> (n, t, 128)``; masked ones stay zero."""
        if dates is None:
            whole: Tensor = self.embed(x.flatten(0, 1)).view(*x.shape[:2], _EMBEDDED)
            return whole
        embedded = x.new_zeros(*x.shape[:2], _EMBEDDED)
        if dates.any():
            embedded[dates] = self.embed(x[dates]).to(embedded.dtype)
        return embedded

    def _weigh(self, keys: Tensor, dates: Tensor) -> Tensor:
        """Softmax over observed dates, ``(n, t, heads, key) -> (n, heads, t)``; all zero where none is."""
        scores = torch.einsum("nthk,hk->nht", keys, self.query) / math.sqrt(_KEY)
        allowed = dates.unsqueeze(1)
        # The lowest finite number instead of -inf: an empty series then gives zeros, not NaN.
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1) * allowed


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()


def date_positions(dates: Tensor, doy: Tensor | None) -> Tensor:
    """Place dates on a line.

    Parameters
    ----------
    dates : Tensor
        True where observed, bool, shape ``(n, t)``.
    doy : Tensor, optional
        Day of year, shape ``(n, t)``; a falling day starts a new year.

    Returns
    -------
    Tensor
        Days since the first observed date, or 1, 2, 3, ... without `doy`; float, shape ``(n, t)``. Those of
        masked dates mean nothing.
    """
    index = torch.arange(dates.shape[1], device=dates.device).expand(dates.shape)
    if doy is None:
        return index + 1.0
    # Each date looks at the last observed one, so that the days of masked dates cannot start a year.
    held = doy.float().take_along_dim(torch.where(dates, index, 0).cummax(dim=1).values, dim=1)
    years = torch.zeros_like(held)
    years[:, 1:] = (held.diff(dim=1) < 0).cumsum(dim=1)
    days = held + _DAYS * years
    return days - days.take_along_dim(dates.int().argmax(dim=1, keepdim=True), dim=1)


def position_table(positions: Tensor) -> Tensor:
    """Code positions as sines and cosines, the same for every head.

    Parameters
    ----------
    positions : Tensor
        Float, shape ``(n, t)``.

    Returns
    -------
    Tensor
        Sixteen numbers, repeated sixteen times, shape ``(n, t, 256)``.
    """
    j = torch.arange(_POSITION, device=positions.device)
    angle = positions.unsqueeze(-1) / 1000.0 ** (2 * (j // 2) / _POSITION)
    table = torch.where(j % 2 == 0, angle.sin(), angle.cos())
    return table.repeat(1, 1, _HEADS)
