"""Whether the pixels of Sentinel-2 scenes bear out what their metadata says about the offset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

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
class Finding:
    """What the pixels of a group of scenes say."""

    baseline: str
    """Processing baseline, such as ``"05.10"``; empty where unknown."""

    flag: bool | None
    """Whether the provider says to have taken the offset."""

    items: int
    """Scenes of this kind."""

    looked_at: tuple[str, ...]
    """Those whose pixels were read."""

    offset: bool
    """Whether metadata is taken to say that the offset is in the pixels."""

    below: float
    """Share of valid pixels, of all scenes and bands looked at, with stored numbers below 1000."""

    well_below: float
    """Share of those below 900."""

    darkest: float
    """Stored number below which 0.1 % of the valid pixels of the darkest band lie; NaN where none is."""

    @property
    def verdict(self) -> Verdict:
        """Whether the pixels agree, contradict, or are too bright to tell."""
        if np.isnan(self.darkest):
            return "unclear"
        if self.offset:
            return "contradicts" if self.well_below > _FEW else "agrees"
        if self.darkest < OFFSET:
            return "agrees"
        return "contradicts" if self.darkest < _DARK else "unclear"

    def __str__(self) -> str:
        flag = "" if self.flag is None else f", boa_offset_applied {str(self.flag).lower()}"
        return (
            f"baseline {self.baseline or 'unknown'}{flag} ({self.items} items): metadata says the offset is "
            f"{'in the pixels' if self.offset else 'not in the pixels'}; {self.below:.1%} of valid pixels "
            f"are below {OFFSET}, {self.well_below:.1%} below {_WELL_BELOW}, the darkest near "
            f"{self.darkest:.0f}: {self.verdict} (looked at {', '.join(self.looked_at)})"
        )


@dataclass(frozen=True)
class OffsetAudit:
    """Findings for each processing baseline and flag."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no pixels contradict their metadata."""
        return all(finding.verdict != "contradicts" for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(f"offset    {finding}" for finding in self.findings)


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
    Each file is read decimated, to about 512 pixels a side, from its overviews where it has some. Offset said
    to be in the pixels: over 1 % of them below 900 (reflectance -0.01) contradicts. Said not to be: pixels as
    dark as reflectance 0 to 0.03 would be with the offset, and none below 1000, contradict; brighter scenes
    say nothing. Why metadata is not enough: Element84/earth-search issues 66 and 71.
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
    places = np.linspace(0, len(ordered) - 1, min(scenes, len(ordered))).round().astype(int)
    picked = replace(items, scenes=tuple(ordered[place] for place in places))
    layers = choose_layers(picked, picked.collection, bands, quality=False)
    table = build_table(list(picked), layers, picked, count=len(layers), on_error="raise")
    harmonise(table, len(layers), picked.collection)
    looks = [
        np.concatenate([_look(table.source(scene, layer)) for scene in range(len(picked))])
        for layer in range(len(layers))
    ]
    values, dark = np.concatenate(looks), [np.percentile(look, _DARKEST) for look in looks if look.size]
    count = max(values.size, 1)
    return Finding(
        baseline="" if key[0] is None else "{:02d}.{:02d}".format(*key[0]),
        flag=key[1],
        items=len(group),
        looked_at=tuple(item.id for item in picked),
        offset=table.forms[table.form_of[0, 0]].offset != 0,
        below=float((values < OFFSET).sum() / count),
        well_below=float((values < _WELL_BELOW).sum() / count),
        darkest=float(min(dark, default=np.nan)),
    )


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
