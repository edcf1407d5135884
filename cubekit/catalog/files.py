"""Reading catalog files: the packaged ones and the user's own over them, checked against the schema."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cubekit.catalog.records import Band, Catalog, Collection, Provider, Quality, bit_test
from cubekit.errors import CatalogError, did_you_mean
from cubekit.security import load_yaml
from cubekit.specs import folder
from cubekit.typing import StrPath

SEARCH_PATH_VARIABLE: Final = "CUBEKIT_CATALOGS"
"""Environment variable with further catalog files or folders, separated as in PATH."""


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
    base.pop("checked", None)  # says of what items it is true, and these are others
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
        _check_flags(record, record.quality, file)


def _check_flags(record: Collection, quality: Quality, file: Path) -> None:
    """Refuse rules without a meaning, and rules that the numbers of the quality band cannot hold."""
    used = {*quality.invalid, *(flag for flags in quality.masks.values() for flag in flags)}
    if unknown := [flag for flag in used if flag not in quality.meanings]:
        shown = sorted(unknown, key=str)
        raise CatalogError(f"{file}: {record.name}: quality uses {shown} without a meaning.")
    dtype = np.dtype(record.band(quality.band).dtype)
    for flag in quality.meanings:
        if not _can_hold(dtype, flag, quality.kind):
            what = "code" if quality.kind == "classes" else "flag"
            raise CatalogError(
                f"{file}: {record.name}: quality.meanings: {flag!r} is no {what} that {quality.band} "
                f"({dtype}) can hold."
            )


def _can_hold(dtype: "np.dtype[Any]", flag: int | str, kind: str) -> bool:
    if dtype.kind == "f":
        return False
    if kind == "bits":
        if isinstance(flag, int) and flag < 0:
            return False
        return bit_test(flag)[0] < 1 << dtype.itemsize * 8
    limits = np.iinfo(dtype)
    return isinstance(flag, int) and bool(limits.min <= flag <= limits.max)
