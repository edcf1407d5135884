"""Items on disk and on the web: GeoJSON, stac-geoparquet, static catalogs."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pystac

from cubekit.errors import MissingDependencyError, SourceError
from cubekit.sources.web import get_json

_PARQUET: Final = frozenset({".parquet", ".geoparquet"})
_MAX_FILES: Final = 200_000
"""Files that one static catalog may have."""


def read_snapshot(source: Any) -> tuple[str | None, Path | None, Any]:
    """Read what a path or an address holds.

    Parameters
    ----------
    source : path, str, or anything else
        Local file or folder, or http(s) address; other objects are returned as they are.

    Returns
    -------
    origin : str or None
        Address, if remote.
    folder : pathlib.Path or None
        Folder of a local file.
    content : object
        JSON, or a list of items.

    Raises
    ------
    SourceError
        If it cannot be read.
    MissingDependencyError
        For stac-geoparquet without its package.
    """
    if not isinstance(source, str | os.PathLike):
        return None, None, source
    text = os.fspath(source)
    if text.startswith(("http://", "https://")):
        return text, None, get_json(text)
    path = Path(text).resolve()
    if path.is_dir() and (path / "catalog.json").is_file():
        path /= "catalog.json"
    try:
        if path.suffix in _PARQUET:
            return None, path.parent, _read_parquet(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"There is no file at {path}.") from None
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read as STAC items: {error}. Give JSON that a search saved; scenes "
            "in a folder are indexed by open_archive, with a pattern for their names."
        ) from error
    if isinstance(content, dict) and content.get("type") in {"Catalog", "Collection"}:
        content = _read_catalog(path)
    return None, path.parent, content


def write_snapshot(scenes: Sequence[pystac.Item], path: Path, *, title: str | None = None) -> None:
    """Write items in the form that the name of a path asks for.

    Parameters
    ----------
    scenes : sequence of pystac.Item
        Normalised, unsigned.
    path : pathlib.Path
        ``.parquet``, no suffix (a folder), or anything else (GeoJSON).
    title : str, optional
        Of the collection, for a static catalog.

    Raises
    ------
    SourceError
        If it cannot be written.
    MissingDependencyError
        For stac-geoparquet without its package.
    """
    if not path.suffix:
        _write_catalog(scenes, path, title or "Scenes")
        return
    features = [scene.to_dict(include_self_link=True, transform_hrefs=False) for scene in scenes]
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in _PARQUET:
            _write_parquet(features, draft)
        else:
            text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1, allow_nan=False)
            draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"Cannot write {path}: {error.strerror}. Choose another path.") from error


def _arrow(path: Path) -> Any:
    try:
        import stac_geoparquet.arrow as stac_arrow
    except ImportError as error:
        raise MissingDependencyError(
            f"stac-geoparquet ({path.name}) needs its package: pip install 'cubekit[parquet]', or take JSON."
        ) from error
    return stac_arrow


def _read_parquet(path: Path) -> Any:
    arrow = _arrow(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return list(arrow.stac_table_to_items(ParquetFile(path).read()))
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} cannot be read as stac-geoparquet: {error}") from error


def _write_parquet(features: list[dict[str, Any]], draft: Path) -> None:
    # Not rustac: it cuts times to milliseconds, and a cube would be labelled otherwise than from JSON.
    arrow = _arrow(draft)
    import pyarrow as pa

    if not features:
        raise SourceError("There are no items to save as stac-geoparquet: save as JSON.")
    try:
        table = arrow.parse_stac_items_to_arrow(features)
        arrow.to_parquet(table, draft)
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(
            f"These items do not fit one table ({str(error)[:200]}): save as JSON instead of stac-geoparquet."
        ) from error


def _write_catalog(scenes: Sequence[pystac.Item], folder: Path, title: str) -> None:
    """Write a static, self-contained catalog of one collection for each that the items name."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(f"{folder} is not empty: choose another folder for a static catalog.")
    catalog = pystac.Catalog("cubekit", "Items saved by cubekit")
    groups: dict[str, list[pystac.Item]] = {}
    for scene in scenes:
        copy = _unlinked(scene)
        groups.setdefault(str(copy.collection_id), []).append(copy)
    for name, members in groups.items():
        collection = pystac.Collection(name, title, pystac.Extent.from_items(members))
        collection.add_items(members)
        catalog.add_child(collection)
    catalog.normalize_hrefs(str(folder))
    try:
        catalog.save(pystac.CatalogType.SELF_CONTAINED)
    except OSError as error:
        raise SourceError(f"Cannot write {folder}: {error.strerror}. Choose another path.") from error


def _unlinked(scene: pystac.Item) -> pystac.Item:
    """Copy an item without links but to where it came from, which tells the provider and so the signer."""
    values = scene.to_dict(include_self_link=False, transform_hrefs=False)
    origin = next((str(link.target) for link in scene.links if link.rel in {"self", "canonical"}), None)
    values["links"] = [{"rel": "canonical", "href": origin}] if origin else []
    values["collection"] = scene.collection_id or scene.properties.get("odc:product") or "items"
    return pystac.Item.from_dict(values)


def _read_catalog(path: Path) -> list[Any]:
    """Follow the links of a local static catalog; none may leave its folder, none is followed twice."""
    root, seen, found = path.parent, {path}, []
    waiting = [path]
    while waiting:
        file = waiting.pop(0)
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("type") == "Feature":
            found.append(_with_paths(content, file.parent))
            continue
        for link in content.get("links", []):
            if link.get("rel") not in {"child", "item"}:
                continue
            target = (file.parent / str(link.get("href"))).resolve()
            if "://" in str(link.get("href")):
                raise SourceError(f"{path} leads to the web: search its API, or save its items first.")
            if not target.is_relative_to(root) or not target.is_file():
                raise SourceError(f"{file} names {link.get('href')!r}, which is no file inside {root}.")
            if target not in seen:
                seen.add(target)
                waiting.append(target)
        if len(seen) > _MAX_FILES:
            raise SourceError(f"{path}: more than {_MAX_FILES} files; save as stac-geoparquet instead.")
    if not found:
        kind = json.loads(path.read_text(encoding="utf-8"))["type"]
        raise SourceError(f"{path} holds type {kind!r}, expected STAC items, and leads to none.")
    return found


def _with_paths(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the relative addresses of an item start from its own file."""
    for asset in item.get("assets", {}).values():
        href = str(asset.get("href", ""))
        if "://" not in href and not href.startswith(("/", "<")):
            asset["href"] = str(folder / href)
    return item
