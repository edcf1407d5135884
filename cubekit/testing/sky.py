"""What lies between ground and sensor: drifting clouds, their shadows, cirrus, haze, noise of the sensor."""

from dataclasses import dataclass

import numpy as np

from cubekit.testing.fractal import fractal
from cubekit.testing.landscape import PIXEL
from cubekit.testing.sun import Sun
from cubekit.typing import FloatArray, IntArray

CLOUD = np.array([0.66, 0.64, 0.64, 0.65, 0.67, 0.68, 0.68, 0.69, 0.42, 0.30])
"""Reflectance of thick cloud in :data:`cubekit.testing.spectra.BANDS`; ice and water absorb in SWIR."""

SHADE = np.array([0.50, 0.56, 0.62, 0.64, 0.67, 0.69, 0.71, 0.72, 0.82, 0.84])
"""Share of the light that a full cloud shadow takes away; blue sky light fills in at short wavelengths."""

HAZE = np.array([1.0, 0.7, 0.5, 0.45, 0.4, 0.36, 0.32, 0.3, 0.08, 0.04])
"""Shape of what aerosol correction leaves behind (doi:10.3390/rs10020352)."""

SOFT = 0.6  # standard deviations of the cloud field from clear sky to opaque: the width of a cloud's margin
CLOUD_TOP = (600.0, 1800.0)  # metres
MEDIUM_FROM, HIGH_FROM, CIRRUS_FROM, SHADOW_FROM = 0.14, 0.6, 0.05, 0.18
NODATA, SHADOW, VEGETATION, BARE, WATER, MEDIUM, HIGH, CIRRUS = 0, 3, 4, 5, 6, 8, 9, 10


@dataclass(frozen=True)
class Weather:
    """The state of the air on one day.

    Attributes
    ----------
    cover : float
        Share of the area under cloud, 0-1.
    cirrus : float
        Share of the area under thin high cloud, 0-1.
    moisture : float
        Of the soil, 0-1.
    """

    cover: float
    cirrus: float
    moisture: float


@dataclass(frozen=True)
class Look:
    """What hides the ground on one day; float32 (y, x), 0 for nothing to 1 for everything.

    Attributes
    ----------
    cloud, cirrus, shadow : numpy.ndarray
        Opacity of low cloud, of cirrus, and depth of cloud shadow.
    """

    cloud: FloatArray
    cirrus: FloatArray
    shadow: FloatArray


@dataclass(frozen=True)
class Sky:
    """Cloud layers larger than the area that join at their edges, so that the wind can carry them round.

    Attributes
    ----------
    layers : numpy.ndarray
        float32 (3, y, x): two layers that drift past each other, so that clouds change shape, and cirrus.
    shape : tuple of int
        Rows and columns of the area, the upper left part of the layers.
    """

    layers: FloatArray
    shape: tuple[int, int]

    def look(self, rng: np.random.Generator, day: float, weather: Weather, sun: Sun) -> Look:
        """Tell what hides the ground.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws gusts and cloud height.
        day : float
            Days since the start; the wind has blown so long.
        weather : Weather
            How much cloud there is.
        sun : Sun
            Casts the shadows.

        Returns
        -------
        Look
            Opacities and shadow depth.
        """
        low = self._drifted(0, day * np.array([31, 173]) + rng.normal(0, 40, 2))
        low = 0.8 * low + 0.6 * self._drifted(1, day * np.array([-67, 121]) + rng.normal(0, 40, 2))
        cloud = self._opacity(low, weather.cover, SOFT)
        cirrus = 0.3 * self._opacity(self._drifted(2, day * np.array([90, 410])), weather.cirrus, 1.5)
        far = rng.uniform(*CLOUD_TOP) * np.tan(min(sun.zenith, 1.3)) / PIXEL
        # the shadow falls away from the sun: rows count southwards
        away = (round(far * np.cos(sun.azimuth)), round(-far * np.sin(sun.azimuth)))
        shadow = np.roll(cloud, away, (0, 1))
        rows, cols = self.shape
        return Look(cloud[:rows, :cols], cirrus[:rows, :cols], shadow[:rows, :cols])

    def _drifted(self, layer: int, way: FloatArray) -> FloatArray:
        """Carry a layer by so many pixels south and east."""
        return np.roll(self.layers[layer], np.round(way).astype(int), (0, 1))

    def _opacity(self, field: FloatArray, cover: float, soft: float) -> FloatArray:
        """Cut a field so that a share of the area is cloudy, with margins that thin out."""
        rows, cols = self.shape
        if cover <= 0:
            return np.zeros_like(field)
        threshold = np.quantile(field[:rows, :cols], 1 - cover)
        return np.asarray(np.clip((field - threshold) / soft + MEDIUM_FROM, 0, 1), dtype=np.float32)


