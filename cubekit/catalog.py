"""What is known about satellite collections and their providers, read from ``catalogs/*.yaml``; no network.

The schema is described in the header of ``catalogs/sentinel-2.yaml``.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeAlias, TypeVar

import numpy as np
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from cubekit.errors import CatalogError, UnknownNameError, did_you_mean
from cubekit.security import load_yaml
from cubekit.specs import folder
from cubekit.typing import StrPath

if TYPE_CHECKING:
    import pystac

SEARCH_PATH_VARIABLE: Final = "CUBEKIT_CATALOGS"
"""Environment variable with further catalog files or folders, separated as in PATH."""

_STRICT: Final = ConfigDict(extra="forbid")


def _numeric_dtype(name: str) -> str:
    """Return NumPy's name of a numeric type."""
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if dtype.kind not in "uif":
        raise ValueError(f"{name!r} is not an integer or float type")
    return dtype.name


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
    """``"classes"``: one code per pixel. ``"bits"``: flags, numbered from the lowest bit, 0."""

    meanings: Mapping[int, str]
    """Text of each code or bit."""

    masks: Mapping[str, tuple[int, ...]]
    """Codes (any of) or bits (any set) that a named mask takes out."""

    invalid: tuple[int, ...] = ()
    """Codes or bits that are never data; part of every mask."""

    def select(self, masks: str | Iterable[str]) -> tuple[int, ...]:
        """Return the codes or bits to mask, those that are never data included.

        Parameters
        ----------
        masks : str or iterable of str
            Names of masks; several add up.

        Returns
        -------
        tuple of int
            Sorted codes (``kind="classes"``) or bit numbers (``kind="bits"``).

        Raises
        ------
        UnknownNameError
            With the nearest mask.
        """
        chosen = set(self.invalid)
        for name in (masks,) if isinstance(masks, str) else masks:
            if name not in self.masks:
                raise UnknownNameError(f"No mask named {name!r}. {did_you_mean(name, self.masks)}")
            chosen.update(self.masks[name])
        return tuple(sorted(chosen))


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


def open_catalog(*paths: StrPath) -> Catalog:
    """Read the packaged catalog, and the user's own files over it.

    Parameters
    ----------
    *paths : path
        YAML files, or folders of them. They are read after the packaged files and those in the environment
        variable ``CUBEKIT_CATALOGS``; a later record replaces an earlier one of the same name.

    Returns
    -------
    Catalog
        Checked records.

    Raises
    ------
    CatalogError
        Naming file, record and key, with the nearest accepted key; also for a record given twice in one
        folder.
    """
    from_environment = [path for path in os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep) if path]
    return _read_places(
        tuple(_stamped(Path(path)) for path in (folder("catalogs"), *from_environment, *paths))
    )


_Stamped: TypeAlias = tuple[tuple[Path, int, int], ...]


def _stamped(path: Path) -> _Stamped:
    """List the files of one place with time and size, by which a change is noticed."""
    if not path.exists():
        raise CatalogError(f"No catalog file or folder at {path}.")
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=8)
def _read_places(places: tuple[_Stamped, ...]) -> Catalog:
    raw: dict[str, dict[str, _Entry]] = {"collections": {}, "providers": {}}
    for place in places:
        for kind, entries in _read_place([file for file, _, _ in place]).items():
            raw[kind] |= entries
    collections = {name: _collection(name, raw["collections"]) for name in raw["collections"]}
    providers = {name: _provider(name, entry, collections) for name, entry in raw["providers"].items()}
    return Catalog(collections, providers)


_Record = TypeVar("_Record", Collection, Provider)


@dataclass(frozen=True)
class _Entry:
    """One record as the file gives it."""

    file: Path
    values: dict[str, Any]


def _read_place(files: Sequence[Path]) -> dict[str, dict[str, _Entry]]:
    """Read one file, or every file of one folder, in which names must not repeat."""
    found: dict[str, dict[str, _Entry]] = {"collections": {}, "providers": {}}
    for file in files:
        content = load_yaml(file) or {}
        for kind, entries in _mapping(content, file, "the file").items():
            if kind not in found:
                raise CatalogError(f"{file}: unknown key {kind!r}. {did_you_mean(kind, found)}")
            for name, values in _mapping(entries, file, kind).items():
                if name in found[kind]:
                    raise CatalogError(f"{file}: {kind} {name!r} is also given in {found[kind][name].file}.")
                found[kind][name] = _Entry(file, _mapping(values, file, f"{kind}.{name}"))
    return found


