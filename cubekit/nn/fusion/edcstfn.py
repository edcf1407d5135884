"""EDCSTFN: what changed between two coarse images, added to the features of the fine one."""

import torch
from torch import Tensor, nn

from cubekit.nn.fusion.blocks import check_images, linear_decoder, replicated
from cubekit.nn.registry import register

_TINY = 1e-6


@register(
    "edcstfn",
    task="fuse",
    form="image",
    paper="Tan et al. 2019, Remote Sensing 11(24) 2898, https://doi.org/10.3390/rs11242898",
)
class EDCSTFN(nn.Module):
    """Convolutional fusion of features of the fine image with residual features of all three images.

    Two encoders of three 3x3 convolutions, one on the fine image and one on the three images together, are
    summed, ``(n, 128, h, w)``, and decoded. Values depend on nothing farther than 5 pixels away; any size.
    284,134 parameters with 6 bands, 281,764 with 4. Attributes carry the names of the published weight files.
    After Tan et al. 2019 (https://doi.org/10.3390/rs11242898).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.

    Attributes
    ----------
    reach : int
        Largest distance in pixels at which an input value can change an output value.
    """

    reach = 5

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.encoder = nn.Sequential(*_encoder(bands), nn.ReLU())
        self.residual = nn.Sequential(*_encoder(3 * bands))
        self.decoder = linear_decoder(bands)

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
        features, residual = self._features(coarse_t1, coarse_t2, fine_t1)
        predicted: Tensor = self.decoder(features + residual)
        return predicted

    def forward_pairs(
        self, coarse_t2: Tensor, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Predict from two pairs, as the paper does for a date in between.

        The features of each pair count in inverse proportion to the size of its residual features, element by
        element: the pair that differs less from the date decides.

        Parameters
        ----------
        coarse_t2 : torch.Tensor
            Coarse image at the wanted date ``(n, c, h, w)``.
        before, after : tuple of torch.Tensor
            Coarse and fine image of an earlier and of a later date.

        Returns
        -------
        torch.Tensor
            Fine image at the wanted date ``(n, c, h, w)``.

        Raises
        ------
        OptionError
            If the shapes differ or the bands are not those of the network.
        """
        blended, total = torch.zeros(()), torch.zeros(())
        for coarse, fine in (before, after):
            features, residual = self._features(coarse, coarse_t2, fine)
            weight = 1 / (residual.abs() + _TINY)
            blended, total = blended + weight * (features + residual), total + weight
        predicted: Tensor = self.decoder(blended / total)
        return predicted

    def _features(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> tuple[Tensor, Tensor]:
        check_images(coarse_t1, coarse_t2, fine_t1, bands=self.bands)
        residual: Tensor = self.residual(torch.cat([coarse_t1, fine_t1, coarse_t2], dim=1))
        return self.encoder(fine_t1), residual


class EDCSTFNAutoencoder(nn.Module):
    """Autoencoder whose features are compared in EDCSTFN's loss.

    Trained first, to give back its own input, and frozen then. 481,734 parameters with 6 bands.

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    """

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*_encoder(bands, stride=2), nn.ReLU(), replicated(128, 128), nn.ReLU())
        self.decoder = nn.Sequential(
            replicated(128, 128),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bicubic", align_corners=False),
            *linear_decoder(bands),
        )

    def encode(self, image: Tensor) -> Tensor:
        """Give the features of an image.

        Parameters
        ----------
        image : torch.Tensor
            ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            ``(n, 128, ceil(h / 2), ceil(w / 2))``.
        """
        features: Tensor = self.encoder(image)
        return features

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
        restored: Tensor = self.decoder(self.encode(image))
        return restored[..., : image.shape[-2], : image.shape[-1]]


def _encoder(inputs: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        replicated(inputs, 32),
        nn.ReLU(),
        replicated(32, 64),
        nn.ReLU(),
        replicated(64, 128, stride=stride),
    )
