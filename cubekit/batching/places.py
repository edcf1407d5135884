"""What a split must know of samples or patches: where, when, which group, which classes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubekit.batching.patches import PatchPlan
from cubekit.batching.position import crs_name, metric_positions, world_positions
from cubekit.batching.samples import Samples
from cubekit.cube.contract import geobox_of
from cubekit.errors import CubeError, OptionError
from cubekit.labels import class_table
from cubekit.typing import FloatArray, IntArray

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """One entry for each sample or patch, in their order."""

    what: str
    """``"samples"`` or ``"patches"``, for messages."""

    position: FloatArray
    """(n, 2) float64 middles in metres; NaN where unknown."""

    crs: str | None
    """CRS of the positions."""

    footprint: float
    """Side in metres of the square around each position; 0 for pixels."""

    resolution: float | None
    """Pixel size in metres."""

    group: IntArray
    """(n,) int64: what belongs together; of patches, those at one place."""

    weights: FloatArray
    """(n, class) float64 share of each class."""

    names: tuple[str, ...]
    """Classes; one nameless where patches have no labels."""

    span: Times
    """(n, 2) datetime64[ns]: first and last date that is looked at."""

    target: Times
    """(n, 2) datetime64[ns]: first and last date that is learned: those of the horizon, else `span`."""

    def __len__(self) -> int:
        return len(self.group)

    @property
    def labelled(self) -> bool:
        """Whether classes are known."""
        return self.names != ("",)

    def counts(self) -> dict[str, float]:
        """Return how many samples each class has.

        Returns
        -------
        dict
            Sums of shares by class name.
        """
        return dict(zip(self.names, self.weights.sum(axis=0).tolist(), strict=True))


def places_of(data: Samples | PatchPlan, labels: xr.Dataset | None = None) -> Places:
    """Look at samples, or patches.

    Parameters
    ----------
    data : Samples or PatchPlan
        Samples carry their classes.
    labels : xarray.Dataset, optional
        From :func:`cubekit.load_labels`, on the grid of the patches: patches count for the classes of their
        pixels.

    Returns
    -------
    Places
        Nothing is read of the cube but its coordinates.

    Raises
    ------
    OptionError
        If `labels` are given with samples, or lie on another grid than the patches.
    """
    if isinstance(data, PatchPlan):
        return _of_patches(data, labels)
    if labels is not None:
        raise OptionError("labels go with a cube or a plan of patches; these samples have theirs already.")
    shares = data.y.ndim > 1
    return Places(
        what="samples",
        position=data.position,
        crs=data.crs,
        footprint=0.0,
        resolution=data.resolution,
        group=data.group,
        weights=np.asarray(data.y, "float64") if shares else np.eye(len(data.classes))[data.y],
        names=data.classes.names,
        span=data.spans(),
        target=data.spans(),
    )


def _of_patches(plan: PatchPlan, labels: xr.Dataset | None) -> Places:
    """Look at patches."""
    (top, bottom), (left, right) = (plan.bounds(dim).astype("float64").T for dim in ("y", "x"))
    position, crs, pixel = _middles(plan, (top + bottom) / 2, (left + right) / 2)
    corner = np.stack([plan.bounds("y")[:, 0], plan.bounds("x")[:, 0]], axis=1)
    span, target = _dates(plan)
    names: tuple[str, ...] = ("",)
    weights: FloatArray = np.ones((len(plan), 1))
    if labels is not None:
        names = class_table(labels).names
        weights = plan.shares(labels["label"], len(names))
    side = max(plan.input_dims[dim] for dim in ("y", "x"))
    return Places(
        what="patches",
        position=position,
        crs=crs,
        footprint=side * (pixel or 0.0),
        resolution=pixel,
        group=np.unique(corner, axis=0, return_inverse=True)[1].reshape(-1).astype("int64"),
        weights=weights,
        names=names,
        span=span,
        target=target,
    )


def _middles(
    plan: PatchPlan, row: FloatArray, column: FloatArray
) -> tuple[FloatArray, str | None, float | None]:
    """Return middles of patches in metres, their CRS and the pixel size; unknown where data has no grid."""
    try:
        grid = geobox_of(plan.ds)
    except CubeError:
        return np.full((len(row), 2), np.nan), None, None
    position, crs = metric_positions(*world_positions(grid, column, row), crs_name(grid))
    ends = np.array([0.0, 1.0])
    pixel, _ = metric_positions(*world_positions(grid, ends, ends), crs_name(grid))
    # of pixels that are no squares in metres the longer side, so that squares are never too small
    return position, crs, float(np.abs(pixel[1] - pixel[0]).max())


def _dates(plan: PatchPlan) -> tuple[Times, Times]:
    """Return first and last date of patches, and of what they are to tell."""
    if "time" not in plan.ds.coords:
        unknown = np.full((len(plan), 2), np.datetime64("NaT", "ns"))
        return unknown, unknown
    times = plan.ds["time"].to_numpy().astype("datetime64[ns]")
    first, last = plan.bounds("time").T
    span = np.stack([times[first], times[last - 1]], axis=1)
    learned = np.stack([times[last - plan.horizon], times[last - 1]], axis=1) if plan.horizon else span
    return span, learned
