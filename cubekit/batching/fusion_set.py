"""A published set of coarse and fine images as pairs of dates."""

import logging
from collections.abc import Sequence
from typing import Literal

from odc.geo.geobox import GeoBox

from cubekit.batching.pairs import Pairs, open_pairs
from cubekit.cube.contract import MAIN
from cubekit.cube.stack import open_stack
from cubekit.sources.fusion_sets import FusionSet, fusion_set
from cubekit.typing import StrPath

_log = logging.getLogger(__name__)


def open_fusion_set(
    layout: str | FusionSet,
    root: StrPath,
    *,
    tolerance: float = 0,
    steps: Literal["consecutive", "all"] | Sequence[tuple[str, str]] = "consecutive",
    grid: GeoBox | None = None,
) -> Pairs:
    """Open a data set whose coarse images lie on the fine grid already, as all published ones do.

    Parameters
    ----------
    layout : str or FusionSet
        Key of :data:`cubekit.sources.fusion_sets.FUSION_SETS` (CIA, LGC, AHB, DX, TJ, WH, IC, BC), or how
        another set is laid out.
    root : path
        Its folder, or the one above.
    tolerance : float, optional
        Days that a coarse date may lie from the fine date that it belongs to.
    steps : {"consecutive", "all"} or sequence of tuple, optional
        Which dates make a pair, as for :func:`cubekit.batching.pairs.open_pairs`.
    grid : odc.geo.geobox.GeoBox, optional
        Where the images lie, if files do not say (maps need to know).

    Returns
    -------
    Pairs
        Lazy, in reflectance: stored numbers divided by the set's scale.

    Raises
    ------
    ArchiveError
        If files are not where the layout expects them; the message draws what is expected and what is there.
    UnknownNameError
        If no such set is known.
    OptionError
        If fewer than two dates are in both folders.
    """
    layout = fusion_set(layout) if isinstance(layout, str) else layout
    files = layout.files(root)
    if files.unmatched:
        _log.warning(
            "%s: %d file(s) follow no pattern of %s and are left out: %s",
            files.folder,
            len(files.unmatched),
            layout.name,
            ", ".join(file.name for file in files.unmatched[:6]),
        )
    fine = open_stack(
        files.fine,
        layout.bands,
        scale=layout.scale,
        offset=layout.offset,
        nodata=layout.nodata,
        grid=grid,
    )
    scale = layout.scale if layout.coarse_scale is None else layout.coarse_scale
    coarse = open_stack(files.coarse, layout.bands, scale=scale, nodata=layout.nodata, grid=fine[MAIN])
    return open_pairs(fine, coarse, tolerance=tolerance, steps=steps)
