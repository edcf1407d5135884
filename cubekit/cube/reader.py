"""Read one asset onto a grid: signed when it is read, checked against its metadata, retried, bounded."""

import atexit
import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from cubekit.cube import tile_decode
from cubekit.cube.conform import check_conforms
from cubekit.cube.failures import explain, may_pass, next_step, refused
from cubekit.cube.gdal import one_read
from cubekit.cube.handles import Handles, Lent
from cubekit.cube.http import usable
from cubekit.cube.kernels import valid_in
from cubekit.cube.local_tiff import LocalTiffs
from cubekit.cube.remote import Files, is_remote
from cubekit.cube.resample import (
    Pixels,
    Window,
    positions,
    sample_bilinear,
    sample_nearest,
    warp,
    window_of,
)
from cubekit.cube.tiff import UnusualTiffError
from cubekit.errors import CubekitError, SourceError
from cubekit.security import redact
from cubekit.sources import hdf, hdf4
from cubekit.sources.access import Access
from cubekit.sources.signing import access
from cubekit.typing import Array

_log = logging.getLogger(__name__)

MAX_TRIES = 4
"""Openings of one asset before its reading counts as failed."""

MAX_SECONDS = 180.0
"""No try starts later than this after the first."""

MAX_WAIT = 60.0
"""Longest wait before a try, whatever a server asks for."""

MAX_WINDOW = 64 * 2**20
"""Source pixels read at once; larger blocks are read in parts."""

_DRIVERS = {
    "image/tiff": ("GTiff",),
    "image/vnd.stac.geotiff": ("GTiff",),
    "image/geotiff": ("GTiff",),
    "image/jp2": ("JP2OpenJPEG", "JP2KAK", "JP2Grok"),
    "image/png": ("PNG",),
    "image/jpeg": ("JPEG",),
    "application/netcdf": ("netCDF",),
    "application/x-netcdf": ("netCDF",),
    "application/x-hdf5": ("netCDF", "HDF5", "HDF5Image"),
    "application/x-hdf": ("netCDF", "HDF5", "HDF5Image"),
    "application/x-hdf4": ("HDF4", "HDF4Image"),
}
_SUFFIXES = {
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".jp2": "image/jp2",
    ".j2k": "image/jp2",
    ".nc": "application/netcdf",
    ".nc4": "application/netcdf",
    ".h5": "application/x-hdf5",
    ".hdf5": "application/x-hdf5",
    ".hdf": "application/x-hdf4",
    ".png": "image/png",
}
_ANY = ("GTiff", "JP2OpenJPEG")  # formats that open no other file, and let threads read
DRIVERS = frozenset(_ANY).union(*_DRIVERS.values())
"""GDAL drivers that may ever be asked for; none opens other files."""

MARGINS = {"nearest": 0, "bilinear": 1}
"""Source pixels that our own kernels look at beyond the place of a pixel."""

_RADIUS = 3  # of the widest kernel that GDAL is asked for, in source pixels at scale 1

_HANDLES = Handles()
atexit.register(_HANDLES.clear)

_FILES = Files()
_LOCAL = LocalTiffs()

T = TypeVar("T")
_Values = tuple[Array, float | None]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How an asset is expected to look; many assets share one form."""

    geobox: GeoBox
    """Grid of the file."""

    dtype: str
    """NumPy type of the stored numbers."""

    nodata: float | None = None
    """Stored value without data, from item or catalog; the file's own where that says nothing."""

    nodata_given: bool = False
    """Whether the user has set `nodata` against what the file says."""

    scale: float = 1.0
    """Factor to physical values."""

    offset: float = 0.0
    """Added after the factor."""

    band: int = 1
    """One-based band within the file."""

    variable: str | None = None
    """Variable within a NetCDF or HDF file."""

    drivers: tuple[str, ...] = _ANY
    """GDAL drivers that may open the file."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One asset of one item."""

    href: str
    """Unsigned address or path."""

    form: Form
    """What it should be."""

    item: str
    """Identifier of the item, for messages."""

    asset: str
    """Asset key, for messages."""

    signer: str | None = None
    """Name of the signer to call when reading."""

    @property
    def label(self) -> str:
        """Say which asset of which item."""
        return f"item {self.item!r}, asset {self.asset!r} ({redact(self.href)})"


