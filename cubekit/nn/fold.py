"""The same numbers with less work, for prediction only: norms folded, channels side by side in memory."""

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_norms(network: nn.Module) -> nn.Module:
    """Copy a network for prediction, with batch norms folded into the convolution or layer before them.

    Only neighbours in an ``nn.Sequential`` are folded, because only there does the order say that nothing
    lies in between. A batch norm after a linear layer is folded where the values have no time axis.

    Parameters
    ----------
    network : torch.nn.Module
        In any mode; not changed.

    Returns
    -------
    torch.nn.Module
        A copy in evaluation mode; its outputs are those of the network up to the rounding of floats.
    """
    folded = copy.deepcopy(network).eval()
    for part in folded.modules():
        if isinstance(part, nn.Sequential):
            _fold_pairs(part)
    return folded


class SeriesConvolution(nn.Module):
    """A convolution over time whose channels lie side by side in memory, as a two-dimensional one of one row.

    On CPUs the fastest of what was tried: see ``docs/systems/tree_species.md``. Series ``(n, t, c)`` lie so
    already, so that the usual ``x.transpose(1, 2)`` before the first convolution copies nothing.

    Parameters
    ----------
    convolution : torch.nn.Conv1d
        Whose weights are taken; zeros as padding.
    """

    weight: Tensor

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        weight = convolution.weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.bias = convolution.bias
        self.stride, self.dilation = (1, *convolution.stride), (1, *convolution.dilation)
        self.padding: Any = (
            convolution.padding if isinstance(convolution.padding, str) else (0, *convolution.padding)
        )
        self.groups = convolution.groups

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Parameters
        ----------
        x : torch.Tensor
            ``(n, c, t)``, float32.

        Returns
        -------
        torch.Tensor
            ``(n, channels, t)``, what the convolution gives up to the rounding of floats.
        """
        image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        found = nn.functional.conv2d(
            image, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return found.squeeze(2)


class SeriesDense(nn.Module):
    """A flattening and the linear layer after it, for what :class:`SeriesConvolution` gives.

    Its values are taken in the order in which they lie in memory, the weights in the same order.

    Parameters
    ----------
    linear : torch.nn.Linear
        Whose weights are taken.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self._turned: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Flatten and multiply.

        Parameters
        ----------
        x : torch.Tensor
            ``(n, c, t)``, or anything else that is flattened from its second dimension on.

        Returns
        -------
        torch.Tensor
            ``(n, outputs)``, what flattening and layer give up to the rounding of floats.
        """
        if x.ndim != 3:  # noqa: PLR2004  (n, c, t)
            found: Tensor = self.linear(x.flatten(1))
            return found
        channels, weight = x.shape[1], self.linear.weight
        if channels not in self._turned:
            by_channel = weight.detach().reshape(len(weight), channels, -1)
            self._turned[channels] = by_channel.transpose(1, 2).flatten(1).contiguous()
        return nn.functional.linear(x.transpose(1, 2).flatten(1), self._turned[channels], self.linear.bias)


def quick_series(network: nn.Module) -> nn.Module:
    """Copy a network of pixel series for prediction on a CPU.

    Parameters
    ----------
    network : torch.nn.Module
        In any mode; not changed.

    Returns
    -------
    torch.nn.Module
        A copy in evaluation mode with norms folded, convolutions over time as :class:`SeriesConvolution`, and
        fewer copies between them; its outputs are those of the network up to the rounding of floats.
    """
    folded = fold_norms(network)
    for part in list(folded.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Conv1d) and child.padding_mode == "zeros":
                setattr(part, name, SeriesConvolution(child))
    for part in list(folded.modules()):
        if isinstance(part, nn.Sequential):
            _join_neighbours(part)
    return folded


def _join_neighbours(sequence: nn.Sequential) -> None:
    """Let activations change their input where nobody else sees it, and linear layers flatten theirs."""
    names = [n for n, part in sequence.named_children() if not isinstance(part, nn.Identity | nn.Dropout)]
    for first, second in pairwise(names):
        before, after = sequence.get_submodule(first), sequence.get_submodule(second)
        if isinstance(before, nn.Flatten) and isinstance(after, nn.Linear):
            if (before.start_dim, before.end_dim) == (1, -1):
                setattr(sequence, first, nn.Identity())
                setattr(sequence, second, SeriesDense(after))
        elif isinstance(after, nn.ReLU) and isinstance(before, SeriesConvolution | SeriesDense | nn.Linear):
            setattr(sequence, second, nn.ReLU(inplace=True))


def _fold_pairs(sequence: nn.Sequential) -> None:
    """Replace each pair of layer and norm by the folded layer and nothing."""
    names = list(sequence._modules)  # noqa: SLF001  (positions keep their names)
    for first, second in pairwise(names):
        layer, norm = sequence._modules[first], sequence._modules[second]  # noqa: SLF001
        if not isinstance(norm, _NORMS) or norm.running_mean is None:
            continue
        if isinstance(layer, _CONVOLUTIONS):
            transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)  # noqa: SLF001
            fused: nn.Module = fuse_conv_bn_eval(layer, norm, transpose=transposed)
        elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            fused = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        sequence._modules[first] = fused  # noqa: SLF001
        sequence._modules[second] = nn.Identity()  # noqa: SLF001
