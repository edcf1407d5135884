"""How parcels look over the year: leaf area from published double-logistic curves, one calendar a parcel.

Every growth is a window with soft flanks, ``amount * (s((t - start) / rise) - s((t - end) / fall))`` with the
logistic function ``s``: the double logistic of Beck et al. 2006 (doi:10.1016/j.rse.2005.10.021), used for
forests by Elmore et al. 2012 (doi:10.1111/j.1365-2486.2011.02521.x). A year of a parcel is a sum of such
windows: winter cover, main growth, regrowth after each cut, catch crop.

Days of the year are typical of Central Europe; for observed dates of crop stages and their spread between
fields see doi:10.3390/rs13245036, doi:10.3390/rs15082090 and doi:10.3390/rs16173183, for the dates and number
of cuts of meadows Schwieder et al. 2022 (doi:10.1016/j.rse.2021.112795).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from cubekit.testing.landscape import BROADLEAF, CEREAL, CONIFER, GRASSLAND, MAIZE
from cubekit.typing import BoolArray, FloatArray, IntArray

MOST = 7
"""Windows kept for each parcel; unused ones have amount 0."""

BEFORE, AFTER = -200.0, 600.0
"""Days of the year that mean: since before the year, until after it."""

_Number: TypeAlias = "FloatArray | float"
Window: TypeAlias = tuple[_Number, _Number, _Number, _Number, _Number]
"""Amount, start, rise, end, fall."""

Year: TypeAlias = tuple[list[Window], list[Window], list[Window]]
"""Windows of leaves, of needles, of straw."""

Draw: TypeAlias = Callable[[np.random.Generator, int], Year]
"""Draws the years of so many parcels."""


@dataclass(frozen=True)
class Growth:
    """Windows of growth for many parcels.

    Attributes
    ----------
    windows : numpy.ndarray
        float64 (5, parcel, window): amount (m2 of leaf per m2 of ground), start (day of the year), rise
        (days), end (day of the year), fall (days).
    """

    windows: FloatArray

    def at(self, day: float) -> FloatArray:
        """Evaluate at a day of the year.

        Parameters
        ----------
        day : float
            Day of the year, 1 for the first of January.

        Returns
        -------
        numpy.ndarray
            float64 (parcel,), not below 0.
        """
        amount, start, rise, end, fall = self.windows
        curve = amount * (_logistic((day - start) / rise) - _logistic((day - end) / fall))
        return np.asarray(np.maximum(curve, 0).sum(axis=1))


@dataclass(frozen=True)
class Calendars:
    """The year of each parcel.

    Attributes
    ----------
    leaf : Growth
        Green leaves of grasses, crops and broadleaf trees.
    needle : Growth
        Green needles.
    straw : Growth
        Yellow or brown leaves, standing straw, stubble.
    """

    leaf: Growth
    needle: Growth
    straw: Growth


def build_calendars(seed: int, kind: IntArray, draws: Mapping[int, Draw] | None = None) -> Calendars:
    """Draw the year of each parcel.

    Parameters
    ----------
    seed : int
        The same seed and kinds give the same calendars.
    kind : numpy.ndarray
        Integers (parcel,): index of the land cover.
    draws : mapping, optional
        Index to what draws the years of such parcels, in the order of drawing. Default: :data:`LAND_COVERS`.

    Returns
    -------
    Calendars
        What has no draw, such as water, has no growth at all.
    """
    rng = np.random.default_rng([seed, 2])
    n = kind.size
    leaf, needle, straw = (
        np.tile(np.array([0, 0, 1, 0, 1.0]).reshape(5, 1, 1), (1, n, MOST)) for _ in range(3)
    )
    for index, draw in (LAND_COVERS if draws is None else draws).items():
        members = np.flatnonzero(kind == index)
        for target, windows in zip((leaf, needle, straw), draw(rng, members.size), strict=True):
            for position, window in enumerate(windows):
                for row, value in enumerate(window):
                    target[row, members, position] = value
    return Calendars(Growth(leaf), Growth(needle), Growth(straw))


def _logistic(x: FloatArray) -> FloatArray:
    """Return the logistic function without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def timing(rng: np.random.Generator, n: int, spread: float) -> FloatArray:
    """Draw the days by which parcels run late; two standard deviations at most.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    n : int
        Number of parcels.
    spread : float
        Standard deviation in days.

    Returns
    -------
    numpy.ndarray
        (n,) days.
    """
    return spread * np.clip(rng.standard_normal(n), -2, 2)


