"""U-Net: an encoder and a decoder joined at every scale."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from cubekit.nn.patches import fold_time, pad_to_multiple
from cubekit.nn.reach import Reach
from cubekit.nn.registry import register


@register(
    "unet",
    task="classify",
    form="patches",
    paper="Ronneberger, Fischer & Brox 2015, MICCAI, https://doi.org/10.1007/978-3-319-24574-4_28",
)
class UNet(nn.Module):
    """Convolutional encoder and decoder with skip connections, for the classes of patches.

    Each level is two times 3x3 convolution, batch norm, ReLU; max pooling by two on the way down, a 2x2
    transposed convolution on the way up, where the encoder's map of that scale is joined. The dates of a
    patch enter as channels. Unlike the paper's, the convolutions are zero-padded so that the output has the
    size of the input, and batch norm follows them. Batch norm alone, and no pooling over whole images: a
    pixel depends on nothing farther than ``reach`` pixels away. Three channels, two classes, ``width=64``
    and ``depth=4`` give 31,037,698 parameters.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    classes : int
        Number of classes.
    steps : int, optional
        Number of dates, ``t``.
    dropout : float, optional
        Share of channels dropped at the coarsest scale while training.
    width : int, optional
        Channels at full resolution; they double with every level.
    depth : int, optional
        Number of times the resolution is halved.

    Attributes
    ----------
    multiple : int
        Sides are padded to a multiple of this, ``2 ** depth``.
    reach : int
        Largest distance in pixels, along rows or columns, at which an input value can change an output value.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        steps: int = 1,
        dropout: float = 0.0,
        width: int = 32,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.channels = bands * steps
        self.multiple = 2**depth
        # Two convolutions reach 2 pixels of their scale, on both ways; pooling blocks add their own extent.
        self.reach = sum(4 * 2**level for level in range(depth)) + 2 * 2**depth + 2**depth - 1
        widths = [width * 2**level for level in range(depth + 1)]
        self.stem = _double(self.channels, width)
        self.down = nn.ModuleList(_double(a, b) for a, b in pairwise(widths))
        upward = widths[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(upward))
        self.merge = nn.ModuleList(_double(2 * b, b) for b in upward[1:])
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(width, classes, 1)

    def reach_over(self, steps: int) -> Reach:
        """Say how far the network looks, as `cubekit.nn.reach.measure_reach` finds too.

        Parameters
        ----------
        steps : int
            Number of dates; has no influence.

        Returns
        -------
        Reach
            Counted from the edge of a whole cell of the pooling grid, not from any pixel.
        """
        del steps
        halo = 2  # two convolutions at full resolution; then at each scale, from where its cells begin
        for cell in (2**level for level in range(1, len(self.down) + 1)):
            halo = -(-halo // cell) * cell + 2 * cell
        return Reach(halo=halo + 2 * (self.multiple - 1), multiple=self.multiple)

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
        image = fold_time(x, channels=self.channels)
        maps = [self.stem(pad_to_multiple(image, self.multiple))]
        for down in self.down:
            maps.append(down(self.pool(maps[-1])))
        coarse: Tensor = self.drop(maps.pop())
        for up, merge in zip(self.up, self.merge, strict=True):
            coarse = merge(torch.cat([maps.pop(), up(coarse)], dim=1))
        logits: Tensor = self.head(coarse)
        return logits[..., : x.shape[-2], : x.shape[-1]]


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),  # the norm brings a bias
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
