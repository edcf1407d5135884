"""What prediction asks of a model, and how it finds out what a model gives."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

import xarray as xr

from cubekit.errors import OptionError
from cubekit.prediction.outputs import NODATA, Kind
from cubekit.typing import FloatArray

Form: TypeAlias = Literal["series", "patches"]
"""Whether a model sees the series of one pixel, or a window of the scene."""

_KINDS: Mapping[str, Kind] = MappingProxyType(
    {"classify": "class", "fractions": "fractions", "forecast": "value", "fuse": "value"}
)


class SeriesModel(Protocol):
    """A model of pixel series; :class:`cubekit.training.bundle.Model` is one.

    It may say ``kind`` ("class", "fractions" or "value"), ``card`` (with ``classes``), ``names`` and
    ``units`` (of values), ``digest()`` and ``save(folder)``; and in ``ancillary`` the variables ``(y, x)`` of
    the cube that it takes too, as a second argument ``(n, a)``.
    """

    def probabilities(self, x: FloatArray, /) -> FloatArray:
        """Return probabilities of classes, or shares of them; a model of values has ``values`` instead.

        Parameters
        ----------
        x : numpy.ndarray
            Physical series ``(n, t, c)``, NaN where there is no data.

        Returns
        -------
        numpy.ndarray
            ``(n, k)``.
        """


class PatchModel(Protocol):
    """A model that looks around; beside this it says ``form = "patches"`` and what a series model may say.

    It may also say how far it looks: ``reach`` (`cubekit.nn.reach.Reach`) or a ``network`` to be measured; a
    model without either is blended. ``ancillary`` names variables ``(y, x)`` of the cube that it takes too.
    """

    def values(self, x: FloatArray, /) -> FloatArray:
        """Return probabilities, fractions or values of every pixel.

        Parameters
        ----------
        x : numpy.ndarray
            Physical windows ``(n, t, c, h, w)``, NaN where there is no data; ancillary ones ``(n, h, w)``
            follow as further arguments.

        Returns
        -------
        numpy.ndarray
            ``(n, k, h, w)`` or, for a single value, ``(n, h, w)``; NaN where the model knows nothing.
        """

    def select(self, cube: xr.Dataset) -> xr.Dataset:
        """Check a cube, and put the model's bands into the model's order.

        Parameters
        ----------
        cube : xarray.Dataset
            A cube.

        Returns
        -------
        xarray.Dataset
            As lazy as the cube.
        """


def form_of(model: Any) -> Form:
    """Return whether a model takes series or windows: as it says, or as its network is registered.

    Parameters
    ----------
    model : SeriesModel or PatchModel
        Series where nothing is said.

    Returns
    -------
    {"series", "patches"}
        Form of its samples.
    """
    if hasattr(model, "form"):
        return "series" if model.form == "series" else "patches"
    name = getattr(getattr(model, "card", None), "network", None)
    if name is None or getattr(model.card, "arguments", None) is None:
        return "series"
    from cubekit.nn.registry import describe

    return "series" if describe(name).form == "series" else "patches"


def kind_of(model: Any) -> Kind:
    """Return what a model gives: as it says, or as its task does.

    Parameters
    ----------
    model : SeriesModel or PatchModel
        Probabilities of classes where nothing is said.

    Returns
    -------
    {"class", "fractions", "value"}
        Kind of its outputs.
    """
    if hasattr(model, "kind"):
        kind: Kind = model.kind
        return kind
    return _KINDS[getattr(getattr(model, "card", None), "task", "classify")]


def names_of(model: Any, kind: Kind) -> tuple[str, ...]:
    """Return the names of what a model gives for a pixel.

    Parameters
    ----------
    model : SeriesModel or PatchModel
        With a table of classes in its card, or for values ``names``; one nameless value else.
    kind : {"class", "fractions", "value"}
        What it gives.

    Returns
    -------
    tuple of str
        At least one.

    Raises
    ------
    OptionError
        If there are too few classes to tell apart, or more than fit into a byte.
    """
    if kind == "value":
        return tuple(getattr(model, "names", None) or ("value",))
    names = tuple(model.card.classes.names)
    if len(names) not in range(2, NODATA):
        raise OptionError(f"The model has {len(names)} classes; 2 to {NODATA - 1} fit into a byte.")
    return names
