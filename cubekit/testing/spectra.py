"""From leaf area to Sentinel-2 surface reflectance, band by band.

A canopy over soil follows the modified Beer law of Baret and Guyot 1991 (doi:10.1016/0034-4257(91)90009-U):
reflectance goes from that of the ground to that of a closed canopy as ``exp(-K * leaf area)``, faster in the
visible (K near 1) than in the near infrared (near 0.5). Magnitudes of the end members are those of Sentinel-2
L2A scenes of Central Europe.
"""

import numpy as np

from cubekit.testing.landscape import BROADLEAF, CEREAL, CONIFER, GRASSLAND, MAIZE, WATER
from cubekit.typing import FloatArray

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Bands of the simulation, in order of wavelength."""

END_MEMBERS = np.array(
    [  # B02    B03    B04    B05    B06    B07    B08    B8A    B11    B12
        [0.018, 0.040, 0.020, 0.072, 0.270, 0.350, 0.365, 0.385, 0.160, 0.066],  # closed broadleaf canopy
        [0.013, 0.025, 0.014, 0.042, 0.135, 0.178, 0.190, 0.205, 0.085, 0.036],  # closed conifer canopy
        [0.025, 0.060, 0.026, 0.105, 0.345, 0.450, 0.470, 0.490, 0.195, 0.090],  # dense grass
        [0.022, 0.050, 0.022, 0.085, 0.310, 0.440, 0.455, 0.470, 0.165, 0.075],  # dense cereal
        [0.024, 0.054, 0.026, 0.085, 0.300, 0.420, 0.435, 0.450, 0.170, 0.080],  # dense maize
        [0.060, 0.095, 0.135, 0.175, 0.225, 0.255, 0.275, 0.300, 0.320, 0.225],  # straw and dead leaves
        [0.100, 0.145, 0.185, 0.212, 0.232, 0.250, 0.268, 0.285, 0.345, 0.310],  # dry loam
        [0.052, 0.074, 0.098, 0.115, 0.127, 0.138, 0.150, 0.162, 0.190, 0.155],  # wet loam
        [0.030, 0.044, 0.056, 0.078, 0.104, 0.122, 0.136, 0.152, 0.170, 0.110],  # forest floor and bark
        [0.042, 0.052, 0.036, 0.030, 0.018, 0.017, 0.015, 0.013, 0.007, 0.005],  # water
        [0.130, 0.155, 0.180, 0.200, 0.215, 0.230, 0.245, 0.260, 0.310, 0.270],  # gravel track with grass
    ],
    dtype=np.float32,
)
"""Reflectance of pure surfaces, (surface, band)."""

NEEDLE, STRAW, DRY, WET, FLOOR, OPEN_WATER, GRAVEL = 1, 5, 6, 7, 8, 9, 10
LEAF_OF = {BROADLEAF: 0, CONIFER: 0, GRASSLAND: 2, CEREAL: 3, MAIZE: 4, WATER: 0}
"""Row of the end member that the leaves of a land cover look like."""

EXTINCTION = np.array([0.95, 0.90, 1.0, 0.85, 0.62, 0.52, 0.50, 0.50, 0.68, 0.85], dtype=np.float32)
"""K of the modified Beer law, one a band."""


def canopy(ground: FloatArray, closed: FloatArray, area: FloatArray, band: int) -> FloatArray:
    """Put a canopy on a ground, in one band.

    Parameters
    ----------
    ground : numpy.ndarray
        Reflectance below, 0-1, any shape.
    closed : numpy.ndarray
        Reflectance of a closed canopy, same shape.
    area : numpy.ndarray
        Leaf area index, m2 of leaf per m2 of ground, same shape.
    band : int
        Position in :data:`BANDS`.

    Returns
    -------
    numpy.ndarray
        Reflectance of both together, same shape.
    """
    return np.asarray(closed + (ground - closed) * np.exp(-EXTINCTION[band] * area))
