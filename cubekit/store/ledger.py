"""The ledger of a store: which objects are written, with their digests; append-only, safe against kills."""

import hashlib
import json
from collections.abc import Mapping

from cubekit.store.objects import SIDE, Digest, Objects

LEDGER = f"{SIDE}/ledger.jsonl"
"""Key of the ledger: one JSON document a line, the first names the plan."""


class Ledger:
    """Digests of the objects that are done.

    Parameters
    ----------
    objects : Objects
        Of the store that the ledger lies in.
    plan : str
        Digest of the plan. Lines of another plan are forgotten.
    """

    def __init__(self, objects: Objects, plan: str) -> None:
        self._objects = objects
        found, self.digests = read_ledger(objects)
        if found != plan:
            self.digests = {}
            objects.write_log(LEDGER, _line({"plan": plan}).encode() + b"\n")
        self._plan = plan

    def add(self, region: str, digests: Mapping[str, Digest]) -> None:
        """Record the objects of a finished region; returns when the line is on disk."""
        self._objects.append(LEDGER, _line({"region": region, "objects": digests}))
        self.digests.update(digests)

    def close(self, digests: Mapping[str, Digest]) -> None:
        """Rewrite the ledger in one order, whatever order the regions came in: equal stores are equal bytes.

        Parameters
        ----------
        digests : mapping
            All objects of the finished store.
        """
        lines = [_line({"plan": self._plan})]
        lines += [_line({"objects": {key: digests[key]}}) for key in sorted(digests)]
        self._objects.write_log(LEDGER, "\n".join(lines).encode() + b"\n")
        self.digests = dict(digests)


def read_ledger(objects: Objects) -> tuple[str | None, dict[str, Digest]]:
    """Read a ledger as far as it can be believed.

    Parameters
    ----------
    objects : Objects
        Of the store.

    Returns
    -------
    tuple
        Plan digest (None without a ledger) and digests by key. Lines that a kill has torn, or that are
        damaged, are left out: their objects count as not written.
    """
    plan, digests = None, dict[str, Digest]()
    for line in (objects.read_log(LEDGER) or b"").splitlines():
        try:
            entry = json.loads(line)
            plan = entry.get("plan", plan)
            digests.update(
                {key: Digest(int(size), str(crc)) for key, (size, crc) in entry.get("objects", {}).items()}
            )
        except (ValueError, TypeError, AttributeError):
            continue
    return plan, digests


def summed(digests: Mapping[str, Digest], name: str) -> str:
    """Return one digest for all objects of an array.

    Parameters
    ----------
    digests : mapping
        Digests by key.
    name : str
        Of the array.

    Returns
    -------
    str
        SHA-256 as hexadecimal text.
    """
    total = hashlib.sha256()
    for key in sorted(key for key in digests if key.startswith(f"{name}/")):
        size, crc = digests[key]
        total.update(f"{key} {size} {crc}\n".encode())
    return total.hexdigest()


def _line(entry: Mapping[str, object]) -> str:
    """Write one entry without line breaks."""
    return json.dumps(entry, separators=(",", ":"), sort_keys=True)
