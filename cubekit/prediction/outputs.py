"""What a map can hold: layers of each kind of model, and how they are coded."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from cubekit.errors import OptionError, check_option
from cubekit.typing import Array, FloatArray

Output: TypeAlias = Literal["class", "probability", "fractions", "value", "entropy", "margin", "spread"]
"""Layer of a map."""

Kind: TypeAlias = Literal["class", "fractions", "value"]
"""What a model gives for a pixel: probabilities of classes, shares of classes, or numbers with a unit."""

NODATA = 255
"""Stored value of every uint8 layer where nothing was predicted; NaN in the others."""

STEPS = 250
"""Stored steps between 0 and 1: shares of any sort are stored as ``round(value * 250)``."""

OFFERED: dict[Kind, tuple[Output, ...]] = {
    "class": ("class", "probability", "entropy", "margin"),
    "fractions": ("fractions", "class", "entropy", "margin"),
    "value": ("value", "spread"),
}
"""Layers that a kind of model can give."""

USUAL: dict[Kind, tuple[Output, ...]] = {
    "class": ("class", "probability"),
    "fractions": ("fractions",),
    "value": ("value",),
}
"""Layers that are made where none are asked for."""

_LONG_NAMES = {
    "class": "predicted class",
    "probability": "probability of each class",
    "fractions": "share of each class in the pixel",
    "value": "predicted value",
    "entropy": "Shannon entropy over its maximum (0 sure, 1 undecided)",
    "margin": "share of the best class minus that of the second",
    "spread": "standard deviation over the predictions that were averaged",
}


def check_outputs(outputs: Sequence[str] | None, kind: Kind) -> tuple[Output, ...]:
    """Raise unless a kind of model can give these layers.

    Parameters
    ----------
    outputs : sequence of str or None
        Names of layers; None takes the usual ones.
    kind : {"class", "fractions", "value"}
        What the model gives.

    Returns
    -------
    tuple of str
        The layers.

    Raises
    ------
    OptionError
        For an unknown layer, one that the model cannot give, or a repeated one.
    """
    if outputs is None:
        return USUAL[kind]
    if isinstance(outputs, str) or not outputs or len(set(outputs)) != len(outputs):
        raise OptionError(f"outputs={outputs!r}: give a sequence of different names, such as ('class',).")
    for output in outputs:
        check_option("outputs", output, get_args(Output))
        if output not in OFFERED[kind]:
            raise OptionError(
                f"outputs: {output!r} does not exist for a model that gives {kind!r}; it can give "
                f"{', '.join(OFFERED[kind])}."
            )
    return tuple(name for name in outputs if name in OFFERED[kind])


def dtype_of(kind: Kind) -> str:
    """Return the stored type of the layers of a kind.

    Parameters
    ----------
    kind : {"class", "fractions", "value"}
        What a model gives.

    Returns
    -------
    str
        uint8 for shares and classes, float32 for values.
    """
    return "float32" if kind == "value" else "uint8"


def planes_of(output: Output, count: int) -> int:
    """Return how many planes a layer takes.

    Parameters
    ----------
    output : str
        Name of the layer.
    count : int
        Number of values that the model gives for a pixel.

    Returns
    -------
    int
        `count` for ``probability``, ``fractions``, ``value`` and ``spread``, else one.
    """
    return count if output in {"probability", "fractions", "value", "spread"} else 1


def pack(values: FloatArray, outputs: Sequence[Output], kind: Kind, spread: FloatArray | None) -> Array:
    """Code what a model gave as planes.

    Parameters
    ----------
    values : numpy.ndarray
        ``(k, n)`` float: probabilities, fractions or values; not finite where nothing is known.
    outputs : sequence of str
        Layers, in order.
    kind : {"class", "fractions", "value"}
        What the values are.
    spread : numpy.ndarray or None
        Standard deviation of the values, where several predictions were averaged.

    Returns
    -------
    numpy.ndarray
        ``(plane, n)`` of `dtype_of(kind)`; nodata where a value is not finite.
    """
    known = np.asarray(np.isfinite(values).all(axis=0))
    if kind == "value":
        zero = np.zeros_like(values) if spread is None else spread
        chosen = {"value": values, "spread": zero}
        result: Array = np.concatenate([chosen[output] for output in outputs]).astype("float32")
        result[:, ~known] = np.nan
        return result
    clean = np.where(known, values, 0)
    packed: Array = np.concatenate([_layer(output, clean) for output in outputs])
    packed[:, ~known] = NODATA
    return packed


def _layer(output: Output, shares: FloatArray) -> Array:
    """Code one layer as ``(plane, n)`` uint8."""
    if output == "class":
        best: Array = shares.argmax(axis=0)[None].astype("uint8")
        return best
    if output == "entropy":
        return _steps(_entropy(shares))[None]
    if output == "margin":
        two = np.sort(shares, axis=0)[-2:]
        return _steps(two[1] - two[0])[None]
    return _steps(shares)


def _entropy(shares: FloatArray) -> FloatArray:
    """Return Shannon's entropy over its largest possible value, 0 (sure) to 1 (no idea)."""
    logs = np.log(np.where(shares > 0, shares, 1))
    entropy: FloatArray = -(shares * logs).sum(axis=0) / np.log(len(shares))
    return entropy


def _steps(values: FloatArray) -> Array:
    """Store 0-1 as 0-250."""
    return np.rint(np.clip(values, 0, 1) * STEPS).astype("uint8")


def describe_layer(output: Output, planes: Any, table: Any, units: str | None) -> xr.Variable:
    """Name and describe one layer.

    Parameters
    ----------
    output : str
        Name of the layer.
    planes : dask.array.Array
        ``(plane, y, x)``.
    table : ClassTable or None
        Names, colours and codes of the classes.
    units : str or None
        Of values.

    Returns
    -------
    xarray.Variable
        ``(y, x)``, ``(category, y, x)``, or for several values ``(band, y, x)``; as lazy as the planes.
    """
    attrs: dict[str, Any] = {"long_name": _LONG_NAMES[output]}
    if output in {"value", "spread"}:
        attrs |= {"_FillValue": np.float32(np.nan)} | ({"units": units} if units else {})
        return xr.Variable(("y", "x"), planes[0], attrs) if len(planes) == 1 else _many("band", planes, attrs)
    attrs["_FillValue"] = np.uint8(NODATA)
    if output == "class":
        attrs |= {
            "classes": list(table.names),
            "colours": list(table.colours),
            "codes": list(table.codes),
            "flag_values": list(range(len(table.names))),
            "flag_meanings": " ".join(name.replace(" ", "_") for name in table.names),
        }
        return xr.Variable(("y", "x"), planes[0], attrs)
    attrs |= {"scale_factor": 1 / STEPS, "add_offset": 0.0}
    if output in {"probability", "fractions"}:
        return _many("category", planes, attrs)
    return xr.Variable(("y", "x"), planes[0], attrs)


def _many(dim: str, planes: Any, attrs: dict[str, Any]) -> xr.Variable:
    return xr.Variable((dim, "y", "x"), planes, attrs)
