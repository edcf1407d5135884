"""How one file is opened now: its signed address and the settings that go with it. Secrets, never kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from cubekit.security import redact

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
