"""`Items`: scenes as pystac items of one collection, however they were found; and reading them from files."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import pystac

from cubekit.catalog import Catalog, Collection, open_catalog
from cubekit.errors import SourceError, UnknownNameError, check_option, did_you_mean
from cubekit.security import check_href
from cubekit.sources.dates import missing_dates
from cubekit.sources.extent import bounding_box
from cubekit.sources.normalise import normalise_item
from cubekit.sources.snapshots import read_snapshot, write_snapshot
from cubekit.typing import BBox, StrPath

ItemsLike: TypeAlias = "StrPath | Mapping[str, Any] | pystac.Item | pystac.ItemCollection | Iterable[Any]"
"""What `open_items` reads."""

RASTER_TYPES: Final = (
    "image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/netcdf", "application/x-hdf4",
)  # fmt: skip
"""Media types, without parameters, of assets that can be read as a grid of pixels."""

_OWN_LINKS: Final = frozenset({"self", "canonical", "collection"})
_HIDDEN_ROLES: Final = frozenset({"thumbnail", "overview", "metadata", "tiles"})


@dataclass(frozen=True, eq=False, repr=False)
class Items(Sequence[pystac.Item]):
    """Scenes found by a search, in a file or in an archive: a frozen sequence; slices are `Items` too.

    Addresses are absolute and unsigned. Raster assets carry ``proj:code`` (or ``proj:wkt2``),
    ``proj:shape`` and ``proj:transform`` where the source knows them, and ``raster:bands`` or ``bands`` as
    the source gives them. An asset that is a part of a bigger file carries ``cubekit:band`` (layer in the
    file, from 1) and ``cubekit:variable`` (name in a NetCDF file).
    """

    scenes: tuple[pystac.Item, ...]

    collection: Collection | None = None
    """What the catalog knows; None for collections it does not hold."""

    origin: str | None = None
    """Address that the items were read from, when that was remote."""

    root: Path | None = None
    """Folder that local addresses must stay in; None where none are allowed."""

    signer: str | None = None
    """Name of the signer to ask when a file is read."""

    def __len__(self) -> int:
        return len(self.scenes)

    def __iter__(self) -> Iterator[pystac.Item]:
        return iter(self.scenes)

    @overload
    def __getitem__(self, index: int) -> pystac.Item: ...
    @overload
    def __getitem__(self, index: slice) -> "Items": ...
    def __getitem__(self, index: int | slice) -> "pystac.Item | Items":
        if isinstance(index, slice):
            return replace(self, scenes=self.scenes[index])
        return self.scenes[index]

    def __repr__(self) -> str:
        what = self.collection.name if self.collection else "unknown collection"
        if not self.scenes:
            return f"<Items: none of {what}>"
        days = sorted(str(day) for day in self.datetimes.astype("datetime64[D]"))
        span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
        bbox = ", ".join(f"{edge:.5g}" for edge in self.bbox) if any(s.bbox for s in self) else "nowhere"
        return f"<Items: {len(self)} of {what}, {span}, bbox ({bbox}), bands {' '.join(self.bands)}>"

    @property
    def datetimes(self) -> npt.NDArray[np.datetime64]:
        """Nominal time of each scene: ``datetime64[ns]`` of shape (items,), UTC; a period's start."""
        return np.array([_naive_utc(nominal_time(scene)) for scene in self.scenes], dtype="datetime64[ns]")

    @property
    def bbox(self) -> BBox:
        """Smallest box around all scenes in WGS 84; west > east where it crosses 180 degrees."""
        return bounding_box(self.scenes)

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that at least one scene holds: the catalog's names first, then other keys."""
        found: dict[str, None] = {}
        claimed: set[str] = set()
        if self.collection:
            for band in self.collection.bands:
                keys = {self.collection.asset_key(band, scene) for scene in self.scenes} - {None}
                if keys:
                    found[band.name] = None
                    claimed |= {key for key in keys if key} | set(band.assets)
        for scene in self.scenes:
            found |= {
                key: None for key, asset in scene.assets.items() if key not in claimed and is_raster(asset)
            }
        return tuple(found)

    def by_crs(self) -> "dict[str, Items]":
        """Part the scenes by the CRS of their files, such as UTM zones.

        Returns
        -------
        dict
            Items by CRS, sorted; scenes that do not say theirs are under ``""``.

        Examples
        --------
        One cube for each zone on its own pixels, side by side:

        >>> zones = {crs: open_cube(part) for crs, part in items.by_crs().items()}  # doctest: +SKIP
        >>> tree = xarray.DataTree.from_dict(zones)  # doctest: +SKIP
        """
        parts: dict[str, list[pystac.Item]] = {}
        for scene in self.scenes:
            fields = [scene.properties, *(asset.extra_fields for asset in scene.assets.values())]
            named = (each.get("proj:code") or each.get("proj:wkt2") for each in fields)
            parts.setdefault(next((str(crs) for crs in named if crs), ""), []).append(scene)
        return {crs: replace(self, scenes=tuple(parts[crs])) for crs in sorted(parts)}

    def asset(self, scene: pystac.Item, band: str) -> pystac.Asset | None:
        """Return the asset of a scene that holds a band.

        Parameters
        ----------
        scene : pystac.Item
            One of these items.
        band : str
            Band name, alias or asset key.

        Returns
        -------
        pystac.Asset or None
            None where this scene lacks the band.

        Raises
        ------
        UnknownNameError
            If no scene has it, with the nearest name.
        """
        if self.collection and band.casefold() in self._catalog_names:
            key = self.collection.asset_key(band, scene)
            return scene.assets[key] if key else None
        if band in scene.assets:
            return scene.assets[band]
        if not any(band in other.assets for other in self.scenes):
            known = {*self.bands, *self._catalog_names}
            raise UnknownNameError(f"No scene has a band {band!r}. {did_you_mean(band, known)}")
        return None

    @property
    def _catalog_names(self) -> frozenset[str]:
        bands = self.collection.bands if self.collection else ()
        return frozenset(name.casefold() for band in bands for name in band.names)

    def href(self, asset: pystac.Asset) -> str:
        """Return an asset's unsigned address after checking that it may be read.

        Parameters
        ----------
        asset : pystac.Asset
            Of one of these items.

        Returns
        -------
        str
            Address, or absolute local path with links resolved.

        Raises
        ------
        SecurityError
            If items from this source may not name it; see `cubekit.security.check_href`.
        """
        local = "://" not in asset.href and self.root is not None
        return check_href(asset.href, origin=None if local else self.origin, root=self.root)

    def missing_dates(self, every: str) -> tuple[datetime, ...]:
        """Tell which dates of a regular series no scene has.

        Parameters
        ----------
        every : str
            Step of the series, such as ``"16D"``, ``"8D"`` (counted from each 1 January where the dates are,
            as those of MODIS; else from the first date) or ``"1MS"``.

        Returns
        -------
        tuple of datetime.datetime
            Between the first and the last scene, UTC; empty where none is missing.

        Raises
        ------
        OptionError
            For a step that is none, or dates that do not lie on such a series.
        """
        return missing_dates([nominal_time(scene) for scene in self.scenes], every)

    def save(self, path: StrPath) -> None:
        """Write the items to a file, or to a folder as a static catalog; `open_items` reads all of them.

        Parameters
        ----------
        path : path
            ``.parquet``: stac-geoparquet (needs stac-geoparquet); a name without suffix: a folder with
            ``catalog.json``, a collection and one file per item; anything else: one GeoJSON feature
            collection. An existing file is replaced once the new one is whole; a folder must be new or empty.
            Local addresses are written as absolute paths: `open_items` then needs ``root=`` unless they lie
            beside the file. Addresses are unsigned.

        Raises
        ------
        SourceError
            If the file cannot be written.
        MissingDependencyError
            For stac-geoparquet without its package.
        """
        write_snapshot(self.scenes, Path(path), title=self.collection.title if self.collection else None)


