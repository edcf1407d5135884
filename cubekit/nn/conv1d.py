"""Two short convolution branches over the dates of a pixel."""

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError
from cubekit.nn.registry import register
from cubekit.nn.series import check_series, observed_dates


@register(
    "conv1d",
    task="classify",
    form="series",
    paper="after Pelletier et al. 2019, Remote Sensing 11(5) 523, https://doi.org/10.3390/rs11050523",
)
class PixelConv1d(nn.Module):
    """Parallel 1-D convolutions of width 3 and 5 over time, pooled by two and classified.

    A batch norm over the bands scales the input, so raw reflectances are fine. Each branch is convolution,
    BN, ReLU, dropout, max pool 2, convolution, BN, ReLU: ``(n, c, t) -> (n, hidden, t // 2)``; the two are
    flattened, joined and classified through 128 units. With 10 bands, 13 dates and 10 classes the network
    has 138,654 parameters. The number of dates is fixed by the head. Masked dates are left out of the input
    statistics and enter the branches as zeros, so their values have no influence.

    Parameters
    ----------
    bands : int
        Number of bands ``c``.
    steps : int
        Number of dates ``t``, at least 2.
    classes : int
        Number of classes.
    dropout : float
        Dropout in the branches and before the head; inactive in evaluation.
    hidden : int
        Channels of each branch.

    Raises
    ------
    OptionError
        If `steps` is below 2: nothing would be left after pooling.

    References
    ----------
    Temporal convolution for land cover follows Pelletier, Webb and Petitjean (2019), Remote Sensing 11(5)
    523, doi:10.3390/rs11050523; the two-branch layout has no paper of its own.
    """

    def __init__(
        self, *, bands: int, steps: int, classes: int, dropout: float = 0.2, hidden: int = 64
    ) -> None:
        super().__init__()
        if steps < 2:  # noqa: PLR2004 - the pool halves
            msg = f"steps={steps} leaves nothing after pooling by two. Pass at least 2 dates."
            raise OptionError(msg)
        self.bands, self.steps = bands, steps
        self.scale = nn.BatchNorm1d(bands)
        self.branches = nn.ModuleList(_branch(bands, hidden, kernel=k, dropout=dropout) for k in (3, 5))
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * hidden * (steps // 2), 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Classify series.

        Parameters
        ----------
        x : Tensor
            Series, float32, shape ``(n, t, c)``.
        mask : Tensor, optional
            True where observed, shape ``(n, t)`` or ``(n, t, c)``; everything is observed when absent.
        doy : Tensor, optional
            Day of year, shape ``(n, t)``; not used, the calendar is the same for every series.

        Returns
        -------
        Tensor
            Logits, float32, shape ``(n, classes)``.

        Raises
        ------
        OptionError
            If the series have another number of bands or dates than the network.
        """
        del doy
        check_series(x, bands=self.bands, steps=self.steps)
        scaled = self.scale(x.transpose(1, 2)) if mask is None else self._scale_observed(x, mask)
        features = torch.cat([branch(scaled).flatten(1) for branch in self.branches], dim=1)
        logits: Tensor = self.head(features)
        return logits

    def _scale_observed(self, x: Tensor, mask: Tensor) -> Tensor:
        """Scale the observed dates only; ``(n, t, c) -> (n, c, t)`` with zeros where masked."""
        x, dates = observed_dates(x, mask)
        scaled = torch.zeros_like(x)
        if dates.any():
            scaled[dates] = self.scale(x[dates])
        if mask.ndim == x.ndim:
            scaled = scaled * mask
        return scaled.transpose(1, 2)


def _branch(bands: int, hidden: int, *, kernel: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(bands, hidden, kernel, padding=kernel // 2),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.MaxPool1d(2),
        nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
    )
