"""U-TAE: a U-Net over every date, collapsed in time by attention learned at its coarsest scale."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError
from cubekit.nn.ltae import date_positions, position_table
from cubekit.nn.patches import pad_to_multiple
from cubekit.nn.registry import register

_ENCODER, _DECODER = (64, 64, 64, 128), (32, 32, 64, 128)
_MODEL, _HEADS, _KEY = 256, 16, 4
_MULTIPLE, _SMALLEST = 8, 16  # the coarsest scale needs two pixels to mirror


@register(
    "utae",
    task="classify",
    form="patches",
    paper="Garnot & Landrieu 2021, ICCV, https://doi.org/10.1109/ICCV48922.2021.00483",
)
class UTAE(nn.Module):
    """U-Net with temporal attention, for the classes of patches of any number of dates.

    One encoder sees every date alone, ``(n, t, c, h, w) -> (n, t, 128, h / 8, w / 8)``. Temporal attention
    with 16 heads collapses the coarsest scale; its weights, enlarged, collapse the finer ones group of
    channels by group, and a decoder joins the scales. Masked dates are not encoded and get the weight zero.
    With 10 bands and 20 classes 1,087,220 parameters. After Garnot and Landrieu 2021
    (https://doi.org/10.1109/ICCV48922.2021.00483).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    classes : int
        Number of classes.
    steps : int, optional
        Number of dates in training; the network takes any.
    dropout : float, optional
        Share of values dropped after the attention while training; half of it on the attention.

    Notes
    -----
    Two differences to the authors' code: the input of the attention is normalised date by date, so that
    masked dates have no influence, and the last layer is a plain convolution, so that logits may be negative.
    Group norms average over whole images: a value depends on the whole tile.
    """

    def __init__(self, *, bands: int, classes: int, steps: int | None = None, dropout: float = 0.2) -> None:
        super().__init__()
        self.bands, self.steps = bands, steps
        self.stem = nn.Sequential(*_grouped(bands, _ENCODER[0]), *_grouped(_ENCODER[0], _ENCODER[0]))
        self.down = nn.ModuleList(_Down(a, b) for a, b in pairwise(_ENCODER))
        self.attention = _Attention(dropout)
        levels = zip(_DECODER[:0:-1], _DECODER[-2::-1], _ENCODER[-2::-1], strict=True)
        self.up = nn.ModuleList(_Up(inputs, outputs, skip) for inputs, outputs, skip in levels)
        self.head = nn.Sequential(
            *_plain(32, 32), nn.Conv2d(32, classes, 3, padding=1, padding_mode="reflect")
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Score the classes of every pixel.

        Parameters
        ----------
        x : torch.Tensor
            Patches ``(n, t, c, h, w)``, float, normalised, gaps filled; any size and number of dates.
        mask : torch.Tensor, optional
            True where a date was observed, ``(n, t)``; every date is when absent.
        doy : torch.Tensor, optional
            Day of year ``(n, t)``; as for :class:`cubekit.nn.ltae.LTAE`.

        Returns
        -------
        torch.Tensor
            Logits ``(n, classes, h, w)``.

        Raises
        ------
        OptionError
            If shapes do not fit, or a patch has no observed date.
        """
        dates = self._check(x, mask)
        images = pad_to_multiple(x[dates], _MULTIPLE, smallest=_SMALLEST)
        maps = [self.stem(images)]
        for down in self.down:
            maps.append(down(maps[-1]))
        coarse = _spread(maps.pop(), dates)
        features, weights = self.attention(coarse, dates, date_positions(dates, doy))
        for up in self.up:
            features = up(features, _collapse(_spread(maps.pop(), dates), weights))
        logits: Tensor = self.head(features)
        return logits[..., : x.shape[-2], : x.shape[-1]]

    def _check(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Give the observed dates, bool ``(n, t)``."""
        if x.ndim != 5 or x.shape[2] != self.bands:  # noqa: PLR2004 - (n, t, c, h, w)
            raise OptionError(f"x has shape {tuple(x.shape)}, expected (n, t, {self.bands}, h, w).")
        if mask is None:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if mask.shape != x.shape[:2] or not bool(mask.any(dim=1).all()):
            raise OptionError(
                f"mask has shape {tuple(mask.shape)}, expected {tuple(x.shape[:2])} with one observed date "
                "or more in every patch."
            )
        return mask.bool()


class _Attention(nn.Module):
    """Collapse dates with 16 learned queries; values are the channels, one group for each head."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        channels = _ENCODER[-1]
        self.norm_in = nn.GroupNorm(_HEADS, channels)
        self.project = nn.Linear(channels, _MODEL)
        self.key = nn.Linear(_MODEL, _HEADS * _KEY)
        self.query = nn.Parameter(torch.empty(_HEADS, _KEY))
        for weight in (self.key.weight, self.query):
            nn.init.normal_(weight, std=math.sqrt(2 / _KEY))
        self.drop_weights = nn.Dropout(dropout / 2)
        self.mlp = nn.Sequential(
            nn.Linear(_MODEL, channels),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.GroupNorm(_HEADS, channels),
        )

    def forward(self, x: Tensor, dates: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Collapse ``(n, t, 128, h, w)`` to ``(n, 128, h, w)``; also give weights ``(n, t, 16, h, w)``."""
        n, t, channels, height, width = x.shape
        pixels = x.permute(0, 3, 4, 1, 2)  # (n, h, w, t, c)
        values = self.project(self.norm_in(pixels.reshape(-1, channels))).view(n, height, width, t, _MODEL)
        values = values + position_table(positions).to(x.dtype)[:, None, None]
        keys = self.key(values).view(n, height, width, t, _HEADS, _KEY)
        scores = torch.einsum("nyxthk,hk->nyxth", keys, self.query) / math.sqrt(_KEY)
        scores = scores.masked_fill(~dates[:, None, None, :, None], -torch.inf)
        weights = self.drop_weights(scores.softmax(dim=3))
        groups = values.view(n, height, width, t, _HEADS, _MODEL // _HEADS)
        joined = torch.einsum("nyxth,nyxthd->nyxhd", weights, groups)
        collapsed = self.mlp(joined.reshape(-1, _MODEL)).view(n, height, width, channels)
        return collapsed.permute(0, 3, 1, 2), weights.permute(0, 3, 4, 1, 2)


class _Down(nn.Module):
    """Half the size, then two convolutions, the second beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.halve = nn.Sequential(*_grouped(inputs, inputs, kernel=4, stride=2))
        self.first = nn.Sequential(*_grouped(inputs, outputs))
        self.second = nn.Sequential(*_grouped(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(self.halve(x))
        refined: Tensor = features + self.second(features)
        return refined


class _Up(nn.Module):
    """Twice the size, joined with the collapsed maps of the encoder."""

    def __init__(self, inputs: int, outputs: int, skip: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(nn.Conv2d(skip, skip, 1), nn.BatchNorm2d(skip), nn.ReLU())
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.first = nn.Sequential(*_plain(outputs + skip, outputs))
        self.second = nn.Sequential(*_plain(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        features = self.first(torch.cat([self.grow(x), self.skip(skip)], dim=1))
        refined: Tensor = features + self.second(features)
        return refined


def _grouped(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    """Convolution with group norm: no statistics over dates or samples."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, padding_mode="reflect")
    return convolution, nn.GroupNorm(4, outputs), nn.ReLU()


def _plain(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _spread(maps: Tensor, dates: Tensor) -> Tensor:
    """Put maps of observed dates back among all dates, ``(observed, c, h, w) -> (n, t, c, h, w)``."""
    if bool(dates.all()):
        return maps.view(*dates.shape, *maps.shape[1:])
    everywhere = maps.new_zeros(*dates.shape, *maps.shape[1:])
    everywhere[dates] = maps
    return everywhere


def _collapse(maps: Tensor, weights: Tensor) -> Tensor:
    """Weigh dates of a finer scale, ``(n, t, c, h, w)`` with ``(n, t, heads, h', w')``, and add them up."""
    n, t, channels, height, width = maps.shape
    enlarged = nn.functional.interpolate(
        weights.flatten(0, 1), size=(height, width), mode="bilinear", align_corners=False
    ).view(n, t, _HEADS, 1, height, width)
    groups = maps.view(n, t, _HEADS, channels // _HEADS, height, width)
    return (groups * enlarged).sum(dim=1).flatten(1, 2)
