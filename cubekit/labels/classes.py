"""The class table: names, colours and source codes in the order of class indices."""

import colorsys
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import xarray as xr

from cubekit.errors import LabelError, OptionError, UnknownNameError, did_you_mean

UNLABELLED = -1
"""Class index, and group, of pixels without a label."""

# Okabe and Ito's seven, then Tol's "muted": both keep apart for the common kinds of colour blindness.
PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#332288", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#88ccee",
)  # fmt: skip
"""Colours given in turn to classes that have none."""

# First match wins: a "tree crop" is a tree.
_FITTING = (
    ({"water", "river", "lake", "sea", "ocean"}, "#0072b2"),
    ({"wetland", "marsh", "bog", "mangrove"}, "#44aa99"),
    ({"snow", "ice", "glacier"}, "#bfe6f5"),
    ({"built", "urban", "artificial", "settlement", "city"}, "#cc3311"),
    ({"forest", "tree", "woodland", "wood"}, "#117733"),
    ({"shrub", "shrubland", "bush", "heath"}, "#999933"),
    ({"savanna", "savannah", "cerrado"}, "#b8a13c"),
    ({"grass", "grassland", "meadow", "pasture"}, "#a6d96a"),
    ({"crop", "cropland", "cultivated", "arable", "agriculture"}, "#e69f00"),
    ({"bare", "barren", "soil", "sand", "rock"}, "#b7a08a"),
)


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of their index: names, colours, and the codes of the source.

    Build one with :meth:`of`, which fills in colours and codes.
    """

    names: tuple[str, ...]
    """Unique names."""

    colours: tuple[str, ...]
    """``"#rrggbb"``, lower case."""

    codes: tuple[int, ...]
    """What the source wrote for each class; the index itself where the source has names only."""

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.colours) == len(self.codes):
            msg = (
                f"A class table needs as many colours and codes as names; found {len(self.names)} names, "
                f"{len(self.colours)} colours, {len(self.codes)} codes."
            )
            raise OptionError(msg)
        for what, values in (("names", self.names), ("codes", self.codes)):
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise OptionError(f"Class {what} repeat: {', '.join(repeated)}.")
        for colour in self.colours:
            if not re.fullmatch(r"#[0-9a-f]{6}", colour):
                raise OptionError(f"Colour {colour!r} is not of the form '#rrggbb'.")

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        *,
        colours: Mapping[str, str] | Sequence[str] | None = None,
        codes: Sequence[int] | None = None,
    ) -> "ClassTable":
        """Build a table, choosing what is not given.

        Parameters
        ----------
        names : sequence of str
            Class names in index order.
        colours : mapping or sequence of str, optional
            ``"#rrggbb"`` by name (some may be missing) or one for each class. The others get a fitting colour
            when the name is a common land cover, else the next of a colour-blind-aware palette.
        codes : sequence of int, optional
            Codes of the source; default 0, 1, 2 …

        Returns
        -------
        ClassTable
            With lower-case colours.

        Raises
        ------
        OptionError
            If lengths differ, names or codes repeat, or a colour is malformed.
        UnknownNameError
            If a colour is given for a class that is not there.
        """
        names = tuple(str(name) for name in names)
        if isinstance(colours, Mapping):
            for name in colours:
                if name not in names:
                    raise UnknownNameError(f"No class {name!r} to colour. {did_you_mean(name, names)}")
            chosen = default_colours(names, given=colours)
        else:
            chosen = default_colours(names) if colours is None else tuple(colours)
        return cls(
            names=names,
            colours=tuple(colour.lower() for colour in chosen),
            codes=tuple(range(len(names))) if codes is None else tuple(int(code) for code in codes),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def index(self, name: str) -> int:
        """Return the index of a class.

        Parameters
        ----------
        name : str
            Class name.

        Returns
        -------
        int
            0 for the first class.

        Raises
        ------
        UnknownNameError
            With the nearest name.
        """
        if name not in self.names:
            raise UnknownNameError(f"No class {name!r}. {did_you_mean(name, self.names)}")
        return self.names.index(name)

    def attrs(self) -> dict[str, Any]:
        """Return the attributes that carry the table: lists ``classes``, ``colours`` and ``codes``."""
        return {"classes": list(self.names), "colours": list(self.colours), "codes": list(self.codes)}

    @classmethod
    def from_attrs(cls, attrs: Mapping[Any, Any]) -> "ClassTable":
        """Read the table from attributes written by :meth:`attrs`.

        Parameters
        ----------
        attrs : mapping
            Attributes of a variable; ``colours`` and ``codes`` may be missing.

        Returns
        -------
        ClassTable
            The same table.

        Raises
        ------
        LabelError
            If there is no ``classes``.
        """
        if "classes" not in attrs:
            raise LabelError(
                f"No attribute 'classes' that names the classes; found {sorted(map(str, attrs))}. "
                "Labels come from cubekit.load_labels."
            )
        # attributes come back from Zarr as lists, from NetCDF as arrays or, for a single class, as a scalar
        lists = {key: _as_list(attrs[key]) for key in ("classes", "colours", "codes") if key in attrs}
        return cls.of(lists["classes"], colours=lists.get("colours"), codes=lists.get("codes"))


def class_table(labels: xr.Dataset | xr.DataArray) -> ClassTable:
    """Return the classes of labels or of a predicted map.

    Parameters
    ----------
    labels : xarray.Dataset or xarray.DataArray
        From :func:`cubekit.load_labels` (variable ``label``) or from a prediction (variable ``class``).

    Returns
    -------
    ClassTable
        Names, colours and codes by class index.

    Raises
    ------
    LabelError
        If no variable carries a class table.
    """
    if isinstance(labels, xr.DataArray):
        return ClassTable.from_attrs(labels.attrs)
    for name in ("label", "class"):
        if name in labels:
            return ClassTable.from_attrs(labels[name].attrs)
    raise LabelError(f"No variable 'label' or 'class'; found {sorted(map(str, labels.data_vars))}.")


def default_colours(names: Sequence[str], *, given: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Choose a colour for each class: given, else fitting the name, else the next of the palette.

    Parameters
    ----------
    names : sequence of str
        Class names.
    given : mapping, optional
        Colours that are fixed.

    Returns
    -------
    tuple of str
        ``"#rrggbb"`` by class; chosen ones never repeat.
    """
    chosen = {name: colour.lower() for name, colour in (given or {}).items()}
    for name in names:
        fitting = _fitting_colour(name)
        if name not in chosen and fitting is not None and fitting not in chosen.values():
            chosen[name] = fitting
    spare = _spare_colours()
    for name in names:
        if name not in chosen:
            chosen[name] = next(colour for colour in spare if colour not in chosen.values())
    return tuple(chosen[name] for name in names)


def _spare_colours() -> Iterator[str]:
    """Yield the palette, then hues a golden angle apart, darker each time round: no number runs out."""
    yield from PALETTE
    hue = 0.0
    for number in count():
        hue = (hue + 0.6180339887) % 1.0
        # one brightness has a few hundred colours of 8 bits only
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.55, 0.8 - 0.02 * (number // 128 % 32))
        yield f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _fitting_colour(name: str) -> str | None:
    """Return the usual colour of a common land cover, or None."""
    words = {word for raw in re.findall(r"[a-z]+", name.lower()) for word in (raw, raw.removesuffix("s"))}
    return next((colour for keys, colour in _FITTING if words & keys), None)


def _as_list(value: Any) -> list[Any]:
    """Turn a list, an array or a scalar into a list."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [value] if isinstance(value, str | int | float) else list(value)
