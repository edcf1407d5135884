"""Where the sun stands when the satellite passes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sun:
    """Position of the sun.

    Attributes
    ----------
    zenith, azimuth : float
        Radians; azimuth clockwise from north.
    """

    zenith: float
    azimuth: float


def sun_at(day: float, *, latitude: float, solar_hour: float) -> Sun:
    """Tell where the sun stands.

    Parameters
    ----------
    day : float
        Day of the year.
    latitude : float
        Degrees north.
    solar_hour : float
        Local solar time in hours; Sentinel-2 passes at about 10.5.

    Returns
    -------
    Sun
        From the usual declination formula, good to about a degree.
    """
    tilt = np.radians(-23.44) * np.cos(2 * np.pi * (day + 10) / 365)
    turn, north = np.radians(15 * (solar_hour - 12)), np.radians(latitude)
    up = np.sin(north) * np.sin(tilt) + np.cos(north) * np.cos(tilt) * np.cos(turn)
    east, ahead = (
        -np.cos(tilt) * np.sin(turn),
        np.cos(north) * np.sin(tilt) - np.sin(north) * np.cos(tilt) * np.cos(turn),
    )
    return Sun(float(np.arccos(up)), float(np.arctan2(east, ahead) % (2 * np.pi)))
