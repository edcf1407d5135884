"""Long short-term memory over the dates of a pixel."""

import torch
from torch import Tensor, nn

from cubekit.nn.registry import register
from cubekit.nn.series import check_series, observed_dates


@register(
    "lstm",
    task="classify",
    form="series",
    paper="Hochreiter & Schmidhuber 1997, Neural Computation 9(8), https://doi.org/10.1162/neco.1997.9.8.1735",
)
class LSTMClassifier(nn.Module):
    """Two-layer LSTM whose last state is classified.

    One direction, zero initial state, dropout between the layers; the output at the last observed date goes
    through one linear layer. Dates that are masked are skipped: the state passes them unchanged, so their
    values have no influence. The number of dates is free. A series without any observed date gets the logits
    of the zero state. With 20 bands and 5 classes the network has 209,541 parameters (one layer: 77,445).

    Parameters
    ----------
    bands : int
        Number of bands ``c``.
    classes : int
        Number of classes.
    steps : int, optional
        Number of dates in training; the network takes any.
    dropout : float
        Dropout between the layers; without effect when there is one layer.
    hidden : int
        Width of the state.
    layers : int
        Number of stacked layers.

    References
    ----------
    Hochreiter and Schmidhuber (1997), Long short-term memory, Neural Computation 9(8),
    doi:10.1162/neco.1997.9.8.1735.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        steps: int | None = None,
        dropout: float = 0.2,
        hidden: int = 128,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.bands, self.steps = bands, steps
        between = dropout if layers > 1 else 0.0  # torch warns about dropout that can never apply
        self.lstm = nn.LSTM(bands, hidden, num_layers=layers, batch_first=True, dropout=between)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Classify series.

        Parameters
        ----------
        x : Tensor
            Standardised series, float32, shape ``(n, t, c)``.
        mask : Tensor, optional
            True where observed, shape ``(n, t)`` or ``(n, t, c)``; everything is observed when absent.
        doy : Tensor, optional
            Day of year, shape ``(n, t)``; not used, the order of the dates is what counts.

        Returns
        -------
        Tensor
            Logits, float32, shape ``(n, classes)``.
        """
        del doy
        check_series(x, bands=self.bands)
        if mask is None:
            return self._classify(self.lstm(x)[0][:, -1])
        x, dates = observed_dates(x, mask)
        # Observed dates move to the front, in order: running on to the last of them is skipping the others.
        order = torch.argsort(~dates, dim=1, stable=True).unsqueeze(-1)
        states = self.lstm(torch.take_along_dim(x, order, dim=1))[0]
        count = dates.sum(dim=1)
        last = torch.take_along_dim(states, (count - 1).clamp(min=0)[:, None, None], dim=1)[:, 0]
        return self._classify(torch.where(count[:, None] > 0, last, 0.0))

    def _classify(self, state: Tensor) -> Tensor:
        logits: Tensor = self.head(state)
        return logits
