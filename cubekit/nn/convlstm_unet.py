"""ConvLSTM-UNet: next year's map from the maps of past years."""

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError
from cubekit.nn.reach import Reach
from cubekit.nn.registry import register

_SMALLEST = 4


@register(
    "convlstm_unet",
    task="forecast",
    form="patches",
    paper="ConvLSTM: Shi et al. 2015, NeurIPS, https://doi.org/10.48550/arXiv.1506.04214; "
    "U-Net: Ronneberger et al. 2015, MICCAI, https://doi.org/10.1007/978-3-319-24574-4_28",
)
class ConvLSTMUNet(nn.Module):
    """U-Net whose bottleneck remembers the years, for the next map of a single-channel series.

    An encoder with two poolings sees each year alone, a convolutional LSTM at quarter resolution runs over
    the years, and a decoder joins its last state with the half-resolution features and the raw map of the
    last year: ``(n, t, 1, h, w) -> (n, 64, h/4, w/4) -> (n, h, w)``. Any number of years and any side from
    4 up. 412,753 parameters in 64 state tensors, under the names of the published weight files. After Shi
    et al. 2015 (https://doi.org/10.48550/arXiv.1506.04214) and Ronneberger et al. 2015
    (https://doi.org/10.1007/978-3-319-24574-4_28).

    Parameters
    ----------
    bands : int, optional
        Number of channels; 1 is the only one that the layout knows.
    steps : int, optional
        Number of years in training; the network takes any.
    dropout : float, optional
        Share of channels of the last state, and of the half-resolution features, that training leaves out
        (and Monte-Carlo dropout draws from); holds no weights, so files fit with and without it.
    residual : bool, optional
        Whether the network draws the change from the last map instead of the next map itself; the same
        weights in the same places, but those trained one way mean nothing the other way.

    Raises
    ------
    OptionError
        If `bands` is not 1, or `dropout` is no share below 1.
    """

    def __init__(
        self, *, bands: int = 1, steps: int | None = None, dropout: float = 0.0, residual: bool = False
    ) -> None:
        super().__init__()
        if bands != 1:
            raise OptionError(f"bands={bands}: convlstm_unet maps one channel. Train one network per index.")
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout={dropout!r} must be a share from 0 to below 1.")
        self.steps, self.residual = steps, residual
        self.enc1 = _Block(1, 32)
        self.enc2 = _Block(32, 64)
        self.conv_lstm = _ConvLSTM(64, 64)
        self.up1 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.dec1 = _Block(32 + 64, 32)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.dec2 = _Block(16 + 1, 16)
        self.out_conv = nn.Conv2d(16, 1, 1)
        self.drop_state, self.drop_half = nn.Dropout2d(dropout), nn.Dropout2d(dropout)

    def reach_over(self, steps: int) -> Reach:
        """Say how far the network looks, as `cubekit.nn.reach.measure_reach` finds too.

        Parameters
        ----------
        steps : int
            Number of years.

        Returns
        -------
        Reach
            Each year adds a convolution of the cell, at quarter resolution.
        """
        return Reach(halo=14 + 4 * steps, multiple=4)

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Predict the map that follows.

        Parameters
        ----------
        x : torch.Tensor
            Maps of the past years ``(n, t, 1, h, w)``, oldest first, float, gaps filled.
        mask : torch.Tensor, optional
            Not used: gaps are filled before.
        doy : torch.Tensor, optional
            Not used: the maps are one year apart.

        Returns
        -------
        torch.Tensor
            Predicted map ``(n, h, w)``, in the unit of the input.

        Raises
        ------
        OptionError
            If the shape is another one, or a side is below 4 pixels.
        """
        del mask, doy
        if x.ndim != 5 or x.shape[1] < 1 or x.shape[2] != 1 or min(x.shape[-2:]) < _SMALLEST:  # noqa: PLR2004
            raise OptionError(
                f"x has shape {tuple(x.shape)}, expected (n, t, 1, h, w) with at least one year and sides "
                f"from {_SMALLEST} pixels up."
            )
        # One year at a time: in training the batch statistics are those of a year, not of all years together.
        halves = [self.enc2(nn.functional.max_pool2d(self.enc1(year), 2)) for year in x.unbind(dim=1)]
        state = self.conv_lstm(torch.stack([nn.functional.max_pool2d(half, 2) for half in halves], dim=1))
        half = self.drop_half(self.dec1(_join(self.up1(self.drop_state(state)), halves[-1])))
        full = self.dec2(_join(self.up2(half), x[:, -1]))
        predicted: Tensor = self.out_conv(full)
        return (predicted + x[:, -1] if self.residual else predicted).squeeze(1)


class _Block(nn.Module):
    """Two times 3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x)
        return features


class _Cell(nn.Module):
    """One step of a convolutional LSTM; gates in the order input, forget, output, candidate."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.conv(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory


class _ConvLSTM(nn.Module):
    """The last state after running over the dates, ``(n, t, c, h, w) -> (n, hidden, h, w)``."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = _Cell(inputs, hidden)

    def forward(self, x: Tensor) -> Tensor:
        hidden = memory = x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])
        for step in x.unbind(dim=1):
            hidden, memory = self.cell(step, hidden, memory)
        return hidden


def _join(upsampled: Tensor, skip: Tensor) -> Tensor:
    """Bring a map to the size of its skip connection (zeros around it, or its centre) and join both."""
    rows, columns = skip.shape[-2] - upsampled.shape[-2], skip.shape[-1] - upsampled.shape[-1]
    # Negative padding crops; floor halves go before in either case.
    top, left = int(rows / 2), int(columns / 2)
    return torch.cat([nn.functional.pad(upsampled, (left, columns - left, top, rows - top)), skip], dim=1)
