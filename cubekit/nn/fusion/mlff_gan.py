"""MLFF-GAN: feature pyramids of coarse and fine images, matched and gated at five levels."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from cubekit.nn.fusion.blocks import check_images
from cubekit.nn.patches import pad_to_multiple
from cubekit.nn.registry import register

_WIDTHS = (16, 32, 64, 128, 256)
_MULTIPLE = 16
_SMALLEST = 32  # the coarsest level needs two pixels to mirror and to have a spread


@register(
    "mlff_gan",
    task="fuse",
    form="image",
    paper="Song et al. 2022, IEEE TGRS 60, https://doi.org/10.1109/TGRS.2022.3169916",
)
class MLFFGAN(nn.Module):
    """Generator that gives fine features the statistics of coarse ones, where the coarse images changed.

    Pyramids of five levels (``(n, 16, h, w)`` to ``(n, 256, h / 16, w / 16)``), one shared by the coarse
    images and one for the fine image. At every level the fine features take mean and spread of the coarse
    ones of the second date, and a map made from the change between the dates decides where those replace
    them; a decoder goes back up. Sides are padded to a multiple of 16, at least 32. 5,925,285 parameters
    with 6 bands, 5,922,115 with 4. After Song et al. 2022 (https://doi.org/10.1109/TGRS.2022.3169916).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    dropout : float, optional
        Share of values dropped in the residual blocks while training.

    Notes
    -----
    Statistics are those of whole images: a value depends on the whole tile.
    """

    unbounded, multiple = True, _MULTIPLE

    def __init__(self, *, bands: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.bands = bands
        self.coarse, self.fine = _Pyramid(bands, dropout), _Pyramid(bands, dropout)
        self.fuse = nn.ModuleList(_Fuse(width) for width in _WIDTHS)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(2 * a, b, 4, stride=2, padding=1), nn.LeakyReLU(), _Residual(b, dropout)
            )
            for a, b in pairwise(_WIDTHS[::-1])
        )
        self.head = nn.Sequential(
            _Residual(32, dropout), nn.Conv2d(32, 16, 1), _Residual(16, dropout), nn.Conv2d(16, bands, 1)
        )

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        """Predict the fine image at the second date.

        Parameters
        ----------
        coarse_t1, coarse_t2, fine_t1 : torch.Tensor
            Images on the fine grid ``(n, c, h, w)``, reflectance between 0 and 1.

        Returns
        -------
        torch.Tensor
            Fine image at the second date ``(n, c, h, w)``, not clipped.

        Raises
        ------
        OptionError
            If the shapes differ or the bands are not those of the network.
        """
        check_images(coarse_t1, coarse_t2, fine_t1, bands=self.bands)
        images = (coarse_t1, coarse_t2, fine_t1)
        before, after, fine = (pad_to_multiple(image, _MULTIPLE, smallest=_SMALLEST) for image in images)
        first, second, detail = self.coarse(before), self.coarse(after), self.fine(fine)
        fused = [fuse(*level) for fuse, *level in zip(self.fuse, first, second, detail, strict=True)]
        x = torch.cat([fused.pop(), second[-1]], dim=1)
        for up in self.up:
            x = torch.cat([fused.pop(), up(x)], dim=1)
        predicted: Tensor = self.head(x)
        return predicted[..., : fine_t1.shape[-2], : fine_t1.shape[-1]]


class MLFFGANDiscriminator(nn.Module):
    """Patch discriminator on a fine image beside the coarse one of its date.

    2,775,745 parameters with 6 bands. After Isola et al. 2017 (https://doi.org/10.1109/CVPR.2017.632).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    """

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2 * bands, 64, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
        for inputs, outputs, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=2),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, padding=2))

    def forward(self, image: Tensor, coarse: Tensor) -> Tensor:
        """Judge patches of an image.

        Parameters
        ----------
        image : torch.Tensor
            Fine image, true or predicted ``(n, c, h, w)``.
        coarse : torch.Tensor
            Coarse image of the same date ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            Scores ``(n, 1, about h / 8, about w / 8)``; 1 stands for true, 0 for predicted.
        """
        scores: Tensor = self.layers(torch.cat([image, coarse], dim=1))
        return scores


class _Residual(nn.Module):
    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_mirrored(channels, dropout), nn.LeakyReLU(), *_mirrored(channels, dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = x + self.body(x)
        return refined


class _Pyramid(nn.Module):
    """Features at 1, 1/2, 1/4, 1/8 and 1/16 of the size."""

    def __init__(self, bands: int, dropout: float) -> None:
        super().__init__()
        stages = [nn.Sequential(nn.Conv2d(bands, 16, 7, padding=3), _Residual(16, dropout))]
        for inputs, outputs in pairwise(_WIDTHS):
            halve = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            stages.append(nn.Sequential(halve, _Residual(outputs, dropout)))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [image]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels[1:]


class _Fuse(nn.Module):
    """Fine features in the style of the coarse ones, replaced by those where the coarse images changed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)) for _ in range(2)
        )
        self.gate = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine: Tensor) -> Tensor:
        changed = self.gate(self.second(coarse_t2) - self.first(coarse_t1))
        return torch.lerp(_restyle(fine, coarse_t2), coarse_t2, changed)


def _mirrored(channels: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.Dropout(dropout)


def _restyle(x: Tensor, like: Tensor) -> Tensor:
    """Give each channel of each sample the mean and spread of another image's (AdaIN)."""
    (var, mean), (new_var, new_mean) = (
        torch.var_mean(image, dim=(2, 3), keepdim=True) for image in (x, like)
    )
    return (x - mean) * ((new_var + 1e-5) / (var + 1e-5)).sqrt() + new_mean
