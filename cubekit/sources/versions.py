"""One of each scene: providers list some twice, or keep old versions beside reprocessed ones."""

import re
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Final, TypeAlias

import pystac

_DATASTRIP: Final = re.compile(r"_S(?P<start>\d{8}T\d{6})")
_TILE: Final = re.compile(r"(?:_T|MGRS-)(?P<tile>\d{2}[A-Z]{3})\b|_T(?P<named>\d{2}[A-Z]{3})_")
# LC08_L2SP_028030_20200114_20200824_02_T1: sensor, level, path and row, taken, processed, collection, tier.
# The level of surface temperature and of both is one: L2SP has what L2SR has, and more.
_LANDSAT: Final = re.compile(
    r"(?P<sensor>L[COTEM]\d\d)_(?P<level>L\d)(?P<kind>\w\w)_(?P<place>\d{6})_(?P<taken>\d{8})_"
    r"(?:(?P<made>\d{8})_)?(?P<collection>\d\d)_(?P<tier>RT|T1|T2)(?P<rest>\w*)"
)
_TIERS: Final = {"RT": 0, "T2": 1, "T1": 2}
_KINDS: Final = {"SR": 0, "SP": 1}
# MOD13Q1.A2022017.h12v11.061.2022035042400: product, day, tile, version, when it was made.
_MODIS: Final = re.compile(
    r"(?P<product>[MVC]\w{2}\d{2}\w{1,5})\.A(?P<day>\d{7})(?:\.(?P<tile>h\d\dv\d\d))?\.(?P<version>\d{3})"
    r"(?:\.(?P<made>\d{13}))?"
)
# HLS.S30.T33UVP.2021002T100411.v2.0
_HLS: Final = re.compile(
    r"HLS\.(?P<kind>[SL]30)\.(?P<tile>T\d{2}[A-Z]{3})\.(?P<taken>\d{7}T\d{6})\.v(?P<version>[\d.]+\d)"
)
_UNDATED: Final = ""

_Rank: TypeAlias = tuple[tuple[int, ...], str]  # version numbers, then time


def newest_versions(scenes: Iterable[pystac.Item]) -> tuple[tuple[pystac.Item, ...], tuple[pystac.Item, ...]]:
    """Keep one item of each scene.

    Items with the same id and collection are one item: the one that was updated last stays, else the first.
    Sentinel-2 items of one satellite, level, tile and start of datastrip are versions of one scene: the one
    with the highest processing baseline stays, then the one generated last. Two halves of a tile from one
    datatake have different datastrips and both stay; so does everything whose metadata does not name a
    datastrip. Of other products the identifier tells what is one scene: Landsat items of one sensor, level,
    path, row and day (Tier 1 before Tier 2 before real time, then what was processed last), MODIS and VIIRS
    items of one product, day and tile (highest version, then made last), HLS items of one sensor, tile and
    time (highest version). Across collections nothing is dropped.

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
    """Return what all versions of a scene share; a product without a rule is its own scene."""
    named = _named(scene.id)
    if named is not None:
        return scene.collection_id, named[0]
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


def _named(name: str) -> tuple[Hashable, _Rank] | None:
    """Read scene and version from an identifier of Landsat, MODIS, VIIRS or HLS."""
    if found := _LANDSAT.fullmatch(name):
        scene = tuple(found[key] for key in ("sensor", "level", "place", "taken", "collection", "rest"))
        return scene, ((_TIERS[found["tier"]], _KINDS.get(found["kind"], 0)), found["made"] or "")
    if found := _MODIS.fullmatch(name):
        return (found["product"], found["day"], found["tile"]), (
            (int(found["version"]),),
            found["made"] or "",
        )
    if found := _HLS.fullmatch(name):
        numbers = tuple(int(number) for number in found["version"].split("."))
        return (found["kind"], found["tile"], found["taken"]), (numbers, "")
    return None


def _version(scene: pystac.Item) -> _Rank:
    named = _named(scene.id)
    if named is not None:
        (numbers, made) = named[1]
        return numbers, made or _updated(scene)[1]
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