def _mapping(values: object, file: Path, where: str) -> dict[str, Any]:
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise CatalogError(f"{file}: {where} must map names to values, found {type(values).__name__}.")
    return values


def _collection(name: str, entries: Mapping[str, _Entry]) -> Collection:
    entry = entries[name]
    values = _inherited(name, entries, seen=())
    defaults = values.pop("band_defaults", {})
    where = f"collections.{name}"
    bands = []
    for band, own in _mapping(values.get("bands", {}), entry.file, f"{where}.bands").items():
        own_keys = _mapping(own if own is not None else {}, entry.file, f"{where}.bands.{band}")
        merged = {"assets": [], **defaults, **own_keys, "name": band}
        if isinstance(merged["assets"], list) and band not in merged["assets"]:
            merged["assets"] = [*merged["assets"], band]  # archives name their assets after the band
        bands.append(merged)
    record = _checked(Collection, {**values, "name": name, "bands": bands}, entry.file, where)
    _check_names(record, entry.file)
    if record.default_bands:
        return record
    mask = record.quality.band if record.quality else None
    return replace(record, default_bands=tuple(band.name for band in record.bands if band.name != mask))


def _inherited(name: str, entries: Mapping[str, _Entry], seen: Sequence[str]) -> dict[str, Any]:
    """Lay a record over the one it is like; bands are added to bands."""
    if name not in entries or name in seen:
        what = "is not a collection" if name not in entries else "leads back to itself"
        raise CatalogError(f"{entries[seen[0]].file}: like: {name} {what}. {did_you_mean(name, entries)}")
    values = dict(entries[name].values)
    parent = values.pop("like", None)
    if parent is None:
        return values
    base = _inherited(str(parent), entries, (*seen, name))
    base_bands = {
        band: {**base.get("band_defaults", {}), **(own or {})} for band, own in base.get("bands", {}).items()
    }
    return {**base, "band_defaults": {}, **values, "bands": base_bands | values.get("bands", {})}


def _provider(name: str, entry: _Entry, collections: Mapping[str, Collection]) -> Provider:
    record = _checked(Provider, {**entry.values, "name": name}, entry.file, f"providers.{name}")
    for canonical in record.collections:
        if canonical not in collections:
            raise CatalogError(
                f"{entry.file}: provider {name} maps unknown collection {canonical!r}. "
                f"{did_you_mean(canonical, collections)}"
            )
    return record


def _checked(kind: type[_Record], values: dict[str, Any], file: Path, where: str) -> _Record:
    """Build a record; pydantic errors become one message with place, value and nearest key."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        lines = [_explain(problem, values) for problem in error.errors(include_url=False)]
        raise CatalogError(f"{file}: {where}: " + "; ".join(lines)) from error


def _explain(problem: Any, values: dict[str, Any]) -> str:
    loc = [part for part in problem["loc"] if part not in {"dataclass", "tuple"}]
    owner: type[Any] = Provider if "url" in values else Collection
    if loc[0] == "bands" and len(loc) > 1:
        loc[1] = values["bands"][loc[1]]["name"]
        owner = Band if len(loc) > 2 else owner  # noqa: PLR2004
    elif loc[0] == "quality" and len(loc) > 1:
        owner = Quality
    place = ".".join(map(str, loc))
    if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return f"unknown key {place!r}. {did_you_mean(loc[-1], [f.name for f in fields(owner)])}"
    return f"{place}: {problem['msg']}, found {problem['input']!r}"


def _check_names(record: Collection, file: Path) -> None:
    """Refuse names that mean two bands, and references to bands or codes that do not exist."""
    owners: dict[str, str] = {}
    for band in record.bands:
        for name in band.names:
            if owners.setdefault(name.casefold(), band.name) != band.name:
                both = f"{owners[name.casefold()]} and {band.name}"
                raise CatalogError(f"{file}: {record.name}: {name!r} names two bands, {both}.")
    names = [band.name for band in record.bands]
    referred = [("default_bands", name) for name in record.default_bands]
    if record.quality:
        referred.append(("quality.band", record.quality.band))
    for key, name in referred:
        if name not in names:
            raise CatalogError(
                f"{file}: {record.name}: {key} names no band: {name!r}. {did_you_mean(name, names)}"
            )
    if record.quality:
        used = {*record.quality.invalid, *(code for codes in record.quality.masks.values() for code in codes)}
        if unknown := sorted(used - set(record.quality.meanings)):
            raise CatalogError(f"{file}: {record.name}: quality uses {unknown} without a meaning.")
