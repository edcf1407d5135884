"""Fractal random fields: what relief, soils, stands and clouds have in common."""

import numpy as np

from cubekit.typing import FloatArray


def fractal(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    longest: float,
    slope: float = 1.5,
    periodic: bool = False,
) -> FloatArray:
    """Draw a field whose amplitude spectrum falls as a power of frequency.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; the field is a pure function of its state.
    shape : tuple of int
        Rows and columns.
    longest : float
        Longest wavelength in pixels; the spectrum is flat beyond it.
    slope : float, optional
        Exponent of the amplitude spectrum. 1.5 gives clouds (Lovejoy 1982, doi:10.1126/science.216.4542.185),
        2 and more rolling hills, 0 white noise.
    periodic : bool, optional
        Whether opposite edges shall meet; otherwise a larger field is drawn and cut.

    Returns
    -------
    numpy.ndarray
        float32 (y, x), mean 0, standard deviation 1.
    """
    from scipy.fft import fftfreq, irfft2, next_fast_len, rfft2, rfftfreq

    rows, cols = shape
    if not periodic:
        rows, cols = (next_fast_len(int(n + longest), real=True) for n in shape)
    frequency = np.hypot(fftfreq(rows)[:, None], rfftfreq(cols)[None, :])
    weight = np.maximum(frequency, 1 / longest) ** -slope
    weight[0, 0] = 0.0
    noise = rng.standard_normal((rows, cols), dtype=np.float32)
    field = irfft2(rfft2(noise) * weight.astype(np.float32), s=(rows, cols))[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)
