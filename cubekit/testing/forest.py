"""A mountain forest for the demo of tree species: stands of five kinds, a year of scenes, field plots.

Species are told apart by when they leaf out and turn, not by one image: larches flush early and turn in
autumn, one of the two earlier than the other; broadleaves come later; conifers stay green; shrubs stay thin.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from cubekit.testing.archive import rgb, write_cog, write_index, write_scenes
from cubekit.testing.fractal import fractal
from cubekit.testing.landscape import BROADLEAF, CONIFER, Landscape, renumber, stands, without_slivers
from cubekit.testing.phenology import (
    AFTER,
    BEFORE,
    Draw,
    Year,
    broadleaf,
    build_calendars,
    conifer,
    timing,
    windows,
)
from cubekit.testing.scene import CRS, area_shape, transform
from cubekit.testing.surface import build_surface
from cubekit.testing.year import year_over
from cubekit.typing import IntArray

if TYPE_CHECKING:
    import geopandas as gpd

SPECIES = ("deci_broad", "ever_coni", "larch_CN", "larch_JP", "shrubland")
"""Deciduous broadleaves, evergreen conifers, two larches, shrubs; in the order of their codes, from 1."""

COLOURS = ("#7fb241", "#1b5e3b", "#e3a72f", "#c8622d", "#b9a58c")
"""One colour for each species."""

PLOTS = (70, 60, 45, 30, 25)
"""Field plots of each species, where the forest holds so many: some are rare."""

DECI_BROAD, EVER_CONI, LARCH_CN, LARCH_JP, SHRUB = range(5)
_LOOKS_LIKE = np.array([BROADLEAF, CONIFER, CONIFER, CONIFER, BROADLEAF])  # crowns, and the ground below
_SHARE = (0.3, 0.25, 0.2, 0.15, 0.1)
_INSIDE = 2  # pixels between a plot and the edge of its stand


@dataclass(frozen=True)
class ForestArchive:
    """What lies where.

    Attributes
    ----------
    items : pathlib.Path
        STAC ItemCollection with hrefs relative to its folder.
    plots : pathlib.Path
        GeoPackage of plots: squares of 2 x 2 pixels with ``Class`` and ``plot``.
    truth : pathlib.Path
        COG of species codes, 1 to 5; every pixel has one.
    """

    items: Path
    plots: Path
    truth: Path


def write_forest_archive(folder: Path, *, seed: int = 0, size: int = 140, dates: int = 30) -> ForestArchive:
    """Make a year of Sentinel-2 scenes over an invented forest.

    Parameters
    ----------
    folder : pathlib.Path
        Files of the same names are overwritten.
    seed : int, optional
        Seed of land, weather and plots.
    size : int, optional
        Pixels a side of each of the two tiles, at 10 m; even.
    dates : int, optional
        Dates in 2023, 1 to 36.

    Returns
    -------
    ForestArchive
        Paths; the items are written last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    land, species = _land(seed, area_shape(size))
    surface = replace(build_surface(seed, land), calendars=build_calendars(seed, species, CALENDARS))
    surface.tint[:] = surface.tint**0.6  # one kind of forest differs less from stand to stand than fields do
    archive = ForestArchive(folder / "items.json", folder / "plots.gpkg", folder / "truth.tif")
    items = write_scenes(folder, year_over(surface, seed, dates), size)
    _plots(seed, land, species).to_file(archive.plots, driver="GPKG", layer="plots", engine="pyogrio")
    colours = {code: rgb(colour) for code, colour in enumerate(COLOURS, 1)}
    write_cog(archive.truth, (species[land.parcel] + 1).astype(np.uint8), resolution=10, colours=colours)
    write_index(folder, items)
    return archive


