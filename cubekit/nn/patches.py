"""What patch networks do before their first layer and after their last: channels, and sides that divide."""

from torch import Tensor, nn

from cubekit.errors import OptionError


def fold_time(x: Tensor, *, channels: int) -> Tensor:
    """Put the dates of a patch side by side as channels.

    Parameters
    ----------
    x : Tensor
        Patches, shape ``(n, t, c, h, w)``, or ``(n, c, h, w)``, which is returned as it is.
    channels : int
        Expected number of channels, ``t * c``.

    Returns
    -------
    Tensor
        Shape ``(n, t * c, h, w)``; all bands of the first date come first.

    Raises
    ------
    OptionError
        If dimensions or channels do not fit.
    """
    folded = x.flatten(1, 2) if x.ndim == 5 else x  # noqa: PLR2004 - (n, t, c, h, w)
    if folded.ndim != 4 or folded.shape[1] != channels:  # noqa: PLR2004 - (n, c, h, w)
        raise OptionError(
            f"x has shape {tuple(x.shape)}, expected (n, t, c, h, w) or (n, c, h, w) with {channels} "
            "channels in all: bands times steps of the network."
        )
    return folded


def pad_to_multiple(x: Tensor, multiple: int, *, smallest: int = 0) -> Tensor:
    """Grow an image at the bottom and right until both sides divide.

    Parameters
    ----------
    x : Tensor
        Image, shape ``(n, c, h, w)``.
    multiple : int
        What both sides shall divide by.
    smallest : int, optional
        Length that both sides shall have at least; a multiple of `multiple`.

    Returns
    -------
    Tensor
        The image, mirrored at its last row and column where it is large enough and the last row and column
        repeated where it is not. Crop results with ``[..., :h, :w]``.
    """
    below, right = (max(-side % multiple, smallest - side) for side in x.shape[-2:])
    if not (below or right):
        return x
    mirrors = below < x.shape[-2] and right < x.shape[-1]
    return nn.functional.pad(x, (0, right, 0, below), mode="reflect" if mirrors else "replicate")
