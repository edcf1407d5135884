"""What the scenes of a plan have at one pixel, read as the cube reads them."""

from typing import NamedTuple

import numpy as np
from odc.geo.geobox import GeoBox

from cubekit.cube.lay import Recode, recode
from cubekit.cube.plan import Plan
from cubekit.cube.quality import masked_by, shaped
from cubekit.cube.reader import read_onto
from cubekit.cube.resample import Pixels


class Look(NamedTuple):
    """What a scene has at a pixel."""

    quality: int | None
    """Stored number of the quality band; None where it has none, or the cube uses none."""

    masked: bool
    """Whether the mask hides the pixel."""

    stored: tuple[float | None, ...]
    """Number in the file of each band, on the grid of the cube; None where there is no data."""

    coded: tuple[float | None, ...]
    """The same in the coding of the cube, offset settled."""


def look_at(plan: Plan, scene: int, row: int, col: int) -> Look:
    """Read one pixel of one scene as a cube would.

    Parameters
    ----------
    plan : Plan
        Of the cube.
    scene : int
        Number of the scene.
    row, col : int
        Of the grid.

    Returns
    -------
    Look
        Nothing where the scene does not reach the pixel.

    Raises
    ------
    SourceError
        When a file cannot be read.
    """
    target = plan.grid[row : row + 1, col : col + 1]
    quality, masked = _masked(plan, scene, target)
    stored, coded = list[float | None](), list[float | None]()
    for band in range(len(plan.bands)):
        pixels = _read(plan, scene, band, target)
        if pixels is None or not pixels.valid[0, 0]:
            stored.append(None)
            coded.append(None)
            continue
        stored.append(float(pixels.values[0, 0]))
        numbers = recode(Recode.of(plan, scene, band), pixels.values, pixels.valid)
        coded.append(float(numbers[0, 0]))
    return Look(quality, masked, tuple(stored), tuple(coded))


def reaches(plan: Plan, scene: int, row: int, col: int) -> bool:
    """Tell whether a scene may have a pixel.

    Parameters
    ----------
    plan : Plan
        Of the cube.
    scene : int
        Number of the scene.
    row, col : int
        Of the grid.

    Returns
    -------
    bool
        By its outline.
    """
    top, left, bottom, right = plan.bounds[scene].tolist()
    return bool(top <= row < bottom and left <= col < right)


def _masked(plan: Plan, scene: int, target: GeoBox) -> tuple[int | None, bool]:
    """Return the stored quality and whether the mask hides the pixel; without quality band it does."""
    if plan.mask is None:
        return None, False
    halo = plan.mask.reach  # masked areas beyond the pixel grow into it
    pixels = _read(plan, scene, len(plan.bands), target.pad(halo) if halo else target)
    if pixels is None or not pixels.valid[halo, halo]:
        return None, True
    masked = masked_by(pixels.values, plan.mask) & pixels.valid
    hidden = shaped(masked, pixels.valid, plan.mask)
    return int(np.asarray(pixels.values)[halo, halo]), bool(hidden[halo, halo])


def _read(plan: Plan, scene: int, layer: int, target: GeoBox) -> Pixels | None:
    source = plan.source(scene, layer)
    if source is None:
        return None
    method = plan.resampling[layer] if layer < len(plan.bands) else "nearest"
    return read_onto(source, target, resampling=method, every_value=layer == len(plan.bands))
