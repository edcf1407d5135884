"""STFDiff: a diffusion model that draws the fine image, conditioned on the three known ones."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from cubekit.errors import OptionError
from cubekit.nn.fusion.blocks import check_images
from cubekit.nn.patches import pad_to_multiple
from cubekit.nn.registry import register

_WIDTH, _TIME, _GROUPS = 64, 256, 8
_MULTIPLE = 4
_VISITS = 50
_OFFSET, _LARGEST_BETA = 0.008, 0.999


@register(
    "stfdiff",
    task="fuse",
    form="image",
    paper="Huang et al. 2024, Information Fusion 111, https://doi.org/10.1016/j.inffus.2024.102505",
)
class STFDiff(nn.Module):
    """Conditional diffusion whose network tells noise from what the known images explain.

    A clean stream (features of fine and coarse images) and a noisy, timed stream (the image being drawn)
    pass three levels and a middle, ``(n, 64, h, w)`` to ``(n, 256, h / 4, w / 4)``; their differences go
    back up and give the clean image. Training noises the true image with :meth:`add_noise` and compares the
    answer of :meth:`denoise` with it (mean absolute error, uniform times). Prediction draws with
    deterministic steps (DDIM) from seeded noise. Sides are padded to a multiple of 4. 7,478,534 parameters
    with 6 bands, 7,473,796 with 4; the published counts hold 3,520 and 2,368 more that no result depends
    on. After Huang et al. 2024 (https://doi.org/10.1016/j.inffus.2024.102505).

    Parameters
    ----------
    bands : int
        Number of bands, ``c``.
    times : int, optional
        Number of noise levels.
    visits : int, optional
        How many of them prediction goes through; fewer are faster and coarser.

    Raises
    ------
    OptionError
        If `visits` is out of range.

    Notes
    -----
    Group norms average over whole images, and noise belongs to the place in the tile: a value depends on the
    tile. Predict with the moving average of the weights.
    """

    unbounded, multiple = True, _MULTIPLE
    kept: Tensor

    def __init__(self, *, bands: int, times: int = 100, visits: int = _VISITS) -> None:
        super().__init__()
        if not 1 <= visits <= max(times, _VISITS):
            raise OptionError(f"visits={visits}: expected 1 to {times}, the number of noise levels.")
        self.bands, self.times, self.visits = bands, times, min(visits, times)
        self.register_buffer("kept", cosine_schedule(times), persistent=False)
        self.time = nn.Sequential(nn.Linear(_WIDTH, _TIME), nn.GELU(), nn.Linear(_TIME, _TIME))
        self.fine, self.coarse = _wide(bands, _WIDTH), _wide(2 * bands, _WIDTH)
        self.noisy, self.clean = _wide(bands, _WIDTH), nn.Conv2d(2 * _WIDTH, _WIDTH, 1)
        widths = (64, 64, 128, 256)
        self.clean_blocks = nn.ModuleList(_Residual(w, w, timed=False) for w in widths)
        self.noisy_blocks = nn.ModuleList(_Residual(w, w) for w in widths)
        self.clean_down, self.noisy_down = _down(), _down()
        self.up_blocks = nn.ModuleList(_Residual(a, b) for a, b in ((384, 256), (192, 128), (128, 64)))
        self.up = nn.ModuleList(
            (
                nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), _wide(256, 128)),
                nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), _wide(128, 64)),
                _wide(64, 64),
            )
        )
        self.last = _Residual(128, 64)
        self.head = nn.Conv2d(_WIDTH, bands, 1)

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        """Draw the fine image at the second date, with the default seed and steps of :meth:`sample`.

        Parameters
        ----------
        coarse_t1, coarse_t2, fine_t1 : torch.Tensor
            Images on the fine grid ``(n, c, h, w)``, reflectance between 0 and 1.

        Returns
        -------
        torch.Tensor
            Fine image at the second date ``(n, c, h, w)``, between -1 and 1, without gradients.

        Raises
        ------
        OptionError
            If the shapes differ or the bands are not those of the network.
        """
        return self.sample(coarse_t1, coarse_t2, fine_t1)

    def sample(
        self,
        coarse_t1: Tensor,
        coarse_t2: Tensor,
        fine_t1: Tensor,
        *,
        seed: int = 0,
        steps: int | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw the fine image at the second date.

        Parameters
        ----------
        coarse_t1, coarse_t2, fine_t1 : torch.Tensor
            Images on the fine grid ``(n, c, h, w)``, reflectance between 0 and 1.
        seed : int, optional
            Seed of the noise to start from; every image of the batch starts from the same noise, so that none
            depends on its place in the batch.
        steps : int, optional
            Number of denoising steps, at most the number of noise levels. Default: ``visits`` of the network.
        noise : torch.Tensor, optional
            Standard normal numbers ``(n, c, h, w)`` to start from, in place of those of the seed. The result
            follows from them alone: noise by the place in a scene makes windows of it agree.

        Returns
        -------
        torch.Tensor
            Fine image at the second date ``(n, c, h, w)``, between -1 and 1, without gradients.

        Raises
        ------
        OptionError
            If the shapes differ, the bands are not those of the network, or `steps` is out of range.
        """
        check_images(coarse_t1, coarse_t2, fine_t1 if noise is None else noise, bands=self.bands)
        check_images(coarse_t1, coarse_t2, fine_t1, bands=self.bands)
        steps = self.visits if steps is None else steps
        if not 1 <= steps <= self.times:
            raise OptionError(f"steps={steps} is not between 1 and {self.times}, the number of noise levels.")
        known = [pad_to_multiple(image, _MULTIPLE) for image in (coarse_t1, coarse_t2, fine_t1)]
        if noise is None:
            drawn = torch.randn(known[2].shape[1:], generator=torch.Generator().manual_seed(seed))
            x = drawn.to(fine_t1).expand_as(known[2])
        else:
            x = pad_to_multiple(noise, _MULTIPLE)
        with torch.no_grad():
            for now, then in self._visits(steps):
                x = self._step(x, now, then, known)
        return x[..., : fine_t1.shape[-2], : fine_t1.shape[-1]]

    def add_noise(self, fine_t2: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noise a true image, as training does.

        Parameters
        ----------
        fine_t2 : torch.Tensor
            True fine image at the second date ``(n, c, h, w)``.
        t : torch.Tensor
            Noise level of each image, int64 ``(n,)``, from 0 to ``times - 1``.
        noise : torch.Tensor
            Standard normal numbers ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            Noised image ``(n, c, h, w)``.
        """
        kept = self.kept[t].to(fine_t2)[:, None, None, None]
        return kept.sqrt() * fine_t2 + (1 - kept).sqrt() * noise

    def denoise(
        self, noised: Tensor, t: Tensor, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor
    ) -> Tensor:
        """Guess the true image behind a noised one: the network itself.

        Parameters
        ----------
        noised : torch.Tensor
            Noised fine image at the second date ``(n, c, h, w)``, sides multiples of 4.
        t : torch.Tensor
            Noise level of each image, int64 ``(n,)``.
        coarse_t1, coarse_t2, fine_t1 : torch.Tensor
            The known images ``(n, c, h, w)``.

        Returns
        -------
        torch.Tensor
            Guess of the true image ``(n, c, h, w)``.
        """
        time = self.time(_sinusoids(t).to(noised.dtype))
        coarse = self.coarse(torch.cat([coarse_t1, coarse_t2], dim=1))
        clean = self.clean(torch.cat([self.fine(fine_t1), coarse], dim=1))
        noisy = self.noisy(noised)
        differences = [noisy - clean]
        for i in range(3):
            clean, noisy = self.clean_blocks[i](clean, time), self.noisy_blocks[i](noisy, time)
            differences.append(noisy - clean)
            clean, noisy = self.clean_down[i](clean), self.noisy_down[i](noisy)
        x: Tensor = self.noisy_blocks[3](noisy, time) - self.clean_blocks[3](clean, time)
        for block, up in zip(self.up_blocks, self.up, strict=True):
            x = up(block(torch.cat([x, differences.pop()], dim=1), time))
        guess: Tensor = self.head(self.last(torch.cat([x, differences.pop()], dim=1), time))
        return guess

    def _visits(self, steps: int) -> list[tuple[int, int]]:
        """Noise levels to go through, from the highest to -1, as pairs of now and then."""
        levels = torch.linspace(-1, self.times - 1, steps + 1, dtype=torch.float64).long().flip(0).tolist()
        return list(pairwise(levels))

    def _step(self, x: Tensor, now: int, then: int, known: list[Tensor]) -> Tensor:
        """Go from one noise level to a lower one without adding noise (DDIM with eta 0)."""
        guess = self.denoise(x, torch.full((len(x),), now, device=x.device), *known).clamp(-1, 1)
        if then < 0:
            return guess
        here, there = self.kept[now].to(x), self.kept[then].to(x)
        noise = (x / here.sqrt() - guess) / (1 / here - 1).sqrt()
        return there.sqrt() * guess + (1 - there).sqrt() * noise


def cosine_schedule(times: int) -> Tensor:
    """Say how much of an image is kept at each noise level.

    After Nichol and Dhariwal 2021 (https://doi.org/10.48550/arXiv.2102.09672).

    Parameters
    ----------
    times : int
        Number of noise levels.

    Returns
    -------
    torch.Tensor
        Share of variance kept, float32 ``(times,)``, falling.
    """
    u = torch.arange(times + 1, dtype=torch.float64) / times
    curve = ((u + _OFFSET) / (1 + _OFFSET) * math.pi / 2).cos() ** 2
    betas = (1 - curve[1:] / curve[:-1]).clamp(0, _LARGEST_BETA)
    return (1 - betas).cumprod(0).float()


class _Residual(nn.Module):
    """Two convolutions with group norm beside a shortcut, scaled and shifted by the time in between."""

    def __init__(self, inputs: int, outputs: int, *, timed: bool = True) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(_TIME, 2 * outputs)) if timed else None
        self.conv1, self.norm1 = _StandardConv(inputs, outputs, 3, padding=1), nn.GroupNorm(_GROUPS, outputs)
        self.conv2, self.norm2 = _wide(outputs, outputs), nn.GroupNorm(_GROUPS, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.norm1(self.conv1(x))
        if self.time is not None:
            scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (scale + 1) + shift
        hidden = nn.functional.silu(self.norm2(self.conv2(nn.functional.silu(hidden))))
        added: Tensor = hidden + self.shortcut(x)
        return added


class _StandardConv(nn.Conv2d):
    """Convolution whose filters have zero mean and unit variance."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
        eps = 1e-3 if torch.finfo(input.dtype).bits < 32 else 1e-5  # noqa: PLR2004 - half precision
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (var + eps).rsqrt()
        filtered: Tensor = self._conv_forward(input, weight, self.bias)
        return filtered


def _sinusoids(t: Tensor) -> Tensor:
    """Sines, then cosines, of noise levels, ``(n,) -> (n, 64)``."""
    half = _WIDTH // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _wide(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _down() -> nn.ModuleList:
    halves = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in ((64, 64), (64, 128))]
    return nn.ModuleList([*halves, _wide(128, 256)])
