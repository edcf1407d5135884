"""Folders of scene files, read as items by the pattern of their names and by their headers."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pystac
from rasterio.errors import NotGeoreferencedWarning

from cubekit.catalog import Band, Collection, open_catalog
from cubekit.errors import ArchiveError, CubekitError, OptionError, UnknownNameError, check_option
from cubekit.progress import progress
from cubekit.security import check_href
from cubekit.sources.dates import Dates, DatesLike, read_dates
from cubekit.sources.headers import DRIVERS, MEDIA_TYPES, Grid, Layer, read_layers
from cubekit.sources.items import Items
from cubekit.sources.patterns import FileFields, FilePattern
from cubekit.typing import StrPath

PerBand: TypeAlias = float | Mapping[str, float]
"""One number for all bands, or one for each that is named."""

_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
)
_SHOWN: Final = 10  # files named in an error
_THREADS: Final = 4  # files opened at the same time
_LONG: Final = 100  # files from which on progress is worth a line

_log = logging.getLogger(__name__)


def open_archive(  # noqa: PLR0913  (each says one thing that files may not say themselves)
    root: StrPath,
    pattern: str | Sequence[str],
    *,
    collection: str | None = None,
    bands: Sequence[str] | None = None,
    nodata: PerBand | None = None,
    scale: PerBand | None = None,
    offset: PerBand | None = None,
    dates: DatesLike | None = None,
    every: str | None = None,
    on_unmatched: Literal["raise", "skip"] = "raise",
) -> Items:
    """Index a folder of scene files; one item per date, one asset per band.

    Parameters
    ----------
    root : path
        Folder.
    pattern : str or sequence of str
        How file names (relative to the folder) are built, see `cubekit.sources.patterns.FilePattern`:
        ``"S2_{date:%Y%m%d}_{band}.tif"``, ``"**/{tile}/{date:%Y%j}.tif"``. With several patterns the first
        that fits counts; assets of the same date (and other fields) join one item. NetCDF stacks need no
        ``{date}``: each time step of each variable is an asset named after the variable; fields of HDF4
        grids (MODIS, ``"*.A{date:%Y%j}.{tile}.*.{produced:%Y%j%H%M%S}.hdf"``) are assets likewise.
    collection : str, optional
        Canonical name in the catalog. Bands get its names, and its nodata, scale and offset where files state
        none.
    bands : sequence of str, optional
        Names of the layers of multi-band files, in file order; for NetCDF and HDF4, the variables to take
        (or the catalog's names for them); for stacks of dates, the one band they hold.
    nodata : float or mapping of band to float, optional
        Stored number that means "no data", instead of what files state. One number is meant for all bands but
        the collection's quality band.
    scale, offset : float or mapping of band to float, optional
        ``physical = stored * scale + offset``, instead of what files state.
    dates : path or sequence of str or datetime, optional
        Dates that names do not say. A CSV file with columns ``file``, ``date`` (and ``end``) gives those of
        files; one of dates only, or a sequence, those of the layers of each file, which are dates then
        instead of bands.
    every : str, optional
        Layers of each file are dates this step apart, from the file's date on: ``"16D"``, ``"1MS"``.
    on_unmatched : {"raise", "skip"}, optional
        What to do with raster files that no pattern fits.

    Returns
    -------
    Items
        Sorted by date (00:00 UTC where names state days only). Headers are read, pixels are not.

    Raises
    ------
    ArchiveError
        Listing files that fit no pattern, have impossible dates or none, cannot be read or lie nowhere, bands
        that come twice for one date, and files of `dates` that are not there; nothing is indexed then.
    OptionError
        If a pattern is wrong.

    Notes
    -----
    Of files that differ in ``{produced}`` alone the newest counts; the others are named in the log.
    """
    check_option("on_unmatched", on_unmatched, ("raise", "skip"))
    folder = Path(root).resolve()
    if not folder.is_dir():
        raise ArchiveError(f"No folder at {folder}.")
    patterns = [FilePattern(text) for text in ([pattern] if isinstance(pattern, str) else pattern)]
    record = open_catalog().collection(collection) if collection else None
    calendar = read_dates(dates, every=every)
    index = _Index(folder, record, tuple(bands or ()), nodata, scale, offset, calendar)
    matched = _match(folder, patterns, calendar, index.problems)
    if on_unmatched == "skip":
        index.problems.unmatched.clear()
    layers = _read_headers(matched, index.problems)
    for file, found in layers.items():
        for layer in found:
            index.add(file, matched[file], layer)
    index.problems.raise_if_any(patterns)
    if not index.scenes:
        raise ArchiveError(f"No raster file in {folder} fits {[p.text for p in patterns]}.")
    if index.superseded:
        _log.info("%s: %d older file(s) left out: %s", folder, len(index.superseded), index.superseded)
    scenes = tuple(index.scenes[key] for key in sorted(index.scenes))
    for scene in scenes:
        _place(scene)
    return Items(scenes, record, root=folder)


@dataclass
class _Problems:
    """Everything that is wrong with an archive, so that one error can tell it all."""

    unmatched: list[str] = field(default_factory=list)
    undated: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def raise_if_any(self, patterns: Sequence[FilePattern]) -> None:
        texts = " or ".join(repr(pattern.text) for pattern in patterns)
        sections = (
            (self.unmatched, f"fit no pattern ({texts}); correct it or give on_unmatched='skip'"),
            (self.undated, "carry no usable date"),
            (self.unreadable, "cannot be read"),
            (self.unnamed, "have layers without a name; give bands=[...] in file order"),
            (self.absent, "have a date in dates= but are not there"),
            (self.repeated, "give a band of one date again; add a field such as {tile} to tell scenes apart"),
        )
        lines = [
            f"{len(files)} file(s) {what}: "
            + ", ".join(files[:_SHOWN])
            + (", …" if len(files) > _SHOWN else "")
            for files, what in sections
            if files
        ]
        if lines:
            raise ArchiveError("The archive was not indexed.\n" + "\n".join(lines))


def _match(
    folder: Path, patterns: Sequence[FilePattern], calendar: Dates, problems: _Problems
) -> dict[Path, FileFields]:
    """Read the names of all raster files that lie as deep as a pattern says."""
    matched, listed = {}, set(calendar.files)
    for file in _raster_files(folder, patterns):
        name = file.relative_to(folder).as_posix()
        check_href(name, root=folder)  # no link may lead out of the archive
        try:
            found = next((fields for pattern in patterns if (fields := pattern.match(name))), None)
        except ValueError as error:
            problems.undated.append(f"{name} ({error})")
            continue
        if found is None:
            problems.unmatched.append(name)
            continue
        if calendar.files and name not in calendar.files:
            problems.undated.append(f"{name} (not listed in dates=)")
            continue
        if calendar.files:
            listed.discard(name)
            date, end = calendar.files[name]
            found = replace(found, date=date, end=end)
        if found.date is None and not calendar.layers and file.suffix.lower() != ".nc":
            problems.undated.append(f"{name} (the pattern has no {{date}})")
        else:
            matched[file] = found
    problems.absent += sorted(listed)
    return matched


def _raster_files(folder: Path, patterns: Sequence[FilePattern]) -> Iterator[Path]:
    """List raster files where a pattern looks: below its leading folders, as deep as it says."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        depth = name.count("/")
        looked_at = any(p.depth in (None, depth) and name.startswith(p.base) for p in patterns)
        hidden = name.startswith(".") or "/." in name
        if looked_at and not hidden and file.suffix.lower() in DRIVERS and file.is_file():
            yield file


def _read_headers(files: Mapping[Path, FileFields], problems: _Problems) -> dict[Path, list[Layer]]:
    """Open every file once, several at a time; results keep the order of the files."""
    headers: dict[Path, list[Layer]] = {}
    shown = None if len(files) >= _LONG else False
    bar = progress("index", len(files), unit="files", enabled=shown)
    with bar as advance, warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an error names the file
        for file, future in [(file, pool.submit(read_layers, file)) for file in files]:
            try:
                headers[file] = future.result()
            except CubekitError as error:
                problems.unreadable.append(str(error))
            advance()
    return headers


@dataclass
class _Index:
    """Items in the making."""

    folder: Path
    collection: Collection | None
    bands: tuple[str, ...]
    nodata: PerBand | None
    scale: PerBand | None
    offset: PerBand | None
    calendar: Dates
    scenes: dict[tuple[Any, ...], pystac.Item] = field(default_factory=dict)
    problems: _Problems = field(default_factory=_Problems)
    produced: dict[tuple[str, str], datetime | None] = field(default_factory=dict)
    superseded: list[str] = field(default_factory=list)

    def add(self, file: Path, fields: FileFields, layer: Layer) -> None:
        """Put one layer of one file where it belongs."""
        name = file.relative_to(self.folder).as_posix()
        if self._is_unwanted(layer):
            return
        band = self._band_name(fields, layer)
        if band is None:
            if name not in self.problems.unnamed:
                self.problems.unnamed.append(name)
            return
        time = self._time(name, fields, layer)
        if time is None:
            return
        record = self._record(band)
        key = record.name if record else band
        scene = self._scene(time, fields)
        if key in scene.assets and not self._replaces(scene, key, name, fields):
            return
        self.produced[scene.id, key] = fields.produced
        scene.assets[key] = self._asset(file, name, layer, record, band)
        scene.assets[key].set_owner(scene)

    def _is_unwanted(self, layer: Layer) -> bool:
        """Tell whether bands were named, and this variable is none of them."""
        if not layer.variable or not self.bands or layer.variable in self.bands:
            return False
        record = self._record(layer.variable)
        return record is None or not {record.name, *record.names} & set(self.bands)

    def _time(self, name: str, fields: FileFields, layer: Layer) -> datetime | None:
        """Return when a layer was taken; None, and one line for the file, where that is not known."""
        if layer.time or not self.calendar.of_layers:
            time = layer.time or fields.date
            why = ""
        else:
            try:
                time = self.calendar.layer(layer.index, layer.count, fields.date, year=fields.year_alone)
            except ValueError as error:
                time, why = None, f" ({error})"
        if time is None and not any(said.startswith(name) for said in self.problems.undated):
            self.problems.undated.append(f"{name}{why}")
        return time

    def _replaces(self, scene: pystac.Item, key: str, name: str, fields: FileFields) -> bool:
        """Tell whether a file was made later than the one that gives the same band of the same date."""
        older, other = self.produced.get((scene.id, key)), scene.assets[key].title or ""
        if older is None or fields.produced is None or older == fields.produced:
            when = f"{scene.datetime:%Y-%m-%d}"
            self.problems.repeated.append(f"{name} (band {key} of {when}, also in {other})")
            return False
        newer = fields.produced > older
        loser = other if newer else name
        if loser not in self.superseded:
            self.superseded.append(loser)
        return newer

    def _band_name(self, fields: FileFields, layer: Layer) -> str | None:
        if layer.variable:
            return layer.variable if fields.band is None else fields.band
        if self.calendar.of_layers:  # layers are dates of one band
            return fields.band or (self.bands[0] if len(self.bands) == 1 else None)
        if self.bands and fields.band is None:
            return self.bands[layer.index - 1] if layer.count == len(self.bands) else None
        return (fields.band if layer.count == 1 else None) or layer.description

    def _record(self, band: str) -> Band | None:
        """Return the catalog's band of this name or asset key."""
        if self.collection is None:
            return None
        try:
            return self.collection.band(band)
        except UnknownNameError:
            return next((known for known in self.collection.bands if band in known.assets), None)

    def _scene(self, time: datetime, fields: FileFields) -> pystac.Item:
        key = (time, *sorted(fields.others.items()))
        if key not in self.scenes:
            self.scenes[key] = self._new_scene(time, fields)
        return self.scenes[key]

    def _new_scene(self, time: datetime, fields: FileFields) -> pystac.Item:
        whole_day = time.hour == time.minute == time.second == time.microsecond == 0
        stamp = time.strftime("%Y%m%d" if whole_day else "%Y%m%dT%H%M%S")
        name = self.collection.name if self.collection else self.folder.name
        properties: dict[str, Any] = {f"cubekit:{key}": value for key, value in fields.others.items()}
        if "baseline" in fields.others:  # N0510 or 0510 in a Sentinel-2 name is baseline 05.10
            digits = fields.others["baseline"].lstrip("N")
            properties["s2:processing_baseline"] = f"{digits[:2]}.{digits[2:]}"
        return pystac.Item(
            id="_".join([name, stamp, *(value for _, value in sorted(fields.others.items()))]),
            geometry=None,
            bbox=None,
            datetime=time,
            properties=properties,
            start_datetime=time if fields.end else None,
            end_datetime=fields.end + timedelta(days=1, seconds=-1) if fields.end else None,
            stac_extensions=list(_EXTENSIONS),
            collection=self.collection.name if self.collection else None,
        )

    def _asset(self, file: Path, name: str, layer: Layer, record: Band | None, band: str) -> pystac.Asset:
        extra = {**layer.grid.properties(), "raster:bands": [self._coding(layer, record, band)]}
        if layer.count > 1:
            extra["cubekit:band"] = layer.index
        if layer.variable:
            extra["cubekit:variable"] = layer.variable
        return pystac.Asset(
            str(file), title=name, media_type=MEDIA_TYPES[layer.driver], roles=["data"], extra_fields=extra
        )

    def _coding(self, layer: Layer, record: Band | None, band: str) -> dict[str, Any]:
        """Describe the stored numbers: the caller's word first, then the file's, then the catalog's."""
        coding: dict[str, Any] = {"data_type": layer.dtype}
        given = self._given(self.nodata, band, record)
        if given is not None and not _occurs(given, layer.dtype):
            raise OptionError(f"nodata={given} of band {band} cannot occur: its files hold {layer.dtype}.")
        for value in (given, layer.nodata, record.nodata if record else None):
            if value is not None and _occurs(value, layer.dtype):
                coding["nodata"] = _json_number(value, layer.dtype)
                break
        # How scenes of a harmonised collection are coded depends on their processing version: the cube
        # decides.
        known = record if self.collection and not self.collection.harmonise else None
        scale, offset = self._given(self.scale, band, record), self._given(self.offset, band, record)
        if scale is not None or offset is not None:
            coding |= {"scale": 1.0 if scale is None else scale, "offset": offset or 0.0}
        elif (layer.scale, layer.offset) != (1.0, 0.0):
            coding |= {"scale": layer.scale, "offset": layer.offset}
        elif known and (known.scale, known.offset) != (1.0, 0.0):
            coding |= {"scale": known.scale, "offset": known.offset}
        return coding

    def _given(self, option: PerBand | None, band: str, record: Band | None) -> float | None:
        """Return the caller's value for a band; one number for all is not meant for codes of quality."""
        if isinstance(option, Mapping):
            return option.get(band, option.get(record.name) if record else None)
        quality = self.collection.quality if self.collection else None
        return None if record and quality and record.name == quality.band else option


def _occurs(value: float, dtype: str) -> bool:
    """Tell whether a stored type can hold a number."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _json_number(value: float, dtype: str) -> float | int | str:
    """Write NaN and infinities as the raster extension does: as text."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value if np.dtype(dtype).kind == "f" else int(value)


def _place(scene: pystac.Item) -> None:
    """Give an item the box around its assets."""
    boxes = {Grid.from_properties(asset.extra_fields).bbox() for asset in scene.assets.values()}
    wests, souths, easts, norths = zip(*boxes, strict=True)
    west, south, east, north = min(wests), min(souths), max(easts), max(norths)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    scene.bbox = [west, south, east, north]
    scene.geometry = {"type": "Polygon", "coordinates": [ring]}
