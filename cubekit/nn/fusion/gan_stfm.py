"""GAN-STFM: a fine image restyled by a coarse one of another date."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cubekit.nn.fusion.blocks import check_images, replicated
from cubekit.nn.registry import register

_TOWERS = (
    (32, 32, 64, 64, 128, 128, 256, 256),
    (32, 64, 64, 128, 128, 256, 256),
    (32, 64, 128, 128, 256, 256),
)


@register(
    "gan_stfm",
    task="fuse",
    form="image",
    paper="Tan et al. 2022, IEEE TGRS 60, https://doi.org/10.1109/TGRS.2021.3050551",
)
class GANSTFM(nn.Module):
    """Generator with a trunk for the fine image, fed at every step by a lateral stream for the coarse one.

    Four encoder blocks widen both streams to 128 channels, four decoder blocks narrow their join, without
    any down-sampling: ``(n, 256, h, w)`` in the middle. The lateral stream sees the coarse image of the
    wanted date; that of the first date is not used. 578,130 parameters with 6 bands, 577,660 with 4. After
    Tan et al. 2022 (https://doi.org/10.1109/TGRS.2021.3050551).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.

    Notes
    -----
    The normalisation averages over whole images, also in evaluation: a value depends on the whole tile.
    """

    unbounded = True

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.encoder = nn.ModuleList(_Encode(a, b) for a, b in ((bands, 16), (16, 32), (32, 64), (64, 128)))
        self.decoder = nn.Sequential(
            *(_Decode(a, b) for a, b in ((256, 128), (128, 64), (64, 32), (32, 16))), nn.Conv2d(16, bands, 1)
        )

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
        check_images(coarse_t1, coarse_t2, fine_t1, bands=self.bands)
        lateral, trunk = coarse_t2, fine_t1
        for block in self.encoder:
            lateral, trunk = block(lateral, trunk)
        predicted: Tensor = self.decoder(torch.cat([lateral, trunk], dim=1))
        return predicted


class GANSTFMDiscriminator(nn.Module):
    """Three residual towers that judge an image, given the coarse one of its date, at three scales.

    Spectrally normalised; for training on patches of at least 16 pixels. 3,665,959 parameters with 6 bands.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    """

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(_tower(2 * bands, widths) for widths in _TOWERS)

    def forward(self, image: Tensor, coarse: Tensor) -> Tensor:
        """Judge images.

        Parameters
        ----------
        image : torch.Tensor
            Fine image, true or predicted ``(n, c, h, w)``.
        coarse : torch.Tensor
            Coarse image of the same date ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            Scores ``(n,)``: means over towers and places; 1 stands for true, 0 for predicted.
        """
        pair = torch.cat([image, coarse], dim=1)
        scores = [
            tower(pair[..., :: 2**i, :: 2**i]).mean(dim=(1, 2, 3)) for i, tower in enumerate(self.towers)
        ]
        return torch.stack(scores).mean(dim=0)


class GANSTFMAutoencoder(nn.Module):
    """Autoencoder whose features are compared in GAN-STFM's loss.

    Trained first, to give back its own input, and frozen then. 217,990 parameters with 6 bands.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    """

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        down = ((bands, 16, 1), (16, 32, 2), (32, 64, 2), (64, 128, 2))
        self.down = nn.ModuleList(_unit(a, b, stride=s) for a, b, s in down)
        self.up = nn.ModuleList(_unit(a, b) for a, b in ((128, 64), (128, 32), (64, 16)))
        self.last = nn.Conv2d(32, bands, 1)

    def encode(self, image: Tensor) -> Tensor:
        """Give the features of an image.

        Parameters
        ----------
        image : torch.Tensor
            ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            ``(n, 128, ceil(h / 8), ceil(w / 8))``.
        """
        return self._levels(image)[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Give an image back.

        Parameters
        ----------
        image : torch.Tensor
            ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            The reconstruction ``(n, c, h, w)``.
        """
        levels = self._levels(image)
        features = levels.pop()
        for up in self.up:
            skip = levels.pop()
            wider = nn.functional.interpolate(features, scale_factor=2, mode="nearest")
            features = torch.cat([skip, up(wider)[..., : skip.shape[-2], : skip.shape[-1]]], dim=1)
        restored: Tensor = self.last(features)
        return restored

    def _levels(self, image: Tensor) -> list[Tensor]:
        levels = [image]
        for down in self.down:
            levels.append(down(levels[-1]))
        return levels[1:]


class SwitchableNorm(nn.Module):
    """Normalisation that learns how much of instance, layer and batch statistics to use.

    After Luo et al. 2019 (https://doi.org/10.48550/arXiv.1806.10779). Evaluation uses running values for the
    batch's share only, so that an image never depends on its batch.

    Parameters
    ----------
    channels : int
        Number of channels, ``c``.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.mean_weight = nn.Parameter(torch.ones(3))
        self.var_weight = nn.Parameter(torch.ones(3))
        self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_var", torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Parameters
        ----------
        x : torch.Tensor
            ``(n, c, h, w)``, more than one pixel.

        Returns
        -------
        torch.Tensor
            Same shape.
        """
        var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
        square = var + mean**2
        layer_mean = mean.mean(dim=1, keepdim=True)
        layer_var = square.mean(dim=1, keepdim=True) - layer_mean**2
        batch_mean, batch_var = self._batch_statistics(mean, square)
        a, b = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mixed_mean = a[0] * mean + a[1] * layer_mean + a[2] * batch_mean
        mixed_var = b[0] * var + b[1] * layer_var + b[2] * batch_var
        return (x - mixed_mean) * (mixed_var + 1e-5).rsqrt() * self.weight + self.bias

    def _batch_statistics(self, mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.running_mean, self.running_var
        batch_mean = mean.mean(dim=0, keepdim=True)
        batch_var = square.mean(dim=0, keepdim=True) - batch_mean**2
        self.running_mean.lerp_(batch_mean.detach(), 0.1)
        self.running_var.lerp_(batch_var.detach(), 0.1)
        return batch_mean, batch_var


class _Encode(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        narrow = min(inputs, outputs)
        self.lateral = nn.Sequential(
            replicated(inputs, narrow), nn.Conv2d(narrow, outputs, 1), nn.LeakyReLU()
        )
        self.trunk = nn.Sequential(
            SwitchableNorm(inputs),
            nn.LeakyReLU(),
            replicated(inputs, narrow),
            SwitchableNorm(narrow),
            nn.LeakyReLU(),
            nn.Conv2d(narrow, outputs, 1),
        )

    def forward(self, lateral: Tensor, trunk: Tensor) -> tuple[Tensor, Tensor]:
        lateral = self.lateral(lateral)
        return lateral, self.trunk(trunk) + lateral


class _Decode(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        narrow = min(inputs, outputs)
        self.body = nn.Sequential(replicated(inputs, narrow), nn.LeakyReLU(), nn.Conv2d(narrow, outputs, 1))
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        decoded: Tensor = self.body(x) + self.shortcut(x)
        return decoded


class _Halve(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = spectral_norm(nn.Conv2d(inputs, outputs, 1, stride=2))
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.LeakyReLU(),
            spectral_norm(nn.Conv2d(inputs, inputs, 3, stride=2, padding=1)),
            nn.BatchNorm2d(inputs),
            nn.LeakyReLU(),
            spectral_norm(nn.Conv2d(inputs, outputs, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.body(x) + self.shortcut(x)
        return halved


def _tower(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    steps = [_Halve(a, b) for a, b in zip((inputs, *widths), widths, strict=False)]
    return nn.Sequential(*steps, spectral_norm(nn.Conv2d(widths[-1], 1, 1)))


def _unit(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(replicated(inputs, outputs, stride=stride), nn.LeakyReLU())
