"""DeepLabv3+: dilated residual encoder, pyramid of dilations, light decoder."""

import torch
from torch import Tensor, nn

from cubekit.nn.patches import fold_time, pad_to_multiple
from cubekit.nn.registry import register

_ASPP, _LOW = 256, 48
_RATES = (6, 12, 18)


@register(
    "deeplabv3plus",
    task="classify",
    form="patches",
    paper="Chen et al. 2018, ECCV, https://doi.org/10.1007/978-3-030-01234-2_49",
)
class DeepLabV3Plus(nn.Module):
    """Encoder with atrous spatial pyramid pooling and a decoder that sharpens edges, for patches.

    A residual encoder of 18 layers halves the resolution four times (its last stage is dilated instead),
    five parallel branches look at scales from one pixel of 1/16 resolution to the whole patch, and the
    decoder joins the result with the maps of 1/4 resolution: ``(n, t * c, h, w) -> (n, 256, h/16, w/16) ->
    (n, classes, h, w)``. The dates of a patch enter as channels. The encoder is that of He et al. 2016
    (https://doi.org/10.1109/CVPR.2016.90) with fresh weights.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    classes : int
        Number of classes.
    steps : int, optional
        Number of dates, ``t``.
    dropout : float, optional
        Share of values dropped after the pyramid while training.
    width : int, optional
        Channels of the first stage; 64 in the paper. The four stages have 1, 2, 4 and 8 times as many.
    image_pooling : bool, optional
        Keep the branch that averages the whole patch, as the paper has it. It makes a pixel depend on the
        whole patch, so that tiled prediction depends on the tiles, and it cannot train on a batch of one.

    Attributes
    ----------
    multiple : int
        Sides are padded to a multiple of this.
    """

    multiple = 16

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        steps: int = 1,
        dropout: float = 0.1,
        width: int = 64,
        image_pooling: bool = True,
    ) -> None:
        super().__init__()
        self.channels = bands * steps
        self.stem = nn.Sequential(
            *_unit(self.channels, width, kernel=7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)
        )
        self.low = nn.Sequential(_Residual(width, width), _Residual(width, width))
        self.deep = nn.Sequential(
            _Residual(width, 2 * width, stride=2),
            _Residual(2 * width, 2 * width),
            _Residual(2 * width, 4 * width, stride=2),
            _Residual(4 * width, 4 * width),
            _Residual(4 * width, 8 * width, dilation=2),
            _Residual(8 * width, 8 * width, dilation=2),
        )
        self.pyramid = _Pyramid(8 * width, image_pooling=image_pooling)
        self.drop = nn.Dropout(dropout)
        self.squeeze = nn.Sequential(*_unit(width, _LOW, kernel=1))
        self.decode = nn.Sequential(*_unit(_ASPP + _LOW, _ASPP), *_unit(_ASPP, _ASPP))
        self.head = nn.Conv2d(_ASPP, classes, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Score the classes of every pixel.

        Parameters
        ----------
        x : torch.Tensor
            Patches ``(n, t, c, h, w)`` or ``(n, t * c, h, w)``, float, normalised, gaps filled; any size.
        mask : torch.Tensor, optional
            Not used: gaps are filled before.
        doy : torch.Tensor, optional
            Not used: dates enter by their order.

        Returns
        -------
        torch.Tensor
            Logits ``(n, classes, h, w)``.

        Raises
        ------
        OptionError
            If the patches have another number of channels than the network.
        """
        del mask, doy
        image = pad_to_multiple(fold_time(x, channels=self.channels), self.multiple)
        low = self.low(self.stem(image))
        context = _resize(self.drop(self.pyramid(self.deep(low))), low)
        logits = self.head(self.decode(torch.cat([context, self.squeeze(low)], dim=1)))
        return _resize(logits, image)[..., : x.shape[-2], : x.shape[-1]]


class _Pyramid(nn.Module):
    """Branches of growing dilation, and the mean of the patch, joined to 256 channels."""

    def __init__(self, channels: int, *, image_pooling: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*_unit(channels, _ASPP, kernel=1))])
        for rate in _RATES:
            self.branches.append(nn.Sequential(*_unit(channels, _ASPP, dilation=rate)))
        self.pool = nn.Sequential(*_unit(channels, _ASPP, kernel=1)) if image_pooling else None
        inputs = (len(self.branches) + image_pooling) * _ASPP
        self.join = nn.Sequential(*_unit(inputs, _ASPP, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        if self.pool is not None:
            maps.append(self.pool(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:]))
        joined: Tensor = self.join(torch.cat(maps, dim=1))
        return joined


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        second = _unit(outputs, outputs, dilation=dilation)[:2]
        self.body = nn.Sequential(*_unit(inputs, outputs, stride=stride, dilation=dilation), *second)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*_unit(inputs, outputs, kernel=1, stride=stride)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def _unit(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> tuple[nn.Module, ...]:
    """Convolution that keeps the size (before striding), batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
