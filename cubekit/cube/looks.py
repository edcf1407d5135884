"""Files that look alike are compared with what is expected of them once."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cubekit.cube.tiff import TiledTiff

_MAX_LOOKS: Final = 4096


class Looks:
    """Which looks of files have been compared with which forms; for all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, int], tuple[object, float | None]] = OrderedDict()

    def compare(self, head: TiledTiff, form: object, check: Callable[[], float | None]) -> float | None:
        """Compare a file with its form, unless one that looks alike has been.

        Parameters
        ----------
        head : TiledTiff
            Of the file: type, CRS, size, place and nodata stand in its tags.
        form : object
            What is expected of it.
        check : callable
            Raises where the file is not so, and returns what it says means "no data".

        Returns
        -------
        float or None
            What the file says means "no data" in the band of the form.
        """
        key = head.look, id(form)
        with self._lock:  # while one thread looks, others wait for what it finds
            if key not in self._known:
                self._known[key] = form, check()  # holds the form, whose id no other may get
                if len(self._known) > _MAX_LOOKS:
                    self._known.popitem(last=False)
            return self._known[key][1]
