"""Whether the pixels of Sentinel-2 scenes bear out what their metadata says about the offset."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cubekit.cube.encodings import harmonise
from cubekit.cube.harmonise import SENTINEL2, baseline_of, offset_flag
from cubekit.cube.kernels import valid_in
from cubekit.cube.reader import Source, with_file
from cubekit.cube.scenes import build_table, choose_layers
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.sources.items import Items
from cubekit.typing import Array

if TYPE_CHECKING:
    import pystac
    import xarray as xr
    from rasterio.io import DatasetReader

OFFSET = 1000
"""Added to stored numbers since processing baseline 04.00."""

_SIDE = 512  # pixels of the decimated image
_WELL_BELOW = 900  # reflectance -0.01 if the offset is in the pixels: more than noise
_FEW = 0.01  # share of pixels that may be that dark all the same: shadow, water, haze taken off too far
_DARKEST = 0.1  # per cent of the pixels
_DARK = 1300  # reflectance 0.03 with the offset: only then are dark pixels a sign of it

Verdict = Literal["agrees", "contradicts", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the pixels of one scene say, whatever its metadata."""

    item: str
    """Identifier of the scene."""

    below: float
    """Share of valid pixels with stored numbers below 1000, in the band where it is largest."""

    well_below: float
    """Share of those below 900."""

    darkest: float
    """Stored number below which 0.1 % of the valid pixels of the darkest band lie; NaN where none is."""

    @property
    def offset(self) -> bool | None:
        """Whether the offset is in the pixels; None where they do not tell."""
        if self.well_below > _FEW:
            return False
        if _WELL_BELOW <= self.darkest < _DARK:
            return True
        return None

    def __str__(self) -> str:
        return (
            f"{self.item}: {self.below:.1%} of valid pixels below {OFFSET}, {self.well_below:.1%} below "
            f"{_WELL_BELOW}, the darkest near {self.darkest:.0f}"
        )


