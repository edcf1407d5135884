"""Batch norm folded into the layer before it: the same numbers with less work, for prediction only."""

import copy
from itertools import pairwise

from torch import nn
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
