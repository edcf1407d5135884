"""Limits that GDAL keeps to while it reads, and the credentials of one file."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio.env import setenv

from cubekit.security import redact_log
from cubekit.sources.access import Access

GDAL_SETTINGS: dict[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    # Decoded tiles of JPEG 2000 and the like: those on the rim of a block are needed again for the next one,
    # and take long to decode. The default, a share of the memory, would fill up.
    "GDAL_CACHEMAX": 256 * 2**20,
}
"""Limits of every read; the environment variables of the same names win."""

_THREAD = threading.local()

for _name in ("_base", "_env", "_err", "_io", "env"):  # what they and GDAL say has signed addresses in it
    logging.getLogger(f"rasterio.{_name}").addFilter(redact_log)


@contextmanager
def many_reads() -> Iterator[None]:
    """Set GDAL's limits once for all reads of this thread, until the block ends.

    Yields
    ------
    None
        Reads in between set what is particular to their file only.
    """
    if getattr(_THREAD, "limited", False):
        yield
        return
    with rasterio.Env(**_settings()):
        _THREAD.limited = True
        try:
            yield
        finally:
            _THREAD.limited = False


@contextmanager
def one_read(grant: Access, *, anew: bool = False) -> Iterator[None]:
    """Set GDAL's limits, and the credentials of one file, until the block ends.

    Parameters
    ----------
    grant : Access
        Of the file.
    anew : bool, optional
        Make GDAL forget what it knows of remote files that are opened.

    Yields
    ------
    None
        At once where :func:`many_reads` has set all there is to set.
    """
    if not grant.settings and not anew and getattr(_THREAD, "limited", False):
        yield
        return
    with rasterio.Env(**_settings(), **({"CPL_VSIL_CURL_NON_CACHED": "/vsi"} if anew else {})):
        setenv(**grant.settings)  # Env itself refuses keys of S3
        yield


def _settings() -> dict[str, str | int]:
    return {key: value for key, value in GDAL_SETTINGS.items() if key not in os.environ}
