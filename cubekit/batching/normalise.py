"""Scaling of bands to a like range, learned from the training part and stored with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from cubekit.batching.decode import decode
from cubekit.batching.samples import Samples
from cubekit.errors import OptionError, TrainingError, check_option

Method = Literal["percentile", "standard"]
ArrayOrTensor = TypeVar("ArrayOrTensor")

METHODS = ("percentile", "standard")
"""Ways to normalise."""

_LOW, _HIGH = 2.0, 98.0  # percentiles: clouds left in a series do not stretch the range


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Linear scaling by band, in physical units: ``(x - low) / (high - low)`` or ``(x - mean) / std``."""

    method: Method
    """"percentile" uses `low` and `high`, "standard" uses `mean` and `std`."""

    bands: tuple[str, ...]
    """Band names, in the order of the numbers below."""

    low: tuple[float, ...] = ()
    """2nd percentile, becomes 0."""

    high: tuple[float, ...] = ()
    """98th percentile, becomes 1; values beyond it are not clipped."""

    mean: tuple[float, ...] = ()
    """Mean, becomes 0."""

    std: tuple[float, ...] = ()
    """Standard deviation, becomes 1."""

    def __post_init__(self) -> None:
        check_option("method", self.method, METHODS)
        for name in ("low", "high") if self.method == "percentile" else ("mean", "std"):
            found = len(getattr(self, name))
            if found != len(self.bands):
                raise OptionError(
                    f"Normalisation has {found} numbers for {name!r} and {len(self.bands)} bands."
                )
        if not all(width > 0 for width in self.width):
            raise OptionError(f"Normalisation divides by {self.width}; all must be above 0.")

    @property
    def shift(self) -> tuple[float, ...]:
        """What is taken off, by band."""
        return self.low if self.method == "percentile" else self.mean

    @property
    def width(self) -> tuple[float, ...]:
        """What is divided by, by band."""
        if self.method == "standard":
            return self.std
        return tuple(high - low for low, high in zip(self.low, self.high, strict=True))

    def apply(self, x: ArrayOrTensor, *, axis: int = -1) -> ArrayOrTensor:
        """Scale physical values.

        Parameters
        ----------
        x : numpy.ndarray or torch.Tensor
            Float, any shape, such as (n, time, band); NaN stays NaN.
        axis : int, optional
            Axis of the bands.

        Returns
        -------
        numpy.ndarray or torch.Tensor
            Same kind, type, shape and device.

        Raises
        ------
        OptionError
            If the axis does not have as many entries as there are bands.
        """
        values: Any = x
        if values.shape[axis] != len(self.bands):
            raise OptionError(
                f"Axis {axis} of shape {tuple(values.shape)} has {values.shape[axis]} entries; the "
                f"normalisation knows {len(self.bands)} bands ({', '.join(self.bands)})."
            )
        shape = [1] * values.ndim
        shape[axis] = -1
        # a tensor makes its own constants, on its device: this module needs no torch
        make = values.new_tensor if hasattr(values, "new_tensor") else values.dtype.type
        shift, width = (make(list(numbers)).reshape(shape) for numbers in (self.shift, self.width))
        return (values - shift) / width  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and text, ready for JSON.

        Returns
        -------
        dict
            What :meth:`from_dict` reads.
        """
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Normalisation":
        """Read what :meth:`to_dict` wrote.

        Parameters
        ----------
        state : mapping
            From JSON.

        Returns
        -------
        Normalisation
            The same.

        Raises
        ------
        OptionError
            If a key is missing or unknown, or numbers do not match the bands.
        """
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in state.items()
        }
        try:
            return cls(**fields)
        except TypeError as error:
            raise OptionError(f"Not a normalisation: {error}. Found the keys {sorted(state)}.") from error


def fit_normalisation(samples: Samples, *, method: Method = "percentile") -> Normalisation:
    """Learn the scaling from samples: from those of training only, or test values leak into the model.

    Parameters
    ----------
    samples : Samples
        Training part.
    method : {"percentile", "standard"}, optional
        2nd and 98th percentile, or mean and standard deviation, of the valid values of each band over all
        dates.

    Returns
    -------
    Normalisation
        In physical units.

    Raises
    ------
    TrainingError
        If a band has no valid value, or all its values are (nearly) equal; names the band.
    OptionError
        If the method is not known.
    """
    check_option("method", method, METHODS)
    pairs = []
    for index, band in enumerate(samples.bands):
        values = decode(samples.x[:, :, index], samples.encoding)
        values = values[~np.isnan(values)].astype("float64")
        if not values.size:
            raise TrainingError(f"Band {band!r} has no valid value in {len(samples)} samples: leave it out.")
        first, second = (
            np.percentile(values, [_LOW, _HIGH]) if method == "percentile" else (values.mean(), values.std())
        )
        width = second - first if method == "percentile" else second
        # relative to the numbers themselves: float32 noise on a constant is no variance
        if not width > np.finfo("float32").eps * max(1e-6, np.abs(values).max()):
            raise TrainingError(
                f"Band {band!r} is constant at {np.median(values):.6g} in the training samples"
                f"{' between the 2nd and 98th percentile' if method == 'percentile' else ''}: leave it out."
            )
        pairs.append((float(first), float(second)))
    firsts, seconds = (tuple(column) for column in zip(*pairs, strict=True))
    if method == "percentile":
        return Normalisation(method=method, bands=samples.bands, low=firsts, high=seconds)
    return Normalisation(method=method, bands=samples.bands, mean=firsts, std=seconds)
