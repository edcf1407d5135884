"""`Items`: scenes as pystac items of one collection, however they were found; and reading them from files."""

import json
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
import shapely

from cubekit.catalog import Catalog, Collection, open_catalog
from cubekit.errors import MissingDependencyError, SourceError, UnknownNameError, check_option, did_you_mean
from cubekit.security import check_href
from cubekit.sources.normalise import normalise_item
from cubekit.sources.web import get_json
from cubekit.typing import BBox, StrPath

ItemsLike: TypeAlias = "StrPath | Mapping[str, Any] | pystac.Item | pystac.ItemCollection | Iterable[Any]"
"""What `open_items` reads."""

RASTER_TYPES: Final = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/netcdf")
"""Media types, without parameters, of assets that can be read as a grid of pixels."""

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

    def save(self, path: StrPath) -> None:
        """Write the items as one GeoJSON feature collection (a STAC ItemCollection).

        Parameters
        ----------
        path : path
            Local file; an existing one is replaced once the new one is whole. Local addresses are written as
            absolute paths: `open_items` then needs ``root=`` unless they lie beside the file.

        Raises
        ------
        SourceError
            If the file cannot be written.
        """
        features = [scene.to_dict(include_self_link=True, transform_hrefs=False) for scene in self.scenes]
        text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1, allow_nan=False)
        target = Path(path)
        draft = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text, encoding="utf-8")
            draft.replace(target)
        except OSError as error:
            raise SourceError(f"Cannot write {target}: {error.strerror}. Choose another path.") from error


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
        needs rustac); an http(s) address of JSON; or the same as Python objects.
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
        For stac-geoparquet without rustac.
    UnknownNameError
        If ``collection`` is not in the catalog.
    """
    check_option("on_bad_item", on_bad_item, ("raise", "skip"))
    if isinstance(source, Items):
        return replace(source, collection=open_catalog().collection(collection)) if collection else source
    origin, folder, content = _read(source)
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
    links = {str(link.target) for scene in scenes for link in scene.links} | {origin or ""}
    signers = {
        p.signer for p in catalog.providers.values() if p.signer and any(u.startswith(p.url) for u in links)
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


def bounding_box(scenes: Iterable[pystac.Item]) -> BBox:
    """Find the smallest box around scenes.

    Parameters
    ----------
    scenes : iterable of pystac.Item
        Those without ``bbox`` are left out.

    Returns
    -------
    tuple of float
        West, south, east, north in degrees; west is greater than east where the box crosses 180 degrees.

    Raises
    ------
    SourceError
        If no scene says where it is.
    """
    spans, lats = [], []
    for scene in scenes:
        if scene.bbox:
            half = len(scene.bbox) // 2
            spans.append(_longitudes(scene, scene.bbox[0], scene.bbox[half]))
            lats += [scene.bbox[1], scene.bbox[half + 1]]
    if not spans:
        raise SourceError("No item says where it is: bbox is missing everywhere.")
    west, east = _smallest_arc(spans)  # some products reach half a pixel beyond the globe
    return max(west, -180.0), max(min(lats), -90.0), min(east, 180.0), min(max(lats), 90.0)


def _longitudes(scene: pystac.Item, west: float, east: float) -> tuple[float, float]:
    """Return start and end (start < end, end may pass 180) of a scene's longitudes."""
    if west > east:
        return west, east + 360
    if east - west <= 180 or not scene.geometry:  # noqa: PLR2004
        return west, east
    # Scenes on the antimeridian state -180..180; their corners tell the truth.
    corners = np.unique(shapely.get_coordinates(shapely.geometry.shape(scene.geometry))[:, 0])
    if not np.any(np.abs(corners) < 180):  # noqa: PLR2004
        return west, east
    gaps = np.diff(corners)
    widest = int(np.argmax(gaps))
    return float(corners[widest + 1]), float(corners[widest] + 360)


def _smallest_arc(spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return west and east of what remains of the circle once its widest uncovered arc is taken out."""
    pieces: list[tuple[float, float]] = []
    for west, east in spans:
        pieces.append((west, min(east, 180.0)))
        if east > 180:  # noqa: PLR2004
            pieces.append((-180.0, east - 360))
    first = min(pieces)[0]
    reach, widest, arc = first, 0.0, None
    for west, east in sorted(pieces):
        if west - reach > widest:
            widest, arc = west - reach, (west, reach)
        reach = max(reach, east)
    if arc is None or first + 360 - reach >= widest:  # the widest is the one across 180 degrees
        return first, reach
    return arc


def _naive_utc(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _read(source: ItemsLike) -> tuple[str | None, Path | None, Any]:
    """Return remote address, local folder, and content."""
    if not isinstance(source, str | os.PathLike):
        return None, None, source
    text = os.fspath(source)
    if text.startswith(("http://", "https://")):
        return text, None, get_json(text)
    path = Path(text).resolve()
    try:
        if path.suffix in {".parquet", ".geoparquet"}:
            return None, path.parent, _read_parquet(path)
        return None, path.parent, json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"There is no file at {path}.") from None
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read as STAC items: {error}. Give JSON that a search saved; scenes "
            "in a folder are indexed by open_archive, with a pattern for their names."
        ) from error


def _read_parquet(path: Path) -> Any:
    try:
        import rustac
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading stac-geoparquet ({path.name}) needs rustac: pip install rustac, or save as JSON."
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        return rustac.read_sync(str(path))
    except Exception as error:  # its error class is private to the extension
        raise SourceError(f"{path} cannot be read as stac-geoparquet: {error}") from error


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