def _chance(rng: np.random.Generator, n: int, share: float) -> BoolArray:
    """Choose a share of the parcels."""
    return np.asarray(rng.random(n) < share)


def windows(*windows: Window) -> list[Window]:
    """Collect windows; parcels share plain numbers.

    Parameters
    ----------
    *windows : Window
        Each of arrays (n,) or numbers.

    Returns
    -------
    list of Window
        The same.
    """
    return list(windows)


def broadleaf(rng: np.random.Generator, n: int) -> Year:
    """Draw beech and oak with some spruce among them: leaves from the end of April, colour in October.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    n : int
        Number of parcels.

    Returns
    -------
    tuple
        Windows of leaves, needles and straw.
    """
    spring, autumn = 120 + timing(rng, n, 7), 288 + timing(rng, n, 8)
    share = mixture(rng, n)
    leaf = windows(
        ((1 - share) * rng.normal(4.0, 0.5, n), spring, 5, autumn, 8),
        ((1 - share) * 0.6, spring, 5, 225, 25),  # the green-down of Elmore et al.
        (rng.uniform(0, 0.5, n), BEFORE, 1, AFTER, 1),  # evergreen undergrowth
    )
    straw = windows(((1 - share) * 1.4, autumn - 6, 6, autumn + 18, 6))
    return leaf, windows((share * 3.5, BEFORE, 1, AFTER, 1)), straw


def conifer(rng: np.random.Generator, n: int) -> Year:
    """Draw spruce and pine, evergreen, shoots in May; most stands hold some broadleaf trees.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    n : int
        Number of parcels.

    Returns
    -------
    tuple
        Windows of leaves, needles and straw.
    """
    share = mixture(rng, n)
    needle = windows(
        ((1 - share) * np.clip(rng.normal(3.6, 0.6, n), 2, 5), BEFORE, 1, AFTER, 1),
        ((1 - share) * 0.6, 142 + timing(rng, n, 6), 8, 270, 25),
    )
    leaf = windows(
        (share * 4.2, 120 + timing(rng, n, 7), 5, 288 + timing(rng, n, 8), 8),
        (rng.uniform(0.1, 0.7, n), BEFORE, 1, AFTER, 1),
    )
    return leaf, needle, windows((share * 1.2, 282, 6, 304, 6))


