"""SwinSTFM: shifted-window transformers that carry the change of coarse images over to fine features."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cubekit.errors import check_option
from cubekit.nn.fusion.blocks import check_images
from cubekit.nn.fusion.windows import HEAD, WindowBias, join_windows, shift_of, split_windows
from cubekit.nn.patches import pad_to_multiple
from cubekit.nn.registry import register

_WINDOW = 8
_SIDES = (64, 128, 256)
_WIDTHS = (64, 128, 256, 512, 512)
_ENCODER_DEPTHS = (2, 2, 6, 2)
_DECODER = ((512, 256, 2), (256, 128, 6), (128, 64, 2), (64, 64, 2))


@register(
    "swinstfm",
    task="fuse",
    form="image",
    paper="Chen et al. 2022, IEEE TGRS 60, https://doi.org/10.1109/TGRS.2022.3182809",
)
class SwinSTFM(nn.Module):
    """Pyramids of shifted-window attention, joined by cross attention at five scales.

    One pyramid is shared by the coarse images, one sees the fine image: ``(n, h / 2, w / 2, 64)`` down to
    ``(n, h / 32, w / 32, 512)``. From the coarsest scale up, cross attention asks with the first coarse
    image where the fine image and the second coarse image agree, moves the coarse difference accordingly
    and adds it to the fine features. The output passes a tanh. Sides are padded to a multiple of `side`.
    37,535,290 parameters with 6 bands, 37,533,112 with 4 (37,532,474 with ``side=128`` and 6). After Chen
    et al. 2022 (https://doi.org/10.1109/TGRS.2022.3182809).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    side : {256, 128, 64}, optional
        Sides of images are multiples of this. Below 256 the coarsest windows, and their bias tables, are
        smaller: weights do not move between the three.

    Raises
    ------
    OptionError
        If `side` is another number.

    Notes
    -----
    Windows are masked by the true size of the input, so one set of weights works for tiles of any size.
    Windows never mix images: the result of one does not depend on the others of its batch, as it does in
    the reference. From the coarsest windows up a value depends on hundreds of pixels.
    """

    unbounded, multiple = True, 32

    def __init__(self, *, bands: int, side: int = 256) -> None:
        super().__init__()
        check_option("side", side, _SIDES)
        self.bands, self.side = bands, side
        windows = [min(_WINDOW, side // 2**level) for level in range(1, 6)]
        self.coarse, self.fine = _Pyramid(bands, windows), _Pyramid(bands, windows)
        self.deepest = _CrossLayer(_WIDTHS[4], windows[4], depth=1)
        self.stages = nn.ModuleList(
            _Stage(channels, outputs, windows[3 - i], depth=depth)
            for i, (channels, outputs, depth) in enumerate(_DECODER)
        )
        self.head = nn.Sequential(
            nn.Conv2d(64, 256, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(64, bands, 3, padding=1),
            nn.Tanh(),
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
            Fine image at the second date ``(n, c, h, w)``, between -1 and 1.

        Raises
        ------
        OptionError
            If the shapes differ or the bands are not those of the network.
        """
        check_images(coarse_t1, coarse_t2, fine_t1, bands=self.bands)
        before, after, fine = (pad_to_multiple(image, self.side) for image in (coarse_t1, coarse_t2, fine_t1))
        features = (self.coarse(before), self.coarse(after), self.fine(fine))
        levels = [_Level(*maps) for maps in zip(*features, strict=True)]
        x = self.deepest(levels[4])
        for stage, level in zip(self.stages, levels[3::-1], strict=True):
            x = stage(x, level)
        predicted: Tensor = self.head(x.permute(0, 3, 1, 2))
        return predicted[..., : fine_t1.shape[-2], : fine_t1.shape[-1]]


class _Level(NamedTuple):
    """Features of the three images at one scale, ``(n, h, w, c)``."""

    before: Tensor
    after: Tensor
    fine: Tensor


class _Pyramid(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size, channels last."""

    def __init__(self, bands: int, windows: list[int]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(bands, _WIDTHS[0], 2, stride=2)
        self.norm = nn.LayerNorm(_WIDTHS[0])
        self.stages = nn.ModuleList(
            nn.Sequential(*_blocks(inputs, window, depth), _Merge(inputs, outputs))
            for inputs, outputs, window, depth in zip(
                _WIDTHS[:-1], _WIDTHS[1:], windows[:-1], _ENCODER_DEPTHS, strict=True
            )
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [self.norm(self.embed(image).permute(0, 2, 3, 1))]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels


class _Merge(nn.Module):
    """Half the size: four neighbours become channels and are mixed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * inputs)
        self.mix = nn.Linear(4 * inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        merged: Tensor = self.mix(self.norm(torch.cat(corners, dim=-1)))
        return merged


class _Block(nn.Module):
    """Attention within windows, then a small network per pixel; both on normalised input, added to it."""

    def __init__(self, channels: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias = WindowBias(window, channels // HEAD)
        self.project = nn.Linear(channels, channels)
        self.mlp = _mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        shift = shift_of(self.window, height, width) if self.shifted else 0
        parts = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (split_windows(part, self.window, shift) for part in parts)
        bias = self.bias(height, width, shift)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.project(join_windows(attended, height, width, shift))
        refined: Tensor = x + self.mlp(self.norm2(x))
        return refined


class _CrossBlock(nn.Module):
    """Moves the coarse difference to where the fine and the second coarse image both resemble the first."""

    def __init__(self, channels: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.ask_fine, self.ask_after = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key_fine, self.key_after = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.bias = WindowBias(window, channels // HEAD)
        self.project = nn.Linear(channels, channels)
        self.mlp = _mlp(channels)

    def forward(self, difference: Tensor, level: _Level) -> Tensor:
        height, width = difference.shape[1:3]
        shift = shift_of(self.window, height, width) if self.shifted else 0
        bias = self.bias(height, width, shift)
        pairs = (
            (self.ask_fine(level.before), self.key_fine(level.fine)),
            (self.ask_after(level.before), self.key_after(level.after)),
        )
        first, second = (self._attend(q, k, bias, shift) for q, k in pairs)
        both = first * second + 1e-6
        both = both / both.sum(dim=-1, keepdim=True)
        moved = both @ split_windows(self.value(self.norm1(difference)), self.window, shift)
        difference = difference + self.project(join_windows(moved, height, width, shift))
        refined: Tensor = difference + self.mlp(self.norm2(difference))
        return refined

    def _attend(self, query: Tensor, key: Tensor, bias: Tensor, shift: int) -> Tensor:
        q, k = (split_windows(part, self.window, shift) for part in (query, key))
        scores = q @ k.transpose(-2, -1) * HEAD**-0.5 + bias
        weights: Tensor = scores.softmax(dim=-1)
        return weights


class _CrossLayer(nn.Module):
    """Cross blocks over one scale, added to the fine features."""

    def __init__(self, channels: int, window: int, *, depth: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.blocks = nn.ModuleList(_CrossBlock(channels, window, shifted=i % 2 == 1) for i in range(depth))

    def forward(self, level: _Level) -> Tensor:
        normed = _Level(*(norm(features) for norm, features in zip(self.norms, level, strict=True)))
        difference = level.after - level.before
        for block in self.blocks:
            difference = block(difference, normed)
        return difference + level.fine


class _Stage(nn.Module):
    """Twice the size: coarser result, cross-attended features and second coarse image mixed and refined."""

    def __init__(self, channels: int, outputs: int, window: int, *, depth: int) -> None:
        super().__init__()
        self.grow = nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
        self.cross = _CrossLayer(channels, window, depth=2)
        self.mix = nn.Linear(3 * channels, outputs)
        self.blocks = nn.Sequential(*_blocks(outputs, window, depth))

    def forward(self, x: Tensor, level: _Level) -> Tensor:
        grown = self.grow(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        refined: Tensor = self.blocks(self.mix(torch.cat([level.after, self.cross(level), grown], dim=-1)))
        return refined


def _blocks(channels: int, window: int, depth: int) -> list[_Block]:
    return [_Block(channels, window, shifted=i % 2 == 1) for i in range(depth)]


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))
