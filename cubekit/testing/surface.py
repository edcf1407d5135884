"""What the ground reflects on a day: calendars, spectra, texture, slopes and mixed pixels put together."""

from dataclasses import dataclass

import numpy as np

from cubekit.testing import spectra
from cubekit.testing.fractal import fractal
from cubekit.testing.landscape import BROADLEAF, CONIFER, PIXEL, WATER, Landscape
from cubekit.testing.phenology import Calendars, Growth, build_calendars
from cubekit.testing.sun import Sun
from cubekit.typing import FloatArray

# Pixels: the point spread of the 10 m bands mixes neighbours at every edge (Radoux et al. 2016,
# doi:10.3390/rs8060488).
BLUR = 0.55

# Contrast from pixel to pixel, by land cover: crowns, tussocks, rows.
GRAIN = np.array([0.11, 0.11, 0.035, 0.03, 0.04, 0.03])

# How parcels of one crop differ in pigment, leaf water and structure: standard deviations of the logarithm by
# band. In monthly Sentinel-2 composites of Belgium, crop classes spread by 20 to 50 % in the visible, 20 to
# 40 % in the short-wave infrared and 7 % in the near infrared.
VARIETY = np.array(
    [
        [0.17, 0.20, 0.22, 0.17, 0.05, 0.00, 0.00, 0.00, 0.02, 0.05],
        [0.00, 0.00, 0.02, 0.02, 0.02, 0.02, 0.02, 0.03, 0.14, 0.18],
        [0.06, 0.06, 0.06, 0.07, 0.08, 0.09, 0.09, 0.09, 0.08, 0.07],
    ]
)