def mixture(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw the share of the other kind of tree: stands are named after the majority.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    n : int
        Number of parcels.

    Returns
    -------
    numpy.ndarray
        (n,) below 0.48.
    """
    return np.asarray(0.48 * rng.beta(1, 1.6, n))


def _grassland(rng: np.random.Generator, n: int) -> Year:
    """Pastures, meadows cut up to four times, leys that are ploughed and resown; some dry out in summer."""
    cuts = rng.choice([0, 1, 2, 3, 4], n, p=[0.22, 0.18, 0.25, 0.2, 0.15])
    first = np.choose(cuts, [AFTER, 175, 150, 145, 138]) + timing(rng, n, 9)
    interval = np.choose(cuts, [65.0, 65, 65, 50, 42]) + rng.uniform(-6, 6, n)
    spring, autumn = 95 + timing(rng, n, 10), 312 + timing(rng, n, 10)
    rich = rng.uniform(0.6, 1.1, n)
    # about one meadow in eight is renewed a year, in spring or after the second cut
    ploughed = np.where(
        _chance(rng, n, 0.12), np.where(_chance(rng, n, 0.5), 108, 228) + timing(rng, n, 8), AFTER
    )
    sown = ploughed + rng.uniform(45, 60, n)
    dry = np.where(_chance(rng, n, 0.35), rng.uniform(0.3, 0.8, n), 0.0)
    leaf: list[Window] = [(rng.uniform(0.3, 1.5, n), BEFORE, 1, np.minimum(ploughed, AFTER), 2)]
    leaf.append((np.where(ploughed < AFTER, rich * 3, 0), sown, 7, np.maximum(autumn, sown + 1), 14))
    start, rise = spring, 10.0
    for number in range(5):
        end = np.minimum(np.where(number < cuts, first + number * interval, autumn), ploughed)
        grows = (number <= cuts) & (start < np.minimum(autumn, ploughed) - 15)
        summer = (start < 215) & (end > 190) & (number > 0)  # noqa: PLR2004
        amount = np.where(grows, rich * (3.4 if number == 0 else 2.6) * np.where(summer, 1 - dry, 1), 0)
        leaf.append((amount, start, rise, np.minimum(end, autumn), np.where(number < cuts, 1.2, 14)))
        start, rise = end + rng.uniform(10, 18, n), 5.0
    straw = windows(
        (2.2 * dry, 190 + timing(rng, n, 8), 8, 240 + timing(rng, n, 8), 8), (0.5, 318, 12, AFTER, 1)
    )
    return leaf, [], [*straw, (0.5, BEFORE, 1, 85, 10)]


def _cereal(rng: np.random.Generator, n: int) -> Year:
    """Barley, wheat, late-sown rye, whole-crop silage: green in winter, then stubble, catch crop or seed."""
    crop = rng.choice(4, n, p=[0.27, 0.46, 0.13, 0.14])
    spring = np.choose(crop, [88.0, 96, 106, 92]) + timing(rng, n, 10)
    ripe = np.choose(crop, [164.0, 180, 190, 158]) + timing(rng, n, 9)
    silage = crop == 3  # noqa: PLR2004 (cut green for biogas)
    harvest = np.where(silage, ripe + 1, ripe + rng.uniform(14, 26, n))
    plough = harvest + rng.uniform(4, 50, n) * np.where(silage, 0.3, 1)
    catch = _chance(rng, n, 0.5) | silage
    winter = np.choose(crop, [1.1, 0.7, 0.15, 1.0]) * rng.uniform(0.3, 1.7, n)
    leaf = windows(
        (winter, BEFORE, 1, ripe, np.where(silage, 1.2, 6)),
        (np.clip(rng.normal(3.6, 0.8, n), 1.5, 5.5), spring, 10, ripe, np.where(silage, 1.2, 6)),
        (np.where(catch, rng.uniform(0.8, 3.4, n), 0), plough + 22 + timing(rng, n, 7), 8, AFTER, 1),
        (np.where(catch, 0, rng.uniform(0.1, 0.9, n)), 292 + timing(rng, n, 8), 10, AFTER, 1),
        (rng.uniform(0, 1.0, n), harvest + 10, 6, plough + 12, 2),  # volunteers and weeds in the stubble
    )
    straw = windows(
        (2.4 * ~silage, ripe + 1, 5, harvest, 1), (rng.uniform(0.4, 1.2, n), harvest, 1, plough, 1.5)
    )
    return leaf, [], straw


def _maize(rng: np.random.Generator, n: int) -> Year:
    """Silage and grain maize after bare soil, a catch crop, or grass cut in May; harvest from September."""
    before = rng.choice(3, n, p=[0.4, 0.35, 0.25])
    late = before == 2  # noqa: PLR2004 (a cut of grass comes first)
    spring = 166 + 12 * late + timing(rng, n, 11)
    grain = _chance(rng, n, 0.3) & ~late
    ripe = 258 + 12 * grain + timing(rng, n, 9)
    harvest = ripe + rng.uniform(4, 12, n) + 10 * grain
    cover = np.choose(before, [rng.uniform(0, 0.6, n), rng.uniform(0.6, 2.6, n), rng.uniform(1.5, 3.5, n)])
    removed = 106 + 28 * late + timing(rng, n, 10)
    leaf = windows(
        (cover * 0.5, BEFORE, 1, removed, 2),
        (cover * np.where(late, 1, 0.5), 84 + timing(rng, n, 8), 8, removed, 2),
        (np.clip(rng.normal(3.6, 0.8, n), 1.4, 5.5), spring, 7.5, ripe, 7),
        (np.where(_chance(rng, n, 0.5), rng.uniform(0.2, 1.4, n), 0), harvest + 22, 8, AFTER, 1),
    )
    straw = windows(
        (1.6, ripe - 4, 7, harvest, 1.5), (0.7, harvest, 1.5, harvest + rng.uniform(10, 90, n), 2)
    )
    return leaf, [], [*straw, (0.4 * (before == 0), BEFORE, 1, 95, 8)]


LAND_COVERS: Mapping[int, Draw] = MappingProxyType(
    {BROADLEAF: broadleaf, CONIFER: conifer, GRASSLAND: _grassland, CEREAL: _cereal, MAIZE: _maize}
)
"""What draws the years of each land cover."""
