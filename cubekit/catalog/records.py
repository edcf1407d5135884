"""Records of what is known: bands, quality rules, collections, providers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np
from pydantic import AfterValidator, ConfigDict

from cubekit.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    import pystac

_STRICT: Final = ConfigDict(extra="forbid")
_BITS: Final = 32  # of the widest quality layers


def _numeric_dtype(name: str) -> str:
    """Return NumPy's name of a numeric type."""
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if dtype.kind not in "uif":
        raise ValueError(f"{name!r} is not an integer or float type")
    return dtype.name


_FIELD: Final = re.compile(r"(\d{1,2})-(\d{1,2})=(\d{1,6})")


def _flag(flag: int | str) -> int | str:
    """Check a code, bit number, or value of several bits."""
    if isinstance(flag, str):
        bit_test(flag)
    return flag


Flag: TypeAlias = Annotated[int | str, AfterValidator(_flag)]
"""A code; a bit number from the lowest bit, 0; or ``"0-1=2"``: bits 0 and 1 together hold 2."""


def bit_test(flag: int | str) -> tuple[int, int]:
    """Turn a bit rule into a mask and the number that the masked bits must equal.

    Parameters
    ----------
    flag : int or str
        Bit number from the lowest bit, 0; or several bits and their value, such as ``"0-1=2"``.

    Returns
    -------
    mask, value : int
        The rule holds where ``stored & mask == value``.

    Raises
    ------
    ValueError
        For text of another form, or a value that does not fit in its bits.
    """
    if isinstance(flag, int):
        if not 0 <= flag < _BITS:
            raise ValueError(f"{flag} is no bit number from 0 to {_BITS - 1}")
        return 1 << flag, 1 << flag
    found = _FIELD.fullmatch(flag)
    if found is None:
        raise ValueError(f"{flag!r} is neither a number nor bits with a value, such as '0-1=2'")
    low, high, value = map(int, found.groups())
    if not low <= high < _BITS or value >= 1 << (high - low + 1):
        raise ValueError(f"{flag!r}: the value does not fit in its bits")
    return ((1 << (high - low + 1)) - 1) << low, value << low


def _in_order(flag: int | str) -> tuple[int, str]:
    """Sort numbers by themselves, and bits with a value by their lowest bit."""
    return (flag, "") if isinstance(flag, int) else (int(flag.split("-")[0]), flag)


