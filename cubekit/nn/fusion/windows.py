"""Shifted windows over an image, as Swin transformers use them."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

HEAD = 32
"""Channels of one attention head."""

_FORBIDDEN = -100.0


class WindowBias(nn.Module):
    """Learned attention bias by relative position, with the mask that shifting needs.

    Parameters
    ----------
    window : int
        Side of a window in pixels.
    heads : int
        Number of attention heads.
    """

    index: Tensor

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", _relative_positions(window), persistent=False)

    def forward(self, height: int, width: int, shift: int) -> Tensor:
        """Give what is added to the attention scores.

        Parameters
        ----------
        height, width : int
            Size of the image.
        shift : int
            By how many pixels the windows are shifted; 0 if not.

        Returns
        -------
        torch.Tensor
            Shape ``(windows or 1, heads, window ** 2, window ** 2)``.
        """
        pixels = self.window**2
        bias = self.table[self.index.flatten()].view(1, pixels, pixels, -1).permute(0, 3, 1, 2)
        if shift:
            bias = bias + _shift_mask(height, width, self.window, shift).to(bias)[:, None]
        return bias


def shift_of(window: int, height: int, width: int) -> int:
    """Say how far odd blocks shift their windows: half a window, or not at all where one window fills a side.

    Parameters
    ----------
    window : int
        Side of a window.
    height, width : int
        Size of the image.

    Returns
    -------
    int
        Shift in pixels.
    """
    return window // 2 if min(height, width) > window else 0


def split_windows(x: Tensor, window: int, shift: int) -> Tensor:
    """Cut an image into windows.

    Parameters
    ----------
    x : torch.Tensor
        ``(n, h, w, c)`` with sides that are multiples of `window`.
    window : int
        Side of a window.
    shift : int
        By how many pixels the windows are shifted.

    Returns
    -------
    torch.Tensor
        ``(n, windows, heads, window ** 2, 32)``.
    """
    n, height, width, c = x.shape
    if shift:
        x = x.roll((-shift, -shift), dims=(1, 2))
    x = x.view(n, height // window, window, width // window, window, c // HEAD, HEAD)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 2)


def join_windows(x: Tensor, height: int, width: int, shift: int) -> Tensor:
    """Undo :func:`split_windows`.

    Parameters
    ----------
    x : torch.Tensor
        ``(n, windows, heads, window ** 2, 32)``.
    height, width : int
        Size of the image.
    shift : int
        By how many pixels the windows were shifted.

    Returns
    -------
    torch.Tensor
        ``(n, h, w, c)``.
    """
    n, _, heads, pixels, _ = x.shape
    window = math.isqrt(pixels)
    x = x.view(n, height // window, width // window, heads, window, window, HEAD)
    x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, height, width, heads * HEAD)
    return x.roll((shift, shift), dims=(1, 2)) if shift else x


def _relative_positions(window: int) -> Tensor:
    """Row of the bias table for every pair of pixels, ``(window ** 2, window ** 2)``."""
    axis = torch.arange(window)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    down, right = (a[:, None] - a[None] + window - 1 for a in (rows, columns))
    return down * (2 * window - 1) + right


@lru_cache(maxsize=8)
def _shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """Forbid attention between pixels that only the shift made neighbours, ``(windows, pixels, pixels)``."""
    rows, columns = (_parts(side, window, shift) for side in (height, width))
    part = (3 * rows[:, None] + columns).view(height // window, window, width // window, window)
    part = part.transpose(1, 2).reshape(-1, window**2)
    return torch.where(part[:, :, None] == part[:, None], 0.0, _FORBIDDEN)


def _parts(side: int, window: int, shift: int) -> Tensor:
    """Give numbers to the parts of a shifted side: untouched windows 0, halves of the last window 1 and 2."""
    place = torch.arange(side)
    return (place >= side - window).int() + (place >= side - shift).int()
