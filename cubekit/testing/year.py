"""A year of passes over the sample area, and what the archive gets from each: numbers for every band."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from cubekit.errors import OptionError
from cubekit.testing import sky as air
from cubekit.testing.landscape import Landscape, build_landscape
from cubekit.testing.spectra import BANDS
from cubekit.testing.sun import Sun, sun_at
from cubekit.testing.surface import Surface, build_surface
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

FINE = ("B02", "B03", "B04", "B08")
"""Bands at 10 m; all others, and SCL, come at 20 m."""

YEAR, LATITUDE, SOLAR_HOUR = 2023, 48.2, 11.2
REVISIT, MOST = 5, 36  # days between passes of one orbit; more dates would need other orbits
OFFSET_SINCE = "04.00"
OLD_BASELINE, NEW_BASELINE = "03.01", "05.09"
EDGE, LEAN = 0.83, 0.12  # where the partial swath ends: share of the width, columns a row


@dataclass(frozen=True)
class Pass:
    """One overflight.

    Attributes
    ----------
    number : int
        Position in the year, from 0.
    moment : datetime.datetime
        UTC.
    orbit : int
        Relative orbit; the swath of 22 ends inside the area, that of 122 covers it.
    baseline : str
        Processing baseline; since 04.00 digital numbers carry an offset of 1000.
    weather : cubekit.testing.sky.Weather
        State of the air.
    sun : Sun
        Position of the sun.
    """

    number: int
    moment: datetime
    orbit: int
    baseline: str
    weather: air.Weather
    sun: Sun

    @property
    def offset(self) -> int:
        """Added to reflectance * 10000."""
        return 1000 if self.baseline >= OFFSET_SINCE else 0

    @property
    def is_partial(self) -> bool:
        """Whether the swath ends inside the area."""
        return self.orbit == 22  # noqa: PLR2004


@dataclass(frozen=True)
class Year:
    """Ground, sky and passes; everything follows from the seed.

    Attributes
    ----------
    seed : int
        Seed of all random draws.
    surface : Surface
        The ground.
    sky : cubekit.testing.sky.Sky
        The clouds.
    passes : tuple of Pass
        In order of time.
    """

    seed: int
    surface: Surface
    sky: air.Sky
    passes: tuple[Pass, ...]

    @property
    def land(self) -> Landscape:
        """The landscape."""
        return self.surface.land

    def reflectance(self, flight: Pass) -> FloatArray:
        """Return observed reflectance of one pass, float32 (band, y, x) at 10 m, with clouds and noise."""
        return self._observed(flight)[0]

    def deliver(self, flight: Pass) -> dict[str, Array]:
        """Return what the archive holds for one pass.

        Parameters
        ----------
        flight : Pass
            One of :attr:`passes`.

        Returns
        -------
        dict
            Asset name to array (y, x) over the whole area: uint16 digital numbers at 10 or 20 m, nodata 0,
            valid pixels at least 1; ``SCL`` uint8 at 20 m.
        """
        observed, look = self._observed(flight)
        coarse = air.halve(observed)
        green, red, infrared = (coarse[BANDS.index(name)] for name in ("B03", "B04", "B8A"))
        inside = swath(self.land.parcel.shape, flight)
        scl = air.classify_scene(look, green=green, red=red, infrared=infrared)
        out: dict[str, Array] = {"SCL": np.where(inside, scl, air.NODATA).astype(np.uint8)}
        for band, name in enumerate(BANDS):
            values, seen = (
                (observed[band], inside.repeat(2, 0).repeat(2, 1)) if name in FINE else (coarse[band], inside)
            )
            numbers = np.clip(np.round(values * 10_000) + flight.offset, 1, 65_535)
            out[name] = np.where(seen, numbers, 0).astype(np.uint16)
        return out

    def _observed(self, flight: Pass) -> tuple[FloatArray, air.Look]:
        """Look at the ground through the air of the day."""
        rng = np.random.default_rng([self.seed, 6, flight.number])
        day = flight.moment.timetuple().tm_yday
        look = self.sky.look(rng, day, flight.weather, flight.sun)
        ground = self.surface.reflectance(day, moisture=flight.weather.moisture, sun=flight.sun)
        return air.observe(ground, look, rng), look


def build_year(seed: int, shape: tuple[int, int], dates: int) -> Year:
    """Set up a year of passes over an invented landscape.

    Parameters
    ----------
    seed : int
        The same arguments give the same year.
    shape : tuple of int
        Rows and columns of 10 m pixels, both even.
    dates : int
        Number of passes, 1 to 36.

    Returns
    -------
    Year
        Nothing is simulated until it is asked for.

    Raises
    ------
    OptionError
        If there are more dates than the orbit allows.
    """
    if not 1 <= dates <= MOST:
        raise OptionError(
            f"dates={dates} is not accepted: a year of the sample archive has 1 to {MOST} dates."
        )
    return year_over(build_surface(seed, build_landscape(seed, shape)), seed, dates)


def year_over(surface: Surface, seed: int, dates: int) -> Year:
    """Set up a year of passes over a given surface; see :func:`build_year`."""
    shape = surface.land.parcel.shape
    return Year(seed, surface, air.build_sky(seed, shape), _passes(seed, dates))


def _passes(seed: int, dates: int) -> tuple[Pass, ...]:
    """Choose dates on the revisit cycle, spread over the year and irregular."""
    rng = np.random.default_rng([seed, 7])
    step = 365 / REVISIT / dates
    slack = min((step - 1) / 2, 0.5)
    cycle = np.floor((np.arange(dates) + 0.5) * step + rng.uniform(-slack, slack, dates))
    orbits = [22 if number % 6 == 2 else 122 for number in range(dates)]  # noqa: PLR2004
    days = cycle * REVISIT + np.where(np.array(orbits) == 122, 3, 1)  # noqa: PLR2004
    weather = air.draw_weather(seed, days)
    start = datetime(YEAR, 1, 1, 10, 11, 31, 24_000, tzinfo=UTC)
    return tuple(
        Pass(
            number=number,
            moment=start + timedelta(days=int(day) - 1),
            orbit=orbits[number],
            baseline=OLD_BASELINE if number < max(1, dates // 8) else NEW_BASELINE,
            weather=weather[number],
            sun=sun_at(day, latitude=LATITUDE, solar_hour=SOLAR_HOUR),
        )
        for number, day in enumerate(days)
    )


def swath_edge(shape: tuple[int, int], row: IntArray | float) -> FloatArray:
    """Return the column, in 10 m pixels of the whole area, at which the partial swath ends in a row."""
    return np.asarray(shape[1] * EDGE + LEAN * (row - shape[0] / 2))


def swath(shape: tuple[int, int], flight: Pass) -> BoolArray:
    """Tell which 20 m pixels a pass covers.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the area in 10 m pixels.
    flight : Pass
        Full or partial.

    Returns
    -------
    numpy.ndarray
        bool (y/2, x/2).
    """
    rows, cols = np.indices((shape[0] // 2, shape[1] // 2)) * 2 + 1
    if not flight.is_partial:
        return np.ones(rows.shape, bool)
    return np.asarray(cols < swath_edge(shape, rows))
