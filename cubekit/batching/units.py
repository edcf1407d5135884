"""What stays together and what stays apart when samples are parted: blocks, groups, distances."""

from typing import Literal, get_args

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from cubekit.batching.assign import TEST, TRAIN, VALID
from cubekit.batching.extract import extract
from cubekit.batching.patches import PatchPlan
from cubekit.batching.places import Places, places_of
from cubekit.batching.samples import Samples
from cubekit.errors import OptionError, SplitError, check_kind
from cubekit.typing import FloatArray, IntArray

By = Literal["blocks", "groups", "random", "time"]
"""What stays together: squares of land; the samples of one group; nothing; a stretch of time."""

WAYS = get_args(By)
"""All of them."""

DROPPED = -1
"""Part of a sample that lies too near to another part."""

_BLOCKS_ACROSS = 12  # default blocks along the longer side of the area
_BUFFERS_ACROSS = 4  # default block side in buffers: the buffer then eats at most half of a lone block


def splittable(
    data: Samples | PatchPlan | xr.Dataset, labels: xr.Dataset | None
) -> tuple[Samples | PatchPlan, Places]:
    """Return what is to be parted, and where and when it lies.

    Parameters
    ----------
    data : Samples, PatchPlan or xarray.Dataset
        Samples, patches, or a cube, whose labelled pixels are extracted.
    labels : xarray.Dataset or None
        Labels on the grid of the cube, or of the patches.

    Returns
    -------
    data : Samples or PatchPlan
        Those given, or extracted.
    places : Places
        One entry for each.

    Raises
    ------
    OptionError
        If labels and data do not go together.
    """
    check_kind(
        "samples",
        data,
        (Samples, PatchPlan, xr.Dataset),
        "extract or read them, or plan patches of a cube that cubekit.open gives",
    )
    if isinstance(data, xr.Dataset):
        if labels is None:
            raise OptionError("A cube is split by its labels: pass labels=cubekit.load_labels(…, cube).")
        data, labels = extract(data, labels), None
    return data, places_of(data, labels)


def check_positions(places: Places, *, by: By, buffer: float) -> None:
    """Raise unless every sample has a position.

    Parameters
    ----------
    places : Places
        To look at.
    by : {"blocks", "groups", "random"}
        What stays together, for the message.
    buffer : float
        Least distance in metres, for the message.

    Raises
    ------
    SplitError
        Counting those without.
    """
    unknown = int(np.isnan(places.position).any(axis=1).sum())
    if unknown:
        what = f"buffer={buffer:g}" if buffer else f"by={by!r}"
        remedy = (
            "give the table columns longitude and latitude"
            if places.what == "samples"
            else "give the data a CRS and regular coordinates"
        )
        raise SplitError(
            f"{unknown} of {len(places)} {places.what} have no position, which {what} needs: {remedy}, or "
            "use by='groups' without a buffer."
        )


def block_side(places: Places, block: float | None, buffer: float) -> float:
    """Choose the side of the blocks.

    Parameters
    ----------
    places : Places
        With positions.
    block : float or None
        Side in metres, if the user has said it.
    buffer : float
        Least distance in metres between parts.

    Returns
    -------
    float
        Metres.

    Raises
    ------
    OptionError
        If the side given is not above 0.
    """
    if block is not None:
        if not block > 0:
            raise OptionError(f"block={block!r} must be a number of metres above 0.")
        return block
    extent = float(np.ptp(places.position, axis=0).max())
    return max(extent / _BLOCKS_ACROSS, _BUFFERS_ACROSS * buffer, places.resolution or 1.0)


def units_of(places: Places, by: By, side: float | None, *, whole_groups: bool) -> IntArray:
    """Give a number to each unit that goes to one part as a whole.

    Parameters
    ----------
    places : Places
        To part.
    by : {"blocks", "groups", "random"}
        What a unit is.
    side : float or None
        Side of the blocks in metres.
    whole_groups : bool
        With blocks: put all of a group into the block that holds its middle.

    Returns
    -------
    numpy.ndarray
        (n,) int64 number of the unit, from 0.
    """
    group = np.unique(places.group, return_inverse=True)[1].reshape(-1)
    if by == "groups":
        return group
    if side is None:
        return np.arange(len(places))
    place = places.position
    if whole_groups:
        sums = np.stack([np.bincount(group, weights=column) for column in place.T], axis=1)
        place = (sums / np.bincount(group)[:, None])[group]
    column, row = np.floor((place - place.min(axis=0)) / side).astype("int64").T
    return np.unique(row * (column.max() + 1) + column, return_inverse=True)[1].reshape(-1)


def counts_by_unit(weights: FloatArray, unit: IntArray) -> FloatArray:
    """Add up class shares by unit.

    Parameters
    ----------
    weights : numpy.ndarray
        (n, class) shares.
    unit : numpy.ndarray
        (n,) number of the unit.

    Returns
    -------
    numpy.ndarray
        (unit, class) float64.
    """
    return np.stack([np.bincount(unit, weights=column) for column in weights.T], axis=1)


def keep_apart(position: FloatArray, planned: IntArray, buffer: float, *, footprint: float = 0.0) -> IntArray:
    """Drop samples nearer than the buffer to another part: training first, then validation.

    Parameters
    ----------
    position : numpy.ndarray
        (n, 2) middles in metres.
    planned : numpy.ndarray
        (n,) index of the part.
    buffer : float
        Least distance in metres.
    footprint : float, optional
        Side in metres of the square around each position that a network sees. The buffer is then kept between
        the squares, along at least one axis.

    Returns
    -------
    numpy.ndarray
        (n,) index of the part, `DROPPED` where the sample must go.
    """
    part = planned.copy()
    reach = buffer + footprint
    if not reach:
        return part
    norm = np.inf if footprint else 2
    for weak, strong in ((VALID, (TEST,)), (TRAIN, (VALID, TEST))):
        mine, theirs = np.flatnonzero(part == weak), np.isin(part, strong)
        if mine.size and theirs.any():
            # beyond the bound, which is exclusive, the distance comes back as infinity
            nearest, _ = cKDTree(position[theirs]).query(position[mine], p=norm, distance_upper_bound=reach)
            part[mine[np.isfinite(nearest)]] = DROPPED
    return part
