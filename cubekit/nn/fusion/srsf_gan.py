"""SRSF-GAN: super-resolution of a coarse image, guided at four scales by a fine one."""

import torch
from torch import Tensor, nn

from cubekit.nn.fusion.blocks import check_images
from cubekit.nn.patches import pad_to_multiple
from cubekit.nn.registry import register

_WIDTH = 64
_MULTIPLE = 8


@register(
    "srsf_gan",
    task="fuse",
    form="image",
    paper="Zhao et al. 2023, IEEE TGRS 61, https://doi.org/10.1109/TGRS.2023.3329115",
)
class SRSFGAN(nn.Module):
    """Generator that raises a coarse image from 1/8 size and takes detail from the fine image at each scale.

    The fine image is taken down to 1/8 of its size and the coarse one, first reduced to that size, up to
    the full one, 64 channels each. At every scale the two are blended where they differ little, refined by
    a dense block and passed on to the next: ``(n, 64, h / 8, w / 8) -> (n, 64, h, w)``. The coarse image of
    the first date is not used. Sides are padded to a multiple of 8. 3,865,764 parameters with 6 bands,
    3,865,506 with 4; the published count holds 320 more that no result depends on. After Zhao et al. 2023
    (https://doi.org/10.1109/TGRS.2023.3329115).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.

    Notes
    -----
    Channel weights average over whole images: a value depends on the whole tile. Training needs batches of
    two or more.
    """

    unbounded, multiple = True, _MULTIPLE

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.head = nn.Conv2d(bands, _WIDTH, 1)
        self.shrink = nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1)
        self.grow = _grow(_WIDTH, _WIDTH)
        self.fine = nn.ModuleList(_Residual(_WIDTH) for _ in range(4))
        self.coarse = nn.ModuleList(_Residual(_WIDTH) for _ in range(4))
        self.blend = _Blend()
        self.first = _Dense()
        self.later = nn.Sequential(nn.Conv2d(2 * _WIDTH, _WIDTH, 1), _Dense())
        self.tail = nn.Conv2d(_WIDTH, bands, 1)

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        """Predict the fine image at the second date.

        Parameters
        ----------
        coarse_t1, coarse_t2, fine_t1 : torch.Tensor
            Images on the fine grid ``(n, c, h, w)``, reflectance between 0 and 1; `coarse_t1` has no
            influence.

        Returns
        -------
        torch.Tensor
            Fine image at the second date ``(n, c, h, w)``, not clipped.

        Raises
        ------
        OptionError
            If the shapes differ or the bands are not those of the network.
        """
        return self.forward_with_auxiliary(coarse_t1, coarse_t2, fine_t1)[0]

    def forward_with_auxiliary(
        self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the fine image, and once more from the coarse image alone, as the loss asks.

        Parameters
        ----------
        coarse_t1, coarse_t2, fine_t1 : torch.Tensor
            As for :meth:`forward`.

        Returns
        -------
        predicted : torch.Tensor
            Fine image at the second date ``(n, c, h, w)``.
        auxiliary : torch.Tensor
            The coarse image of the second date, super-resolved without the fine one ``(n, c, h, w)``.

        Raises
        ------
        OptionError
            If the shapes differ or the bands are not those of the network.
        """
        check_images(coarse_t1, coarse_t2, fine_t1, bands=self.bands)
        height, width = fine_t1.shape[-2:]
        fine, coarse = self._down(pad_to_multiple(fine_t1, _MULTIPLE)), self._up(coarse_t2)
        merged = self.first(self.blend(fine[3], coarse[0]))
        for level, raised in zip(fine[2::-1], coarse[1:], strict=True):
            merged = self.later(torch.cat([self.grow(merged), self.blend(level, raised)], dim=1))
        predicted, auxiliary = self.tail(merged), self.tail(coarse[-1])
        return predicted[..., :height, :width], auxiliary[..., :height, :width]

    def _down(self, fine: Tensor) -> list[Tensor]:
        """Features of the fine image at 1, 1/2, 1/4 and 1/8 of its size."""
        levels = [self.fine[0](self.head(fine))]
        for block in self.fine[1:]:
            levels.append(block(self.shrink(levels[-1])))
        return levels

    def _up(self, coarse: Tensor) -> list[Tensor]:
        """Features of the coarse image at 1/8, 1/4, 1/2 and the whole of the size."""
        padded = pad_to_multiple(coarse, _MULTIPLE)
        size = [side // _MULTIPLE for side in padded.shape[-2:]]
        small = nn.functional.interpolate(padded, size=size, mode="bicubic", align_corners=True)
        levels = [self.coarse[0](self.head(small))]
        for block in self.coarse[1:]:
            levels.append(block(self.grow(levels[-1])))
        return levels


class SRSFGANDiscriminator(nn.Module):
    """Small U-Net that judges every pixel of an image.

    586,705 parameters with 6 bands; the published count holds 369,792 more that no result depends on.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    """

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        widths = ((bands, 16), (16, 32), (32, 64))
        self.keep = nn.ModuleList(nn.Sequential(*_unit(a, b), *_unit(b, b)) for a, b in widths)
        self.halve = nn.ModuleList(nn.Sequential(*_unit(b, b, stride=2)) for _, b in widths)
        self.up = nn.ModuleList(_raise(a, b) for a, b in ((64, 64), (128, 32), (64, 16)))
        self.head = nn.Sequential(
            *_unit(32, 16), *_unit(16, 16), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Judge every pixel.

        Parameters
        ----------
        image : torch.Tensor
            Fine image, true or predicted ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            Scores ``(n, 1, h, w)`` between 0 (predicted) and 1 (true).
        """
        features, skips = pad_to_multiple(image, _MULTIPLE), []
        for keep, halve in zip(self.keep, self.halve, strict=True):
            skips.append(keep(features))
            features = halve(skips[-1])
        for up in self.up:
            features = torch.cat([up(features), skips.pop()], dim=1)
        scores: Tensor = self.head(features)
        return scores[..., : image.shape[-2], : image.shape[-1]]


class _Residual(nn.Module):
    """``LReLU(x + conv(LReLU(conv(x))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x + self.body(x))


class _Blend(nn.Module):
    """Weighted mean of fine and coarse features; the coarse ones gain weight where the two differ."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Conv2d(_WIDTH, 1, 1), nn.BatchNorm2d(1))
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(_WIDTH, 1, 1), nn.BatchNorm2d(1))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        difference = (fine - coarse).abs()
        weight = (self.local(difference) + self.whole(difference)).sigmoid()
        return torch.lerp(fine, coarse, weight)


class _Dense(nn.Module):
    """Features doubled three times by residual blocks, squeezed, and weighted by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.ModuleList(_Residual(_WIDTH * 2**i) for i in range(3))
        self.squeeze = nn.Sequential(nn.Conv2d(8 * _WIDTH, _WIDTH, 1), nn.LeakyReLU())
        self.dilated = nn.ModuleList(
            nn.Sequential(nn.Conv2d(_WIDTH, 4, 3, padding=d, dilation=d), nn.LeakyReLU()) for d in (3, 5, 7)
        )
        self.gate = nn.Sequential(nn.Conv2d(12, _WIDTH, 3, padding=1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        for block in self.widen:
            x = torch.cat([x, block(x)], dim=1)
        squeezed = self.squeeze(x)
        means = squeezed.mean(dim=(2, 3), keepdim=True)
        gated: Tensor = squeezed * self.gate(torch.cat([branch(means) for branch in self.dilated], dim=1))
        return gated


def _grow(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


def _unit(inputs: int, outputs: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU()


def _raise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *_unit(inputs, 2 * outputs),
        *_unit(2 * outputs, 2 * outputs),
        _grow(2 * outputs, outputs),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(),
    )
