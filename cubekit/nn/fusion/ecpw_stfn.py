"""ECPW-STFN: the change of an image, added band by band of its wavelet transform, and refined."""

import torch
from torch import Tensor, nn

from cubekit.nn.fusion.blocks import check_images, linear_decoder, replicated
from cubekit.nn.patches import pad_to_multiple
from cubekit.nn.registry import register

_AUTOENCODER_MULTIPLE = 8


@register(
    "ecpw_stfn",
    task="fuse",
    form="image",
    paper="Zhang et al. 2024, ISPRS Journal 211, https://doi.org/10.1016/j.isprsjprs.2024.04.016",
)
class ECPWSTFN(nn.Module):
    """Wavelet bands of the fine image and of its difference to the coarse one, encoded and refined.

    Fine image and difference (coarse of the second date minus fine of the first) are split into four
    half-size Haar bands; each band is encoded to 128 channels, ``(n, 128, h / 2, w / 2)``, summed and
    transformed back to full size. The decoded image and the fine one go once more through an encoder with
    channel and spatial gates. The coarse image of the first date is not used. Odd sides are padded. 471,954
    parameters with 6 bands, 469,518 with 4. After Zhang et al. 2024
    (https://doi.org/10.1016/j.isprsjprs.2024.04.016).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.

    Notes
    -----
    Channel gates average over whole images: a value depends on the whole tile.
    """

    unbounded, multiple = True, 2

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.fine, self.residual = _encoder(bands), _encoder(bands)
        self.decoder = linear_decoder(bands)
        self.refine = nn.Sequential(
            *(_Gated(a, b) for a, b in ((2 * bands, 32), (32, 64), (64, 128))), linear_decoder(bands)
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
        fine, coarse = pad_to_multiple(fine_t1, 2), pad_to_multiple(coarse_t2, 2)
        # The four wavelet bands share one encoder: they pass it as one batch.
        merged = self.fine(haar(fine).flatten(0, 1)) + self.residual(haar(coarse - fine).flatten(0, 1))
        decoded = self.decoder(inverse_haar(merged.unflatten(0, (4, -1))))
        predicted: Tensor = self.refine(torch.cat([decoded, fine], dim=1))
        return predicted[..., : fine_t1.shape[-2], : fine_t1.shape[-1]]


class ECPWSTFNAutoencoder(nn.Module):
    """Autoencoder with skip connections whose features are compared in ECPW-STFN's loss.

    Trained first, to give back its own input, and frozen then. 217,990 parameters with 6 bands.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    """

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(replicated(bands, 16), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), replicated(a, b), nn.ReLU())
            for a, b in ((16, 32), (32, 64), (64, 128))
        )
        self.up = nn.ModuleList(
            nn.Sequential(replicated(a, b), nn.Upsample(scale_factor=2, mode="nearest"), nn.ReLU())
            for a, b in ((128, 64), (128, 32), (64, 16))
        )
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
            features = torch.cat([levels.pop(), up(features)], dim=1)
        restored: Tensor = self.last(features)
        return restored[..., : image.shape[-2], : image.shape[-1]]

    def _levels(self, image: Tensor) -> list[Tensor]:
        levels = [self.stem(pad_to_multiple(image, _AUTOENCODER_MULTIPLE))]
        for down in self.down:
            levels.append(down(levels[-1]))
        return levels


def haar(image: Tensor) -> Tensor:
    """Split an image into four half-size bands by the orthonormal Haar transform.

    Parameters
    ----------
    image : torch.Tensor
        ``(n, c, h, w)`` with even sides.

    Returns
    -------
    torch.Tensor
        ``(4, n, c, h / 2, w / 2)``: average, horizontal, vertical and diagonal detail. Differentiable.
    """
    a, b = image[..., ::2, ::2], image[..., ::2, 1::2]
    c, d = image[..., 1::2, ::2], image[..., 1::2, 1::2]
    return torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d]) / 2


def inverse_haar(split: Tensor) -> Tensor:
    """Put four Haar bands together again.

    Parameters
    ----------
    split : torch.Tensor
        ``(4, n, c, h, w)``, as :func:`haar` gives them.

    Returns
    -------
    torch.Tensor
        ``(n, c, 2 h, 2 w)``. Differentiable.
    """
    a, h, v, d = split
    cells = torch.stack([a + h + v + d, a + h - v - d, a - h + v - d, a - h - v + d], dim=2) / 2
    return nn.functional.pixel_shuffle(cells.flatten(1, 2), 2)


class _Gated(nn.Module):
    """Convolution, then a weight for every channel and one for every pixel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(replicated(inputs, outputs), nn.ReLU())
        self.channel = nn.Sequential(
            nn.Conv2d(outputs, outputs // 16, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs // 16, outputs, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        means, peaks = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(means) + self.channel(peaks)).sigmoid()
        across = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        gated: Tensor = x * self.spatial(across).sigmoid()
        return gated


def _encoder(bands: int) -> nn.Sequential:
    return nn.Sequential(
        replicated(bands, 32), nn.ReLU(), replicated(32, 64), nn.ReLU(), replicated(64, 128), nn.ReLU()
    )
