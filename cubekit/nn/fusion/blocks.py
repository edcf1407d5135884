"""Parts that several fusion networks share: replicated borders, and the check of their three images."""

from torch import Tensor, nn

from cubekit.errors import OptionError


def replicated(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Build a 3x3 convolution over an image whose border pixels are repeated.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    stride : int, optional
        Step of the convolution.

    Returns
    -------
    torch.nn.Sequential
        ``(n, inputs, h, w) -> (n, outputs, ceil(h / stride), ceil(w / stride))``.
    """
    return nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(inputs, outputs, 3, stride))


def linear_decoder(bands: int) -> nn.Sequential:
    """Build the decoder of EDCSTFN and ECPW-STFN.

    Parameters
    ----------
    bands : int
        Channels of the image.

    Returns
    -------
    torch.nn.Sequential
        ``(n, 128, h, w) -> (n, bands, h, w)``, with a linear output.
    """
    return nn.Sequential(
        replicated(128, 64), nn.ReLU(), replicated(64, 32), nn.ReLU(), nn.Conv2d(32, bands, 1)
    )


def check_images(coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor, *, bands: int) -> None:
    """Raise unless the three images lie on one grid and have the bands of the network.

    Parameters
    ----------
    coarse_t1, coarse_t2, fine_t1 : torch.Tensor
        Images ``(n, c, h, w)``.
    bands : int
        Expected number of bands.

    Raises
    ------
    OptionError
        With the three shapes.
    """
    shapes = [tuple(image.shape) for image in (coarse_t1, coarse_t2, fine_t1)]
    if len(set(shapes)) > 1 or fine_t1.ndim != 4 or shapes[0][1] != bands:  # noqa: PLR2004
        raise OptionError(
            f"coarse_t1, coarse_t2, fine_t1 have shapes {shapes}, expected three times (n, {bands}, h, w): "
            "resample the coarse images to the fine grid first."
        )
