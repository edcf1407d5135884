"""How far a network looks, measured once, so that scenes can be cut without seams."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_COARSEST = 32
"""Largest pooling in all that is looked for."""

_SIDES = (128, 512, 1536)
"""Lengths of the images that are tried; what reaches farther than half of the last one is unbounded."""

_WIDTH = 32
_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the outputs of an image network depend on where its input was cut."""

    halo: int | None
    """Pixels around a block that its outputs depend on, where the block begins and ends at multiples of
    `multiple`; None where no number suffices: pooling or norms over whole images, attention."""

    multiple: int = 1
    """The network does the same wherever an image is cut at multiples of this; sides are padded to it."""

    @property
    def bounded(self) -> bool:
        """Whether a halo makes tiles equal to the whole image."""
        return self.halo is not None


def measure_reach(network: nn.Module, inputs: Sequence[tuple[int, ...]]) -> Reach:
    """Find out how far a network looks, by experiment.

    Gradients are traced back from a block to the farthest pixels that changed it. As a gradient can vanish
    on its way, bad values (NaN), which spread wherever a value can, are then put beyond that distance: if one
    arrives in the block, the distance grows until none does.

    Parameters
    ----------
    network : torch.nn.Module
        Takes images ``(n, …, h, w)`` of any size, returns ``(n, …, h, w)``. Not changed. Its attributes
        ``multiple``, and ``unbounded`` where it says of itself that it looks at everything, are respected.
    inputs : sequence of tuple of int
        Dimensions between samples and pixels of each input, such as ``[(t, c)]``, or three times ``(c,)``.

    Returns
    -------
    Reach
        ``halo=None`` where the network reaches farther than about 750 pixels, or where cutting an image
        changes its outputs whatever the position of the cut.

    Examples
    --------
    >>> from cubekit.nn.registry import create
    >>> network = create("edcstfn", bands=1)
    >>> measure_reach(network, [(1,)] * 3)
    Reach(halo=5, multiple=1)
    """
    declared = int(getattr(network, "multiple", 1))
    if getattr(network, "unbounded", False):
        return Reach(halo=None, multiple=declared)
    training = network.training
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    network.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _measure(_Probe(network, tuple(inputs), device), declared)
    finally:
        network.train(training)


def _measure(probe: "_Probe", declared: int) -> Reach:
    """Try longer images until the reach fits into one."""
    coarsest = max(_COARSEST, declared)
    if any(probe.sees_all(_SIDES[-1], axis) for axis in (-2, -1)):
        return Reach(halo=None, multiple=declared)
    for side in _SIDES:
        if 4 * coarsest > side:
            continue
        multiple = probe.multiple(side, declared)
        if multiple is None:
            continue
        halos = [probe.halo(side, axis, multiple) for axis in (-2, -1)]
        if None not in halos:
            return Reach(halo=max(halo for halo in halos if halo is not None), multiple=multiple)
    return Reach(halo=None, multiple=declared)


class _Probe:
    """A network and images to try it with."""

    def __init__(self, network: nn.Module, inputs: tuple[tuple[int, ...], ...], device: torch.device) -> None:
        self.network, self.inputs, self.device = network, inputs, device
        self.takes_doy = "doy" in inspect.signature(network.forward).parameters

    def __call__(self, images: list[Tensor]) -> Tensor:
        extra = {}
        if self.takes_doy and images[0].ndim == 5:  # noqa: PLR2004  (n, t, c, h, w)
            n, steps = images[0].shape[:2]
            extra["doy"] = torch.linspace(1, 365, steps, device=self.device).long().expand(n, -1)
        outputs: Tensor = self.network(*images, **extra)
        return outputs

    def images(self, side: int, axis: int) -> list[Tensor]:
        """Return random images that are long along one axis."""
        shape = (side, _WIDTH) if axis == -2 else (_WIDTH, side)  # noqa: PLR2004  (the axis of rows)
        return [torch.rand(1, *lead, *shape, device=self.device) for lead in self.inputs]

    @torch.inference_mode()
    def sees_all(self, side: int, axis: int) -> bool:
        """Tell whether a bad value in the first row arrives in the last one."""
        images = self.images(side, axis)
        for image in images:
            image.narrow(axis, 0, 1).fill_(torch.nan)
        return bool(torch.isnan(self(images).narrow(axis, side - 1, 1)).any())

    def multiple(self, side: int, declared: int) -> int | None:
        """Return the smallest power of two, times what is declared, by which cuts do not matter."""
        factor = 1
        while declared * factor <= max(_COARSEST, declared):
            if all(self._same(side, axis, declared * factor) for axis in (-2, -1)):
                return declared * factor
            factor *= 2
        return None

    @torch.inference_mode()
    def _same(self, side: int, axis: int, cut: int) -> bool:
        """Tell whether rows in the middle stay as they are when rows are cut off at the beginning."""
        images = self.images(side, axis)
        rest = [image.narrow(axis, cut, side - cut).contiguous() for image in images]
        whole = self(images).narrow(axis, side // 2, cut)
        part = self(rest).narrow(axis, side // 2 - cut, cut)
        scale = float(whole.abs().max()) or 1.0
        return torch.allclose(whole, part, rtol=0, atol=_TOLERANCE * scale)

    def halo(self, side: int, axis: int, multiple: int) -> int | None:
        """Return the halo of a block in the middle; None if it does not fit into the image."""
        start = side // 2 // multiple * multiple
        block = slice(start, start + multiple)
        halo = self._gradient(side, axis, block)
        while halo < start and block.stop + halo < side:
            if not self._spoilt(side, axis, block, halo):
                return halo
            halo += 1
        return None

    @torch.inference_mode()
    def _spoilt(self, side: int, axis: int, block: slice, halo: int) -> bool:
        """Tell whether bad values outside a halo arrive in a block."""
        images = self.images(side, axis)
        for image in images:
            lines = image.movedim(axis, 0)
            lines[: block.start - halo] = torch.nan
            lines[block.stop + halo :] = torch.nan
        outputs = self(images).movedim(axis, 0)[block]
        return bool(torch.isnan(outputs).any())

    @torch.enable_grad()
    def _gradient(self, side: int, axis: int, block: slice) -> int:
        """Return how far from a block the gradient of its outputs goes."""
        images = [image.requires_grad_() for image in self.images(side, axis)]
        outputs = self(images).movedim(axis, 0)[block]
        total = (outputs * torch.randn_like(outputs)).sum()
        farthest = 0
        for gradient in torch.autograd.grad(total, images, allow_unused=True):
            if gradient is not None:
                lines = torch.nonzero(gradient.movedim(axis, 0).flatten(1).abs().sum(dim=1))
                if len(lines):
                    above, below = block.start - int(lines.min()), int(lines.max()) - block.stop + 1
                    farthest = max(farthest, above, below)
        return farthest