def build_sky(seed: int, shape: tuple[int, int]) -> Sky:
    """Make the clouds of a year.

    Parameters
    ----------
    seed : int
        The same seed and shape give the same sky.
    shape : tuple of int
        Rows and columns of the area.

    Returns
    -------
    Sky
        Layers at least 10 km wide.
    """
    from scipy.fft import next_fast_len

    rng = np.random.default_rng([seed, 4])
    size = (
        next_fast_len(max(shape[0] * 2, 1000), real=True),
        next_fast_len(max(shape[1] * 3 // 2, 1000), real=True),
    )
    layers = [fractal(rng, size, longest=220, slope=slope, periodic=True) for slope in (1.7, 1.7, 1.9)]
    return Sky(np.stack(layers), shape)


def draw_weather(seed: int, days: FloatArray) -> tuple[Weather, ...]:
    """Draw the weather of each date: of two dates in a row one is mostly clear, except in a few dull spells.

    Parameters
    ----------
    seed : int
        The same seed and days give the same weather.
    days : numpy.ndarray
        Days of the year (time,).

    Returns
    -------
    tuple of Weather
        Cloud cover up to 0.75; duller and wetter in winter.
    """
    rng = np.random.default_rng([seed, 5])
    pairs = (len(days) + 1) // 2
    dull = rng.permutation(np.arange(pairs) < max(1, round(pairs / 6)))
    weather = []
    for pair in range(pairs):
        clear = rng.uniform(0.2, 0.35) if dull[pair] else rng.choice([0.0, 0.01, 0.03, 0.08])
        cloudy = rng.uniform(0.45, 0.75) if dull[pair] else rng.uniform(0.1, 0.6)
        weather += [
            (float(cover), float(rng.choice([0, 0, 0, 0.1, 0.3])))
            for cover in rng.permutation([clear, cloudy])
        ]
    winter = 0.5 + 0.5 * np.cos(2 * np.pi * (days - 15) / 365)
    moisture = np.clip(0.25 + 0.45 * winter + rng.uniform(-0.25, 0.35, len(days)), 0, 1)
    return tuple(Weather(*cover, float(wet)) for cover, wet in zip(weather, moisture, strict=False))


def observe(ground: FloatArray, look: Look, rng: np.random.Generator) -> FloatArray:
    """Add air and sensor to a view of the ground.

    Parameters
    ----------
    ground : numpy.ndarray
        float32 (band, y, x), reflectance 0-1.
    look : Look
        Clouds and shadows.
    rng : numpy.random.Generator
        Draws haze, errors of the day and noise.

    Returns
    -------
    numpy.ndarray
        float32 (band, y, x): surface reflectance as atmospheric correction returns it, noise included.
        View angle and aerosol leave errors of 2 to 3 percent a date (doi:10.1016/j.rse.2017.06.019), the
        sensor one of 0.5 percent and less (doi:10.3390/rs9060584).
    """
    day, colour = rng.normal(0, 0.025), rng.normal(0, 0.012, len(ground))
    veil = 0.006 * rng.normal() + 0.003 * fractal(rng, look.cloud.shape, longest=300, slope=2)
    opacity = look.cloud + look.cirrus - look.cloud * look.cirrus
    bright = 0.75 + 0.35 * opacity
    out = np.empty_like(ground)
    for band, seen in enumerate(ground):
        lit = seen * (1 + day + colour[band]) * (1 - SHADE[band] * look.shadow) + HAZE[band] * veil
        mixed = lit + opacity * (CLOUD[band] * bright - lit)
        noise = rng.standard_normal(seen.shape, dtype=np.float32)
        out[band] = mixed + noise * (0.0006 + 0.005 * mixed)
    return out


def halve(field: FloatArray) -> FloatArray:
    """Average blocks of two by two pixels: the last two axes must be even.

    Parameters
    ----------
    field : numpy.ndarray
        (..., y, x).

    Returns
    -------
    numpy.ndarray
        (..., y/2, x/2).
    """
    rows, cols = field.shape[-2:]
    return np.asarray(field.reshape(*field.shape[:-2], rows // 2, 2, cols // 2, 2).mean((-3, -1)))


def classify_scene(look: Look, *, green: FloatArray, red: FloatArray, infrared: FloatArray) -> IntArray:
    """Write a scene classification as Sen2Cor does: it misses thin margins of clouds and shadows.

    Parameters
    ----------
    look : Look
        Clouds and shadows at 10 m.
    green, red, infrared : numpy.ndarray
        Observed reflectance at 20 m, (y, x).

    Returns
    -------
    numpy.ndarray
        uint8 (y, x) at 20 m: 3 shadow, 4 vegetation, 5 bare, 6 water, 8 and 9 cloud, 10 cirrus. That masks
        miss some cloud is usual: Skakun et al. 2022 (doi:10.1016/j.rse.2022.112990).
    """
    cloud, cirrus, shadow = halve(look.cloud), halve(look.cirrus), halve(look.shadow)
    index = (infrared - red) / np.maximum(infrared + red, 1e-4)
    classes = np.where(index > 0.35, VEGETATION, BARE)  # noqa: PLR2004
    classes = np.where((infrared < 0.075) & (green > infrared), WATER, classes)  # noqa: PLR2004
    for code, where in (
        (SHADOW, shadow > SHADOW_FROM),
        (CIRRUS, cirrus > CIRRUS_FROM),
        (MEDIUM, cloud > MEDIUM_FROM),
        (HIGH, cloud > HIGH_FROM),
    ):
        classes = np.where(where, code, classes)
    return classes.astype(np.uint8)