def look_at(item: str, bands: Sequence[Array]) -> Look:
    """Measure the valid stored numbers of one scene.

    Parameters
    ----------
    item : str
        Identifier.
    bands : sequence of numpy.ndarray
        Valid stored numbers of each band, any shape.

    Returns
    -------
    Look
        With NaN where there is no valid pixel.
    """
    filled = [band for band in bands if band.size]
    return Look(
        item=item,
        below=max((float((band < OFFSET).mean()) for band in filled), default=0.0),
        well_below=max((float((band < _WELL_BELOW).mean()) for band in filled), default=0.0),
        darkest=min((float(np.percentile(band, _DARKEST)) for band in filled), default=np.nan),
    )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the pixels of a group of scenes say."""

    baseline: str
    """Processing baseline, such as ``"05.10"``; empty where unknown."""

    flag: bool | None
    """Whether the provider says to have taken the offset."""

    scenes: tuple[str, ...]
    """Identifiers of all scenes of this kind."""

    looks: tuple[Look, ...]
    """At those whose pixels were read."""

    offset: bool
    """Whether metadata is taken to say that the offset is in the pixels."""

    @property
    def verdict(self) -> Verdict:
        """Whether the pixels agree, contradict, or are too bright to tell.

        Numbers well below 1000 prove that a scene is without offset. That its darkest are between 900 and
        1300 is a weaker sign of it, which haze gives too: it counts where no other scene of the group says
        otherwise.
        """
        without = sum(look.offset is False for look in self.looks)
        within = sum(look.offset is True for look in self.looks)
        if self.offset:
            return "contradicts" if without else "agrees" if within else "unclear"
        return "agrees" if without else "contradicts" if within else "unclear"

    def __str__(self) -> str:
        flag = "" if self.flag is None else f", boa_offset_applied {str(self.flag).lower()}"
        return (
            f"baseline {self.baseline or 'unknown'}{flag} ({len(self.scenes)} items): metadata says the "
            f"offset is {'in the pixels' if self.offset else 'not in the pixels'}: {self.verdict} (looked at "
            f"{'; '.join(map(str, self.looks))})"
        )


@dataclass(frozen=True)
class OffsetAudit:
    """Findings for each processing baseline and flag."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no pixels contradict their metadata."""
        return all(finding.verdict != "contradicts" for finding in self.findings)

    def decisions(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what is decided for each scene, and how sure that is.

        Returns
        -------
        mapping
            By identifier: ``baseline``, ``flag``, ``offset`` (whether it is taken to be in the pixels) and
            ``pixels`` (the verdict on its kind of scenes).
        """
        return {
            scene: {
                "baseline": finding.baseline,
                "flag": finding.flag,
                "offset": finding.offset,
                "pixels": finding.verdict,
            }
            for finding in self.findings
            for scene in finding.scenes
        }

    def __str__(self) -> str:
        return "\n".join(f"offset    {finding}" for finding in self.findings)


def record_offsets(cube: "xr.Dataset", report: OffsetAudit) -> "xr.Dataset":
    """Write into a cube what was decided for the scenes of each time step.

    Parameters
    ----------
    cube : xarray.Dataset
        From `open_cube`, of the same items.
    report : OffsetAudit
        From `audit_offsets`.

    Returns
    -------
    xarray.Dataset
        As lazy as before; attribute ``offset_audit`` holds as JSON one record for each entry of the attribute
        ``items``, in the same order.

    Raises
    ------
    CubeError
        If the cube holds a scene that was not audited.
    """
    decided = report.decisions()
    scenes = list(cube.attrs.get("items", []))
    if unknown := [scene for scene in scenes if scene not in decided]:
        raise CubeError(
            f"The audit knows nothing of {unknown[0]!r}: audit the items that the cube is made of."
        )
    return cube.assign_attrs(offset_audit=json.dumps([{"item": scene, **decided[scene]} for scene in scenes]))


def audit_offsets(
    items: Items,
    *,
    scenes: int = 3,
    bands: Sequence[str] = ("blue", "red"),
    on_contradiction: Literal["raise", "record"] = "raise",
) -> OffsetAudit:
    """Check against pixels what `open_cube` decides about the Sentinel-2 offset.

    Parameters
    ----------
    items : Items
        Of a collection whose rule is ``sentinel2-baseline``.
    scenes : int, optional
        Scenes to look at for each processing baseline and flag, spread over the dates.
    bands : sequence of str, optional
        Bands in which vegetation, water or shadow are dark.
    on_contradiction : {"raise", "record"}
        Whether a contradiction is an error, or only told in the result.

    Returns
    -------
    OffsetAudit
        One finding for each baseline and flag; ``ok`` where none contradicts.

    Raises
    ------
    CubeError
        When pixels contradict the metadata, with the evidence; or for items that the rule is not for.
    SourceError
        When a file cannot be read.
    OptionError
        For `scenes` below one.

    Notes
    -----
    Each file is read decimated, to about 512 pixels a side, from its overviews where it has some; of each
    part of the period the least cloudy scene (``eo:cloud_cover``) is looked at. Over 1 % of the pixels of a
    band below 900 (reflectance -0.01, were the offset in them) prove a scene without offset; darkest pixels
    as dark as reflectance -0.01 to 0.03 would be with the offset are a sign of it; brighter scenes say
    nothing. Of 118 real scenes without offset (Flanders, 2017 and 2018) none of less than half
    cloud is taken for one with it, nor any of them with 1000 added for one without. Why metadata is not
    enough: Element84/earth-search issues 66 and 71.
    """
    check_option("on_contradiction", on_contradiction, ("raise", "record"))
    if scenes < 1:
        raise OptionError(f"scenes={scenes!r} is not accepted: at least one is needed.")
    if items.collection is None or items.collection.harmonise != SENTINEL2:
        raise CubeError("Only Sentinel-2 has this offset: open the items with collection='sentinel-2-l2a'.")
    groups: dict[tuple[tuple[int, int] | None, bool | None], list[pystac.Item]] = {}
    for item in items:
        groups.setdefault((baseline_of(item), offset_flag(item)), []).append(item)
    report = OffsetAudit(
        tuple(_finding(items, key, group, scenes=scenes, bands=bands) for key, group in groups.items())
    )
    if not report.ok and on_contradiction == "raise":
        raise CubeError(_refusal(report))
    return report


def _finding(
    items: Items,
    key: tuple[tuple[int, int] | None, bool | None],
    group: "list[pystac.Item]",
    *,
    scenes: int,
    bands: Sequence[str],
) -> Finding:
    """Look at some scenes of one kind."""
    ordered = sorted(group, key=lambda item: (str(item.datetime), item.id))
    picked = replace(items, scenes=tuple(_clearest(ordered, scenes)))
    layers = choose_layers(picked, picked.collection, bands, quality=False)
    table = build_table(list(picked), layers, picked, count=len(layers), on_error="raise")
    harmonise(table, len(layers), picked.collection)
    looks = tuple(
        look_at(item.id, [_look(table.source(number, layer)) for layer in range(len(layers))])
        for number, item in enumerate(picked)
    )
    return Finding(
        baseline="" if key[0] is None else "{:02d}.{:02d}".format(*key[0]),
        flag=key[1],
        scenes=tuple(item.id for item in ordered),
        looks=looks,
        offset=table.forms[table.form_of[0, 0]].offset != 0,
    )


def _clearest(ordered: "Sequence[pystac.Item]", count: int) -> "list[pystac.Item]":
    """Return the least cloudy scene of each part of the period; the middle one where none says."""
    cuts = np.linspace(0, len(ordered), min(count, len(ordered)) + 1).round().astype(int)
    parts = [ordered[first:last] for first, last in itertools.pairwise(cuts.tolist())]

    def cloudiness(part: "Sequence[pystac.Item]", place: int) -> tuple[float, int]:
        cover = part[place].properties.get("eo:cloud_cover")
        return (100.0 if cover is None else float(cover), abs(place - len(part) // 2))

    return [part[min(range(len(part)), key=lambda place: cloudiness(part, place))] for part in parts]


def _look(source: Source) -> Array:
    """Return the valid stored numbers of a file, decimated."""

    def read(file: "DatasetReader") -> Array:
        step = max(1.0, max(file.shape) / _SIDE)
        shape = tuple(max(1, round(size / step)) for size in file.shape)
        values = file.read(source.form.band, out_shape=shape)
        own = file.nodatavals[source.form.band - 1]
        return np.asarray(values[valid_in(values, own if source.form.nodata is None else source.form.nodata)])

    return with_file(source, read)


def _refusal(report: OffsetAudit) -> str:
    wrong = [finding for finding in report.findings if finding.verdict == "contradicts"]
    return (
        f"The pixels contradict the metadata about the Sentinel-2 offset: {'; '.join(map(str, wrong))}. Set "
        "the property 'earthsearch:boa_offset_applied' of these items to what the pixels say (true: without "
        "offset), or, before baseline 04.00, correct 's2:processing_baseline'; with "
        "on_contradiction='record' the metadata is trusted."
    )