def drivers_for(href: str, media_type: str | None) -> tuple[str, ...]:
    """Choose the GDAL drivers that may open a file.

    Parameters
    ----------
    href : str
        Address; its suffix decides where the media type is unknown.
    media_type : str or None
        Of the asset.

    Returns
    -------
    tuple of str
        Never drivers that open other files, such as VRT, whatever the file holds.
    """
    kind = (media_type or "").split(";")[0].strip().lower()
    if kind not in _DRIVERS:
        path = href.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0]
        kind = _SUFFIXES.get(os.path.splitext(path)[1].lower(), "")  # noqa: PTH122  (addresses too)
    return _DRIVERS.get(kind, _ANY)


def read_onto(
    source: Source, target: GeoBox, *, resampling: str = "nearest", every_value: bool = False
) -> Pixels:
    """Read one band of one asset onto a block of a grid.

    Parameters
    ----------
    source : Source
        What to read and what to expect.
    target : odc.geo.geobox.GeoBox
        Block, axis-parallel.
    resampling : str
        One of :data:`cubekit.cube.resample.RESAMPLINGS`.
    every_value : bool
        Take nodata for data, as codes of a quality band are.

    Returns
    -------
    Pixels
        Shape of the block. With ``nearest`` in the dtype of the source, else floats; not valid outside the
        source and where it holds nodata. The same for a pixel whatever block it is read in (except for
        kernels that run in GDAL, up to an eighth of a source pixel).

    Raises
    ------
    SourceError
        When the file cannot be opened or read after all tries; names item and asset, shows no signature.
    MetadataMismatchError
        When type, CRS, size, position or nodata of the file differ from what the item says.
    """
    where = positions(source.form.geobox, target)
    margin = MARGINS[resampling] if resampling in MARGINS else kernel_margin(source.form.geobox, target)
    window = window_of(where, source.form.geobox.shape.yx, margin)
    if window is None:
        return Pixels(np.zeros(target.shape, source.form.dtype), np.zeros(target.shape, bool))
    if window.size > MAX_WINDOW and max(target.shape) > 1:
        return _read_in_parts(source, target, resampling, every_value=every_value)
    pixels = read_window(source, window)
    if every_value:
        pixels = Pixels(pixels.values, np.ones_like(pixels.valid))
    if resampling == "nearest":
        return sample_nearest(pixels, window, where)
    if resampling == "bilinear":
        return sample_bilinear(pixels, window, where)
    part = source.form.geobox[window.top : window.bottom, window.left : window.right]
    return warp(pixels, part, target, resampling)


def kernel_margin(source: GeoBox, target: GeoBox) -> int:
    """Return how far kernels of GDAL reach when one target pixel covers many of the source.

    Parameters
    ----------
    source, target : odc.geo.geobox.GeoBox
        Grid of the file, and the block.

    Returns
    -------
    int
        In source pixels.
    """
    middle = target[
        target.shape.y // 2 : target.shape.y // 2 + 1, target.shape.x // 2 : target.shape.x // 2 + 1
    ]
    here, there = positions(source, middle), positions(source, middle.pad(1))
    with np.errstate(invalid="ignore"):
        reach = max(np.nanmax(np.abs(there.rows - here.rows)), np.nanmax(np.abs(there.cols - here.cols)))
    return int(np.ceil(_RADIUS * max(reach, 1.0))) + 1 if np.isfinite(reach) else _RADIUS


def _read_in_parts(source: Source, target: GeoBox, resampling: str, *, every_value: bool) -> Pixels:
    axis = int(np.argmax(target.shape))
    half = target.shape[axis] // 2
    cuts = (slice(None, half), slice(half, None))
    parts = [
        read_onto(
            source,
            target[cut] if axis == 0 else target[:, cut],
            resampling=resampling,
            every_value=every_value,
        )
        for cut in cuts
    ]
    return Pixels(
        np.concatenate([part.values for part in parts], axis=axis),
        np.concatenate([part.valid for part in parts], axis=axis),
    )


