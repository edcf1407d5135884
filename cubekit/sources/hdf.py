"""Files of the HDF family are read one at a time: their C library is not built for threads.

GDAL guards its netCDF driver with a lock of its own, but releases of 3.12 read band metadata outside it:
two threads that list two files end the process with a segmentation fault.
"""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

DRIVERS: Final = frozenset({"netCDF", "HDF5", "HDF5Image", "HDF4", "HDF4Image"})
"""GDAL drivers that end in the HDF library."""

_LOCK = threading.RLock()  # re-entrant: a file's variables are opened while the file is


@contextmanager
def alone(drivers: Collection[str]) -> Iterator[None]:
    """Hold the lock of the HDF library while a file is open, if any of its drivers needs it.

    Parameters
    ----------
    drivers : collection of str
        GDAL names of the drivers that may open the file.

    Yields
    ------
    None
        Nothing; other formats do not wait.
    """
    if DRIVERS.isdisjoint(drivers):
        yield
        return
    with _LOCK:
        yield
