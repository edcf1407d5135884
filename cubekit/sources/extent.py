"""The box around scenes, which may cross 180 degrees."""

from collections.abc import Iterable, Sequence

import numpy as np
import pystac
import shapely

from cubekit.errors import SourceError
from cubekit.typing import BBox


def bounding_box(scenes: Iterable[pystac.Item]) -> BBox:
    """Find the smallest box around scenes.

    Parameters
    ----------
    scenes : iterable of pystac.Item
        Those without ``bbox`` are left out.

    Returns
    -------
    tuple of float
        West, south, east, north in degrees; west is greater than east where the box crosses 180 degrees.

    Raises
    ------
    SourceError
        If no scene says where it is.
    """
    spans, lats = [], []
    for scene in scenes:
        if scene.bbox:
            half = len(scene.bbox) // 2
            spans.append(_longitudes(scene, scene.bbox[0], scene.bbox[half]))
            lats += [scene.bbox[1], scene.bbox[half + 1]]
    if not spans:
        raise SourceError("No item says where it is: bbox is missing everywhere.")
    west, east = _smallest_arc(spans)  # some products reach half a pixel beyond the globe
    return max(west, -180.0), max(min(lats), -90.0), min(east, 180.0), min(max(lats), 90.0)


def _longitudes(scene: pystac.Item, west: float, east: float) -> tuple[float, float]:
    """Return start and end (start < end, end may pass 180) of a scene's longitudes."""
    if west > east:
        return west, east + 360
    if east - west <= 180 or not scene.geometry:  # noqa: PLR2004
        return west, east
    # Scenes on the antimeridian state -180..180; their corners tell the truth.
    corners = np.unique(shapely.get_coordinates(shapely.geometry.shape(scene.geometry))[:, 0])
    if not np.any(np.abs(corners) < 180):  # noqa: PLR2004
        return west, east
    gaps = np.diff(corners)
    widest = int(np.argmax(gaps))
    return float(corners[widest + 1]), float(corners[widest] + 360)


def _smallest_arc(spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return west and east of what remains of the circle once its widest uncovered arc is taken out."""
    pieces: list[tuple[float, float]] = []
    for west, east in spans:
        pieces.append((west, min(east, 180.0)))
        if east > 180:  # noqa: PLR2004
            pieces.append((-180.0, east - 360))
    first = min(pieces)[0]
    reach, widest, arc = first, 0.0, None
    for west, east in sorted(pieces):
        if west - reach > widest:
            widest, arc = west - reach, (west, reach)
        reach = max(reach, east)
    if arc is None or first + 360 - reach >= widest:  # the widest is the one across 180 degrees
        return first, reach
    return arc
