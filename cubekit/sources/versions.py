"""One of each scene: providers list some twice, or keep old versions beside reprocessed ones."""

import re
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Final, TypeAlias

import pystac

_DATASTRIP: Final = re.compile(r"_S(?P<start>\d{8}T\d{6})")
_TILE: Final = re.compile(r"(?:_T|MGRS-)(?P<tile>\d{2}[A-Z]{3})\b|_T(?P<named>\d{2}[A-Z]{3})_")
_UNDATED: Final = ""

_Rank: TypeAlias = tuple[tuple[int, ...], str]  # version numbers, then time


def newest_versions(scenes: Iterable[pystac.Item]) -> tuple[tuple[pystac.Item, ...], tuple[pystac.Item, ...]]:
    """Keep one item of each scene.

    Items with the same id and collection are one item: the one that was updated last stays, else the first.
    Sentinel-2 items of one satellite, level, tile and start of datastrip are versions of one scene: the one
    with the highest processing baseline stays, then the one generated last. Two halves of a tile from one
    datatake have different datastrips and both stay; so does everything whose metadata does not name a
    datastrip.

    Parameters
    ----------
    scenes : iterable of pystac.Item
        As a search found them.

    Returns
    -------
    kept : tuple of pystac.Item
        In the order of their first appearance.
    dropped : tuple of pystac.Item
        Repeated and superseded ones.
    """
    kept: dict[Hashable, pystac.Item] = {}
    dropped = []
    rules: tuple[tuple[Callable[[pystac.Item], Hashable], Callable[[pystac.Item], _Rank]], ...]
    rules = ((_identity, _updated), (_scene, _version))
    for key, rank in rules:
        kept = {}
        for scene in scenes:
            held = kept.setdefault(key(scene), scene)
            if held is not scene:
                older, newer = (held, scene) if rank(scene) > rank(held) else (scene, held)
                kept[key(scene)] = newer
                dropped.append(older)
        scenes = tuple(kept.values())
    return tuple(kept.values()), tuple(dropped)


def _identity(scene: pystac.Item) -> Hashable:
    return scene.collection_id, scene.id


def _updated(scene: pystac.Item) -> _Rank:
    return (), _time_text(scene.properties.get("updated") or scene.properties.get("created"))


def _scene(scene: pystac.Item) -> Hashable:
    """Return what all versions of a Sentinel-2 scene share; anything else is its own scene."""
    properties = scene.properties
    strip = _DATASTRIP.search(str(properties.get("s2:datastrip_id", "")))
    names = (
        properties.get("s2:mgrs_tile"),
        properties.get("grid:code"),
        properties.get("s2:product_uri"),
        scene.id,
    )
    tile = next((tile for name in names if name and (tile := _tile(str(name)))), None)
    if strip is None or tile is None:
        return _identity(scene)
    platform = str(properties.get("platform", scene.id[:3])).lower().replace("_", "-")
    level = "1C" if re.search(r"L1C|MSI1C", f"{scene.id} {properties.get('s2:product_type')}") else "2A"
    return platform, level, tile, strip["start"]


def _tile(name: str) -> str | None:
    if re.fullmatch(r"\d{2}[A-Z]{3}", name):
        return name
    found = _TILE.search(name)
    return (found["tile"] or found["named"]) if found else None


def _version(scene: pystac.Item) -> _Rank:
    properties = scene.properties
    baseline = str(properties.get("s2:processing_baseline") or properties.get("processing:version") or "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", baseline))
    generated = properties.get("s2:generation_time") or properties.get("processing:datetime")
    return numbers, _time_text(generated)


def _time_text(value: object) -> str:
    """Return a time in a form that sorts; the empty text for none."""
    try:
        return datetime.fromisoformat(str(value)).isoformat() if value else _UNDATED
    except ValueError:
        return _UNDATED