@dataclass(frozen=True)
class Surface:
    """A landscape with its calendars and the texture inside its parcels.

    Attributes
    ----------
    land : Landscape
        Parcels and relief.
    calendars : Calendars
        One year for each parcel.
    vigour : numpy.ndarray
        float32 (y, x): factor on leaf area, about 1; soils and water supply vary inside a field.
    lateness : numpy.ndarray
        float32 (y, x): days by which a spot runs behind its parcel.
    dryness : numpy.ndarray
        float32 (y, x): how much brighter than average the soil is, about -0.4 to 0.4.
    grain : numpy.ndarray
        float32 (y, x): contrast of crowns and tussocks, standard deviation 1, the same all year.
    tint : numpy.ndarray
        float32 (parcel, band): factor on the colours of a parcel, about 1; varieties, species, turbidity.
    """

    land: Landscape
    calendars: Calendars
    vigour: FloatArray
    lateness: FloatArray
    dryness: FloatArray
    grain: FloatArray
    tint: FloatArray

    def reflectance(self, day: float, *, moisture: float, sun: Sun) -> FloatArray:
        """Return what a perfect sensor would see through clear air.

        Parameters
        ----------
        day : float
            Day of the year.
        moisture : float
            0 for dry soil to 1 for soil after rain.
        sun : Sun
            Lights the slopes.

        Returns
        -------
        numpy.ndarray
            float32 (band, y, x): reflectance 0-1 at 10 m for every band of :data:`spectra.BANDS`.
        """
        from scipy.ndimage import gaussian_filter

        parcel = self.land.parcel
        area, closed = self._leaves(day)
        brown = self._spread(self.calendars.straw, day)
        wet = np.clip(moisture - self.dryness, 0, 1)
        light = self._light(sun)
        out = np.empty((len(spectra.BANDS), *parcel.shape), np.float32)
        for band in range(len(spectra.BANDS)):
            ground = self._ground(band, wet)
            ground = spectra.canopy(ground, spectra.END_MEMBERS[spectra.STRAW, band], brown, band)
            seen = spectra.canopy(ground, closed[:, band][parcel], area, band) * self.tint[:, band][parcel]
            seen += self.land.track * (spectra.END_MEMBERS[spectra.GRAVEL, band] - seen)
            gaussian_filter(seen * light, BLUR, output=out[band], mode="nearest", truncate=3)
        return out

    def _spread(self, growth: Growth, day: float) -> FloatArray:
        """Leaf area at each pixel: that of the parcel, late or early on the spot, times vigour."""
        value = growth.at(day)
        slope = (growth.at(day + 2) - growth.at(day - 2)) / 4
        at = self.land.parcel
        return np.maximum(value[at] - slope[at] * self.lateness, 0).astype(np.float32) * self.vigour

    def _leaves(self, day: float) -> tuple[FloatArray, FloatArray]:
        """Return green leaf area (y, x), and the colour of a closed canopy (parcel, band)."""
        leaf, needle = self.calendars.leaf.at(day), self.calendars.needle.at(day)
        share = (needle / np.maximum(leaf + needle, 1e-6))[:, None]
        rows = np.array([spectra.LEAF_OF[k] for k in range(len(GRAIN))])[self.land.kind]
        closed = (1 - share) * spectra.END_MEMBERS[rows] + share * spectra.END_MEMBERS[spectra.NEEDLE]
        area = self._spread(self.calendars.leaf, day) + self._spread(self.calendars.needle, day)
        return area, closed.astype(np.float32)

    def _ground(self, band: int, wet: FloatArray) -> FloatArray:
        """Reflectance below all plants in one band: soil, forest floor or water."""
        dry, moist, floor, water = spectra.END_MEMBERS[
            [spectra.DRY, spectra.WET, spectra.FLOOR, spectra.OPEN_WATER], band
        ]
        kind = self.land.kind[self.land.parcel]
        soil = (dry + (moist - dry) * wet) * (1 + 0.25 * self.dryness)
        soil = np.where(kind == WATER, water, soil)
        wood = (kind == BROADLEAF) | (kind == CONIFER)
        return np.asarray(np.where(wood, floor * (1 - 0.25 * wet), soil), dtype=np.float32)

    def _light(self, sun: Sun) -> FloatArray:
        """Return a factor for slopes (terrain correction leaves half) and for shade between crowns."""
        south, east = np.gradient(self.land.relief, PIXEL)  # rows run south
        toward = -east * np.sin(sun.azimuth) + south * np.cos(sun.azimuth)
        tan = np.tan(min(sun.zenith, 1.3))
        slopes = np.where(self.land.kind[self.land.parcel] == WATER, 0, 0.5 * toward * tan)
        rough = GRAIN[self.land.kind][self.land.parcel] * (0.7 + 0.3 * tan)
        return np.asarray(
            np.clip(1 + slopes, 0.7, 1.3) * np.clip(1 + rough * self.grain, 0.6, 1.4), dtype=np.float32
        )


def build_surface(seed: int, land: Landscape) -> Surface:
    """Give a landscape its calendars and texture.

    Parameters
    ----------
    seed : int
        The same seed and landscape give the same surface.
    land : Landscape
        Parcels, land covers, relief.

    Returns
    -------
    Surface
        Ready to be looked at on any day.
    """
    rng = np.random.default_rng([seed, 3])
    shape = land.parcel.shape
    vigour = np.exp(0.16 * fractal(rng, shape, longest=45, slope=1.3)).astype(np.float32)
    lateness = 2.5 * fractal(rng, shape, longest=60, slope=1.5)
    dryness = (
        0.2 * fractal(rng, shape, longest=80, slope=1.2) + rng.normal(0, 0.12, land.kind.size)[land.parcel]
    )
    grain = fractal(rng, shape, longest=5, slope=0.6)
    tint = np.exp(rng.standard_normal((land.kind.size, len(VARIETY))) @ VARIETY)
    tint[land.kind == WATER] **= 0.6  # one river: its reaches differ less than fields do
    return Surface(
        land,
        build_calendars(seed, land.kind),
        vigour,
        lateness,
        dryness.astype(np.float32),
        grain,
        tint.astype(np.float32),
    )