def read_window(source: Source, window: Window) -> Pixels:
    """Read a window of one band, after the file has been checked.

    Parameters
    ----------
    source : Source
        What to read and what to expect.
    window : Window
        Rows and columns of the source.

    Returns
    -------
    Pixels
        Stored numbers in the dtype of the source, and which of them are data.

    Raises
    ------
    SourceError, MetadataMismatchError
        As :func:`read_onto`.
    """
    values, nodata = read_values(source, window)
    return Pixels(values, valid_in(values, nodata))


def read_values(source: Source, window: Window, around: Window | None = None) -> _Values:
    """Read a window of one band, after the file has been checked.

    Parameters
    ----------
    source : Source
        What to read and what to expect.
    window : Window
        Rows and columns of the source.
    around : Window, optional
        What neighbouring blocks will soon ask for; a remote file may give it along.

    Returns
    -------
    tuple
        Stored numbers in the dtype of the source, and which of them means "no data", if any does.

    Raises
    ------
    SourceError, MetadataMismatchError
        As :func:`read_onto`.
    """
    if _is_local_tiff(source):
        with suppress(UnusualTiffError, OSError):  # GDAL may know what to make of it, or what is wrong
            return _read_local(source, window)
    if _by_ranges(source):
        with suppress(UnusualTiffError):  # as above
            return _tries(
                source,
                lambda grant: _read_ranges(source, window, around, grant),
                lambda _: _FILES.forget(_key(source)),
            )
    return _with_lent(source, lambda lent: _read_lent(source, window, lent))


def _checked(source: Source) -> float | None:
    """Check a file, and return what it says means "no data"."""
    found = _with_lent(source, lambda lent: _conforming(source, lent).nodatavals)
    return None if found[source.form.band - 1] is None else float(found[source.form.band - 1])


def _read_lent(source: Source, window: Window, lent: Lent) -> _Values:
    return _read_part(source, window, _conforming(source, lent))


def _conforming(source: Source, lent: Lent) -> DatasetReader:
    if lent.checked is not source.form:
        check_conforms(source, lent.file)
        lent.checked = source.form
    return lent.file


def _read_part(source: Source, window: Window, file: DatasetReader) -> _Values:
    part = ((window.top, window.bottom), (window.left, window.right))
    values, nodata = file.read(source.form.band, window=part), source.form.nodata
    return values, file.nodatavals[source.form.band - 1] if nodata is None else nodata


def with_file(source: Source, use: Callable[[DatasetReader], T]) -> T:
    """Open an asset and use it, trying again after failures that may pass.

    Parameters
    ----------
    source : Source
        What to open.
    use : callable
        Gets the open file; may be called again on a fresh one.

    Returns
    -------
    object
        What `use` returns.

    Raises
    ------
    SourceError
        When every try fails.
    """
    return _with_lent(source, lambda lent: use(lent.file))


def _with_lent(source: Source, use: Callable[[Lent], T]) -> T:
    def once(grant: Access) -> T:
        return grant.apart(partial(_use, _gdal_name(source, grant.address), source, grant, use))

    def forget(grant: Access) -> None:
        grant.apart(partial(_forget, _gdal_name(source, grant.address), source, grant))

    return _tries(source, once, forget)


def _use(name: str, source: Source, grant: Access, use: Callable[[Lent], T]) -> T:
    with hdf.alone(source.form.drivers), one_read(grant), _lent(name, source, grant) as lent:
        return use(lent)


def _is_local_tiff(source: Source) -> bool:
    """Tell whether a file may be one that is decoded without GDAL."""
    form = source.form
    local = not is_remote(source.href)
    return local and "GTiff" in form.drivers and form.variable is None and tile_decode.is_on()