def _land(seed: int, shape: tuple[int, int]) -> tuple[Landscape, IntArray]:
    """Invent stands on a mountain side: number of the stand, and species of each."""
    rng = np.random.default_rng([seed, 11])
    relief = 220 * fractal(rng, shape, longest=180, slope=2.4)
    parcel = renumber(without_slivers(stands(rng, shape)))
    inside = np.bincount(parcel.ravel())
    score = np.stack(
        [
            np.bincount(parcel.ravel(), weights=fractal(rng, shape, longest=70, slope=1.8).ravel()) / inside
            for _ in SPECIES
        ]
    )
    score += rng.normal(0, 0.25, score.shape) + 0.9 * np.log(_SHARE)[:, None]
    species = score.argmax(axis=0)
    track = np.zeros(shape, np.float32)
    return Landscape(parcel, _LOOKS_LIKE[species], relief.astype(np.float32), track), species


def _larch(rng: np.random.Generator, n: int, *, spring: float, autumn: float, area: float) -> Year:
    """Draw larches: needles that flush in spring and turn yellow, and the broadleaves among them."""
    start, end = spring + timing(rng, n, 5), autumn + timing(rng, n, 6)
    mixed = 0.4 * rng.beta(1, 2, n)
    needle = windows(((1 - mixed) * rng.normal(area, 0.4, n), start, 6, end, 6))
    leaf = windows(
        (mixed * 4.0, 122 + timing(rng, n, 6), 5, 286 + timing(rng, n, 7), 8),
        (rng.uniform(0.1, 0.6, n), BEFORE, 1, AFTER, 1),
    )
    return leaf, needle, windows(((1 - mixed) * 1.3, end - 5, 5, end + 16, 5))


def _larch_cn(rng: np.random.Generator, n: int) -> Year:
    """Draw larches that turn at the end of September."""
    return _larch(rng, n, spring=118, autumn=272, area=2.9)


def _larch_jp(rng: np.random.Generator, n: int) -> Year:
    """Draw larches that flush earlier, stay green longer and stand denser."""
    return _larch(rng, n, spring=108, autumn=291, area=3.6)


def _shrubs(rng: np.random.Generator, n: int) -> Year:
    """Draw thin shrubs over grass."""
    start, end = 128 + timing(rng, n, 8), 276 + timing(rng, n, 8)
    leaf = windows(
        (np.clip(rng.normal(1.5, 0.4, n), 0.6, 2.6), start, 9, end, 12),
        (rng.uniform(0.2, 0.6, n), BEFORE, 1, AFTER, 1),
    )
    return leaf, [], windows((0.9, end, 12, AFTER, 1), (0.9, BEFORE, 1, start, 10))


CALENDARS: Mapping[int, Draw] = MappingProxyType(
    {DECI_BROAD: broadleaf, EVER_CONI: conifer, LARCH_CN: _larch_cn, LARCH_JP: _larch_jp, SHRUB: _shrubs}
)
"""What draws the years of each species."""


def _plots(seed: int, land: Landscape, species: IntArray) -> "gpd.GeoDataFrame":
    """Choose 2 x 2 pixels well inside stands."""
    import geopandas as gpd
    from scipy.ndimage import maximum_filter, minimum_filter
    from shapely import box

    rng = np.random.default_rng([seed, 12])
    side = 2 * _INSIDE + 2
    inner = minimum_filter(land.parcel, side) == maximum_filter(land.parcel, side)
    inner[: _INSIDE + 1] = inner[-_INSIDE - 1 :] = False
    inner[:, : _INSIDE + 1] = inner[:, -_INSIDE - 1 :] = False
    rows, cols = np.nonzero(inner & (np.indices(inner.shape).sum(axis=0) % 2 == 0))
    kind = species[land.parcel[rows, cols]]
    at = transform(10)
    shapes, names = [], []
    for index, count in enumerate(PLOTS):
        members = rng.permutation(np.flatnonzero(kind == index))
        taken: list[int] = []
        for place in members:
            near = [max(abs(rows[place] - rows[t]), abs(cols[place] - cols[t])) for t in taken]
            if len(taken) < count and (not near or min(near) > side):
                taken.append(int(place))
        shapes += [box(*(at @ (cols[t], rows[t] + 2)), *(at @ (cols[t] + 2, rows[t]))) for t in taken]
        names += [SPECIES[index]] * len(taken)
    return gpd.GeoDataFrame({"Class": names, "plot": np.arange(len(names))}, geometry=shapes, crs=CRS)
