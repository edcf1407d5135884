"""Patches of pairs of dates, in memory, under the names that training knows."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cubekit.batching.patches import PatchPlan
from cubekit.errors import check_option
from cubekit.typing import BBox, BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from cubekit.batching.pairs import Pairs

IMAGES = ("coarse_t1", "coarse_t2", "fine_t1", "fine_t2")
"""Images of a pair of dates."""

Gaps: TypeAlias = Literal["drop", "keep"]
"""What becomes of patches in which an image has a gap."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairPatches:
    """Patches in memory, with the names that `cubekit.tasks.examples.Examples` gives the task "fuse".

    ``Examples(arrays=patches.arrays, bands=patches.bands, crs=patches.crs, resolution=patches.resolution,
    extent=patches.extent)`` is ready for training.
    """

    arrays: Mapping[str, FloatArray]
    """``coarse_t1``, ``coarse_t2``, ``fine_t1``, ``y`` ``(n, c, h, w)`` float32."""

    bands: tuple[str, ...]
    """Names along ``c``."""

    pair: IntArray
    """Number of the pair that each patch is from (n,)."""

    row: IntArray
    """First row of each patch in the scene (n,)."""

    column: IntArray
    """First column of each patch (n,)."""

    valid: BoolArray
    """Where all four images have data in all bands, ``(n, h, w)``."""

    dropped: int
    """Patches that were left out because of gaps."""

    crs: str | None
    """CRS of the scene; None where it has none."""

    resolution: float | None
    """Pixel size in units of the CRS."""

    extent: BBox | None
    """West, south, east, north of the scene in degrees."""

    def __len__(self) -> int:
        return len(self.pair)


def cut_patches(pairs: "Pairs", plan: PatchPlan, *, gaps: Gaps = "drop") -> PairPatches:
    """Cut all pairs along a plan.

    Parameters
    ----------
    pairs : Pairs
        Each is read once.
    plan : PatchPlan
        Over the rows and columns of the scene.
    gaps : {"drop", "keep"}, optional
        Leave out patches with a gap in any image, and count them.

    Returns
    -------
    PairPatches
        Pair by pair, row by row.

    Raises
    ------
    OptionError
        If `gaps` is not known.
    """
    check_option("gaps", gaps, ("drop", "keep"))
    rows, columns = plan.bounds("y"), plan.bounds("x")
    cut: dict[str, list[FloatArray]] = {name: [] for name in IMAGES}
    origin: list[tuple[int, int, int]] = []
    for number, pair in enumerate(pairs):
        images = pair.load()
        whole = np.logical_and.reduce([np.isfinite(image).all(axis=0) for image in images.values()])
        for (top, bottom), (left, right) in zip(rows, columns, strict=True):
            if gaps == "drop" and not whole[top:bottom, left:right].all():
                continue
            origin.append((number, int(top), int(left)))
            for name, image in images.items():
                cut[name].append(image[:, top:bottom, left:right])
    dropped = len(pairs) * len(plan) - len(origin)
    if dropped:
        _log.info("%d of %d patches have gaps and were left out", dropped, dropped + len(origin))
    shape = (0, len(pairs.bands), plan.input_dims["y"], plan.input_dims["x"])
    arrays = {
        "y" if name == "fine_t2" else name: np.stack(images) if images else np.empty(shape, "float32")
        for name, images in cut.items()
    }
    grid, place = pairs.grid, np.array(origin, dtype=np.intp).reshape(-1, 3)
    return PairPatches(
        arrays=arrays,
        bands=pairs.bands,
        pair=place[:, 0],
        row=place[:, 1],
        column=place[:, 2],
        valid=np.logical_and.reduce([np.isfinite(images).all(axis=1) for images in arrays.values()]),
        dropped=dropped,
        crs=None if grid is None else _name(grid),
        resolution=None if grid is None else abs(float(grid.resolution.x)),
        extent=None if grid is None else _degrees(grid),
    )


def _name(grid: GeoBox) -> str:
    epsg = None if grid.crs is None else grid.crs.epsg
    return str(grid.crs) if epsg is None else f"EPSG:{epsg}"


def _degrees(grid: GeoBox) -> BBox:
    to_degrees = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(*grid.boundingbox.bbox)
    return float(west), float(south), float(east), float(north)
