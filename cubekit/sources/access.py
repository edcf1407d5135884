"""How one file is opened now: its signed address and the settings that go with it. Secrets, never kept."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from cubekit.security import redact

T = TypeVar("T")

_SHORTEST = 6  # settings such as "YES" are no secrets


class Secret(str):
    """Text that shows as ``***`` where objects are printed, as in the debug log of rasterio."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret stays in the process that asked for it.")


@dataclass(frozen=True, eq=False, repr=False)
class Access:
    """What GDAL needs to open a file. Made when it is read, in the process that reads; refuses pickling."""

    address: str
    """Signed address, path, or name in a virtual file system of GDAL such as ``/vsis3/bucket/key``."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Configuration options of GDAL for this file alone, credentials among them."""

    def __repr__(self) -> str:
        return f"Access({redact(self.address)}, {sorted(self.settings)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("An Access holds secrets and stays in the process that asked for it.")

    def apart(self, work: Callable[[], T]) -> T:
        """Do work that sets the options of this access where no other thread sees them.

        Parameters
        ----------
        work : callable
            Sets them, reads, and unsets them.

        Returns
        -------
        object
            What it returns.
        """
        # rasterio sets options for the whole process when it is called from the main thread.
        if not self.settings or threading.current_thread() is not threading.main_thread():
            return work()
        with ThreadPoolExecutor(1, thread_name_prefix="cubekit-read") as pool:
            return pool.submit(work).result()

    def scrub(self, text: str) -> str:
        """Take the secrets of this access out of a text.

        Parameters
        ----------
        text : str
            Such as a message of GDAL.

        Returns
        -------
        str
            The same with ``***`` in their place.
        """
        for value in self.settings.values():
            if isinstance(value, Secret) and len(value) >= _SHORTEST:
                text = text.replace(value.removeprefix("Authorization: Bearer "), "***")
        return text