@dataclass(frozen=True, kw_only=True)
class Band:
    """One layer of a collection and the coding of its numbers: ``physical = stored * scale + offset``."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    """Canonical name, such as ``"B04"``."""

    dtype: Annotated[str, AfterValidator(_numeric_dtype)]
    """NumPy name of the stored type."""

    resolution: float
    """Pixel size in metres."""

    assets: tuple[str, ...] = ()
    """Asset keys at the known providers, in the order to try; the name where none are given."""

    aliases: tuple[str, ...] = ()
    """Further names to ask for."""

    common_name: str | None = None
    """Name in the STAC electro-optical extension."""

    nodata: float | None = None
    """Stored number that means "no data"; None where every number counts."""

    scale: float = 1.0
    offset: float = 0.0

    unit: str = "1"
    """Unit of the physical number; ``"1"`` for reflectance and indices."""

    wavelength: float | None = None
    """Centre wavelength in micrometres."""

    @property
    def names(self) -> tuple[str, ...]:
        """Everything the band answers to, canonical name first."""
        return tuple(dict.fromkeys(n for n in (self.name, self.common_name, *self.aliases) if n))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How a quality layer is read, and the masks that have a name."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    band: str
    """Name of the quality band in its collection."""

    kind: Literal["classes", "bits"]
    """``"classes"``: one code per pixel. ``"bits"``: flags, numbered from the lowest bit, 0, and values of
    several bits, such as ``"0-1=2"``."""

    meanings: Mapping[Flag, str]
    """Text of each code or flag."""

    masks: Mapping[str, tuple[Flag, ...]]
    """Codes or flags (any of) that a named mask takes out."""

    invalid: tuple[Flag, ...] = ()
    """Codes or flags that are never data; part of every mask."""

    def select(self, masks: str | Iterable[str]) -> tuple[int | str, ...]:
        """Return the codes or flags to mask, those that are never data included.

        Parameters
        ----------
        masks : str or iterable of str
            Names of masks; several add up, also when joined: ``"clouds+snow"``.

        Returns
        -------
        tuple of int or str
            Sorted codes (``kind="classes"``) or flags for `bit_test` (``kind="bits"``).

        Raises
        ------
        UnknownNameError
            With the nearest mask.
        """
        chosen = set(self.invalid)
        for name in (masks,) if isinstance(masks, str) else masks:
            for part in (name,) if name in self.masks else name.split("+"):
                if part not in self.masks:
                    known = [
                        *self.masks,
                        *(map("+".join, permutations(self.masks, 2)) if "+" in name else ()),
                    ]
                    raise UnknownNameError(f"No mask named {name!r}. {did_you_mean(name, known)}")
                chosen.update(self.masks[part])
        return tuple(sorted(chosen, key=_in_order))


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A satellite product: its bands, its quality layer, its rule for harmonising scenes."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    title: str
    bands: tuple[Band, ...]
    quality: Quality | None = None

    harmonise: Literal["sentinel2-baseline"] | None = None
    """Rule that brings scenes of all processing versions to one coding."""

    default_bands: tuple[str, ...] = ()
    """Bands to open when none are asked for; all but the quality band where the file names none."""

    ids: tuple[str, ...] = ()
    """Other ids of this collection in STAC items."""

    reference: str | None = None
    """Where the facts come from."""

    checked: tuple[str, ...] = ()
    """Providers of which real items have been opened with this record (``"files"``: scenes on disk); what is
    said of others comes from their documentation."""

    @cached_property
    def _by_name(self) -> dict[str, Band]:
        return {name.casefold(): band for band in self.bands for name in band.names}

    def band(self, name: str) -> Band:
        """Look a band up by canonical name, common name or alias, ignoring case.

        Parameters
        ----------
        name : str
            Such as ``"B04"`` or ``"red"``.

        Returns
        -------
        Band
            Its record.

        Raises
        ------
        UnknownNameError
            With the nearest name.
        """
        found = self._by_name.get(name.casefold())
        if found is None:
            known = [known for band in self.bands for known in band.names]
            raise UnknownNameError(
                f"Collection {self.name} has no band {name!r}. {did_you_mean(name, known)}"
            )
        return found

    def asset_key(self, band: Band | str, item: "pystac.Item") -> str | None:
        """Find the asset of an item that holds a band.

        Parameters
        ----------
        band : Band or str
            Record, or a name as for `band`.
        item : pystac.Item
            Of any provider.

        Returns
        -------
        str or None
            Key of the asset; None where the item lacks the band. A key of the catalog is passed over where
            the item's own description gives it to another band; where no key fits, the only asset that
            describes itself as this band is taken.
        """
        wanted = self.band(band) if isinstance(band, str) else band
        for key in wanted.assets:
            if key in item.assets and self._described(item.assets[key]) in (None, wanted):
                return key
        described = [key for key, asset in item.assets.items() if self._described(asset) == wanted]
        return described[0] if len(described) == 1 else None

    def _described(self, asset: "pystac.Asset") -> Band | None:
        """Return the band that an asset of one layer says it holds, where it names one of ours."""
        layers = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands") or []
        if len(layers) != 1 or not isinstance(layers[0], dict):
            return None
        common = layers[0].get("common_name") or layers[0].get("eo:common_name")
        for name in (common, layers[0].get("name")):
            if isinstance(name, str) and name.casefold() in self._by_name:
                return self._by_name[name.casefold()]
        return None


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A STAC API, how its files are signed, and its ids of our collections."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    url: str
    title: str = ""

    signer: str | None = None
    """Name of the signer in `cubekit.sources.signing`; None where addresses need no signature."""

    collections: Mapping[str, str] = field(default_factory=dict)
    """Canonical name to id at the provider."""


@dataclass(frozen=True)
class Catalog:
    """All records on a search path."""

    collections: Mapping[str, Collection]
    providers: Mapping[str, Provider]

    def collection(self, name: str) -> Collection:
        """Look a collection up by canonical name or by an id that STAC items use.

        Parameters
        ----------
        name : str
            Such as ``"sentinel-2-l2a"``; case does not matter.

        Returns
        -------
        Collection
            Its record.

        Raises
        ------
        UnknownNameError
            With the nearest name.
        """
        found = self.match(name)
        if found is None:
            raise UnknownNameError(f"No collection named {name!r}. {did_you_mean(name, self.collections)}")
        return found

    def match(self, name: str | None) -> Collection | None:
        """Look a collection up as `collection` does, or return None.

        Parameters
        ----------
        name : str or None
            Canonical name or id.

        Returns
        -------
        Collection or None
            Its record where known.
        """
        return self._by_id.get(name.casefold()) if name else None

    def provider(self, name: str) -> Provider:
        """Look a provider up.

        Parameters
        ----------
        name : str
            Such as ``"earth-search"``.

        Returns
        -------
        Provider
            Its record.

        Raises
        ------
        UnknownNameError
            With the nearest name.
        """
        if name not in self.providers:
            raise UnknownNameError(f"No provider named {name!r}. {did_you_mean(name, self.providers)}")
        return self.providers[name]

    @cached_property
    def _by_id(self) -> dict[str, Collection]:
        known = {id_.casefold(): c for c in self.collections.values() for id_ in c.ids}
        for provider in self.providers.values():
            for name, id_ in provider.collections.items():
                known.setdefault(id_.casefold(), self.collections[name])
        return known | {name.casefold(): c for name, c in self.collections.items()}