def _read_local(source: Source, window: Window) -> _Values:
    grant = _sign(source, fresh=False)
    if grant.settings or is_remote(grant.address):
        raise UnusualTiffError("Only GDAL knows what to do with these credentials.")
    return _LOCAL.read(_path(grant.address), window, source.form, lambda: _checked(source))


def _path(address: str) -> str:
    return address.removeprefix("file://")


def _by_ranges(source: Source) -> bool:
    """Tell whether our own client reads a file, rather than GDAL's."""
    return source.href.startswith(("http://", "https://")) and "GTiff" in source.form.drivers and usable()


def _read_ranges(source: Source, window: Window, around: Window | None, grant: Access) -> _Values:
    if grant.settings:
        raise UnusualTiffError("Only GDAL knows what to do with these credentials.")
    return _FILES.read(
        _key(source),
        grant.address,
        window,
        source.form,
        check=lambda data: check_conforms(source, data),
        around=around,
    )


def _key(source: Source) -> tuple[str, str]:
    return source.href, source.signer or ""


def _tries(source: Source, once: Callable[[Access], T], forget: Callable[[Access], None]) -> T:
    """Do something with the signed address, again after failures that may pass."""
    start = time.monotonic()
    remote = is_remote(source.href)
    failure = ""
    for attempt in range(MAX_TRIES):
        grant, wait = Access(""), 0.0
        try:
            grant = _sign(source, fresh=refused(failure))
            return once(grant)
        except (CubekitError, UnusualTiffError):
            raise
        except (RasterioError, OSError, ValueError) as error:
            name = _gdal_name(source, grant.address)
            failure = grant.scrub(explain(error, name, source.href))
            wait = getattr(error, "wait", 0.0)
        # Outside the handler, so that no traceback carries the signed address along.
        last = attempt + 1 == MAX_TRIES or time.monotonic() - start > MAX_SECONDS
        if last or not remote or not may_pass(failure, attempt):
            break
        forget(grant)
        _log.warning("%s: %s Try %d of %d.", source.label, failure, attempt + 2, MAX_TRIES)
        pause = 0.5 * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311  (jitter, not a secret)
        time.sleep(max(pause, min(wait, MAX_WAIT)))
    raise SourceError(f"Cannot read {source.label}: {failure} {next_step(failure, remote=remote)}")


def _lent(name: str, source: Source, grant: Access) -> AbstractContextManager[Lent]:
    """Lend the open file; what is known of it carries no signature."""
    form = source.form
    key = (source.href, source.signer or "", form.variable or "", *form.drivers)
    path = "" if is_remote(source.href) else _path(source.href)
    keep = hdf.DRIVERS.isdisjoint(form.drivers) and not grant.settings  # they hold for one opening
    return _HANDLES.borrow(key, path, lambda: _open(name, source), keep=keep)


def _open(name: str, source: Source) -> "DatasetReader | hdf4.GridFile":
    if hdf4.DRIVER in source.form.drivers:  # not in the wheels' GDAL
        return hdf4.GridFile(name, source.form.variable)
    # rasterio.open takes one driver only; without any GDAL chooses by content, and opens a VRT named .tif.
    return DatasetReader(name, driver=list(source.form.drivers), sharing=False)


def _sign(source: Source, *, fresh: bool) -> Access:
    if source.href.lower().startswith(("/vsi", "<")):
        raise SourceError(f"{source.label}: virtual files are not read; give a path or an address.")
    return access(source.signer, source.href, fresh=fresh)


def _gdal_name(source: Source, address: str) -> str:
    """Return what to hand to GDAL: signed, and naming the variable."""
    if source.form.variable is None or hdf4.DRIVER in source.form.drivers:
        return address
    kind = "netcdf" if "netCDF" in source.form.drivers else "hdf5"
    return f'{kind}:"{address.removeprefix("file://")}":{source.form.variable}'


def _forget(name: str, source: Source, grant: Access) -> None:
    """Make GDAL drop what it remembers of a file: it answers from its memory of a failure otherwise."""
    with suppress(RasterioError, OSError, ValueError), one_read(grant, anew=True), _open(name, source):
        pass  # GDAL drops it when the file is closed, or has failed to open