def open_items(
    source: ItemsLike,
    *,
    collection: str | None = None,
    root: "StrPath | None" = None,
    on_bad_item: Literal["raise", "skip"] = "raise",
) -> Items:
    """Read scenes from a file, an address, or objects already in memory.

    Parameters
    ----------
    source : path, str, mapping, pystac.Item, pystac.ItemCollection, or iterable of items
        GeoJSON feature collection, single STAC item, bare JSON list of items; stac-geoparquet (``.parquet``,
        needs stac-geoparquet); a local static catalog (its folder or ``catalog.json``); an http(s) address of
        JSON; or the same as Python objects.
    collection : str, optional
        Canonical name of the collection. Default: the collection that the items name, where the catalog
        knows it.
    root : path, optional
        Folder that local addresses must stay in. Default: the folder of a local file.
    on_bad_item : {"raise", "skip"}, optional
        What to do with an item that is not valid STAC.

    Returns
    -------
    Items
        In the order of the source, with absolute unsigned addresses. Nothing but the list is read.

    Raises
    ------
    SourceError
        If the source cannot be read or holds no STAC items; names item and field.
    MissingDependencyError
        For stac-geoparquet without its package.
    UnknownNameError
        If ``collection`` is not in the catalog.
    """
    check_option("on_bad_item", on_bad_item, ("raise", "skip"))
    if isinstance(source, Items):
        return replace(source, collection=open_catalog().collection(collection)) if collection else source
    origin, folder, content = read_snapshot(source)
    base = origin or (str(folder) if folder else None)
    features = _features(content, source)
    if content is source:
        features = (_copied(feature) for feature in features)
    scenes = parse_items(features, base=base, on_bad_item=on_bad_item)
    return assemble_items(
        scenes, open_catalog(), collection=collection, origin=origin, root=Path(root) if root else folder
    )


