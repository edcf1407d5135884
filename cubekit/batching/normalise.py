"""Scaling of bands to a like range, learned from the training part and stored with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from cubekit.errors import OptionError, check_option

Method = Literal["percentile", "standard"]
Rule = Literal["percentile", "standard", "percentile_by_step", "standard_by_step"]
"""A method, of all dates together or of every step on its own."""

ArrayOrTensor = TypeVar("ArrayOrTensor")

METHODS = get_args(Method)
"""Ways to normalise."""

RULES = get_args(Rule)
"""The same, of all dates together or of every step on its own."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Linear scaling by band, in physical units: ``(x - low) / (high - low)`` or ``(x - mean) / std``.

    There is one number a band, or one for each step and band, step by step.
    """

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
            if not self.bands or not found or found % len(self.bands) or found != len(self.shift):
                raise OptionError(
                    f"Normalisation has {found} numbers for {name!r} and {len(self.bands)} bands: one for "
                    "each is needed, or one for each step and band."
                )
        if not all(width > 0 for width in self.width):
            raise OptionError(f"Normalisation divides by {self.width}; all must be above 0.")

    @property
    def steps(self) -> int:
        """How many steps have numbers of their own; 1 where those of all dates are the same."""
        return len(self.shift) // len(self.bands)

    @property
    def shift(self) -> tuple[float, ...]:
        """What is taken off, by band, step by step where they differ."""
        return self.low if self.method == "percentile" else self.mean

    @property
    def width(self) -> tuple[float, ...]:
        """What is divided by, by band, step by step where they differ."""
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
            Axis of the bands; that of the steps is the one before it.

        Returns
        -------
        numpy.ndarray or torch.Tensor
            Same kind, type, shape and device.

        Raises
        ------
        OptionError
            If the axes do not have as many entries as there are bands, and steps where they differ.
        """
        shift, width = self._constants(x, axis)
        values: Any = x
        return (values - shift) / width  # type: ignore[no-any-return]

    def undo(self, x: ArrayOrTensor, *, axis: int = -1) -> ArrayOrTensor:
        """Bring scaled values back to physical ones.

        Parameters
        ----------
        x : numpy.ndarray or torch.Tensor
            What :meth:`apply` gives.
        axis : int, optional
            Axis of the bands.

        Returns
        -------
        numpy.ndarray or torch.Tensor
            Same kind, type, shape and device.

        Raises
        ------
        OptionError
            As :meth:`apply`.
        """
        shift, width = self._constants(x, axis)
        values: Any = x
        return values * width + shift  # type: ignore[no-any-return]

    def _constants(self, x: Any, axis: int) -> tuple[Any, Any]:
        """Return what is taken off and divided by, in a shape that goes with values."""
        place = axis % x.ndim
        if x.shape[place] != len(self.bands):
            raise OptionError(
                f"Axis {axis} of shape {tuple(x.shape)} has {x.shape[place]} entries; the "
                f"normalisation knows {len(self.bands)} bands ({', '.join(self.bands)})."
            )
        shape = [1] * x.ndim
        shape[place] = len(self.bands)
        if self.steps > 1:
            if not place or x.shape[place - 1] != self.steps:
                raise OptionError(
                    f"The normalisation knows {self.steps} steps; the axis before the bands of shape "
                    f"{tuple(x.shape)} has {x.shape[place - 1] if place else 'none'}."
                )
            shape[place - 1] = self.steps
        # a tensor makes its own constants, on its device: this module needs no torch
        make = x.new_tensor if hasattr(x, "new_tensor") else x.dtype.type
        shift, width = (make(list(numbers)).reshape(shape) for numbers in (self.shift, self.width))
        return shift, width

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