def parse_items(
    features: Iterable[Any], *, base: str | None = None, on_bad_item: Literal["raise", "skip"] = "raise"
) -> tuple[pystac.Item, ...]:
    """Turn mappings into normalised items.

    Parameters
    ----------
    features : iterable of mapping
        STAC items of any version; they are changed.
    base : str, optional
        Address or folder that relative addresses start from, where an item does not say its own.
    on_bad_item : {"raise", "skip"}, optional
        What to do with an item that is not valid STAC.

    Returns
    -------
    tuple of pystac.Item
        See `Items` for what they carry.

    Raises
    ------
    SourceError
        Naming the item and the field.
    """
    scenes = []
    for feature in features:
        try:
            scenes.append(normalise_item(feature, base=base))
        except SourceError:
            if on_bad_item == "raise":
                raise
    return tuple(scenes)


def assemble_items(
    scenes: tuple[pystac.Item, ...],
    catalog: Catalog,
    *,
    collection: str | None = None,
    origin: str | None = None,
    root: Path | None = None,
) -> Items:
    """Join scenes with what the catalog knows about their collection and provider.

    Parameters
    ----------
    scenes : tuple of pystac.Item
        Normalised items.
    catalog : Catalog
        Where to look.
    collection : str, optional
        Canonical name; default: the one that all scenes name, where known.
    origin : str, optional
        Remote address they came from.
    root : pathlib.Path, optional
        Folder that local addresses must stay in.

    Returns
    -------
    Items
        With ``signer`` set where the scenes' links lead to a provider that signs.
    """
    record = catalog.collection(collection) if collection else None
    if record is None:
        named = {scene.collection_id or scene.properties.get("odc:product") for scene in scenes}
        matched = {match.name if (match := catalog.match(name)) else None for name in named}
        record = catalog.match(next(iter(matched))) if len(matched) == 1 else None
    # What an item was derived from may lie at another provider.
    links = {str(link.target) for scene in scenes for link in scene.links if link.rel in _OWN_LINKS}
    urls = links | {origin or ""}
    signers = {
        p.signer for p in catalog.providers.values() if p.signer and any(u.startswith(p.url) for u in urls)
    }
    return Items(scenes, record, origin, root, next(iter(signers)) if len(signers) == 1 else None)


def nominal_time(scene: pystac.Item) -> datetime:
    """Return the time that stands for a scene.

    Parameters
    ----------
    scene : pystac.Item
        Normalised item.

    Returns
    -------
    datetime.datetime
        Its ``datetime``, or its ``start_datetime`` where it covers a period.
    """
    time = scene.datetime or scene.common_metadata.start_datetime
    if time is None:
        raise SourceError(f"Item {scene.id} has neither datetime nor start_datetime.")
    return time


def is_raster(asset: pystac.Asset) -> bool:
    """Tell whether an asset is a grid of pixels meant for analysis.

    Parameters
    ----------
    asset : pystac.Asset
        Of any item.

    Returns
    -------
    bool
        By media type and role; thumbnails and previews are not.
    """
    media = (asset.media_type or "").split(";")[0].strip().lower()
    return media in RASTER_TYPES and _HIDDEN_ROLES.isdisjoint(asset.roles or ())


def _naive_utc(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _copied(feature: Any) -> Any:
    """Return a mapping that may be changed, of what belongs to the caller."""
    return deepcopy(feature.to_dict(transform_hrefs=False) if isinstance(feature, pystac.Item) else feature)


def _features(content: Any, source: object) -> Iterable[Any]:
    if isinstance(content, pystac.Item):
        return [content]
    if isinstance(content, Mapping):
        kind = content.get("type")
        if kind == "Feature":
            return [content]
        if kind == "FeatureCollection" and isinstance(content.get("features"), list):
            return list(content["features"])
        raise SourceError(
            f"{_shown(source)} holds type {kind!r}, expected STAC items (Feature or FeatureCollection)."
        )
    if isinstance(content, Iterable) and not isinstance(content, str | bytes):
        return content
    raise SourceError(f"{_shown(source)} holds a {type(content).__name__}, expected STAC items.")


def _shown(source: object) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"The given {type(source).__name__}"
