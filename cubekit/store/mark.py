"""The mark of a store: its state in the root document, sealed so that damage shows; written last."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cubekit.errors import StoreError
from cubekit.store.objects import ROOT

MARK = "cubekit"
"""Group attribute with the state of a store: ``building``, or ``complete`` with plan, counts and digests."""

_MENDING = "Run cubekit.verify to see what else is damaged, and write the cube again."


def marked(root: bytes, mark: Mapping[str, Any]) -> bytes:
    """Put a state into the root document, sealed with a digest so that damage to either shows.

    Parameters
    ----------
    root : bytes
        Root document.
    mark : mapping
        State and what goes with it.

    Returns
    -------
    bytes
        The new document.
    """
    document = json.loads(root)
    document["attributes"][MARK] = dict(mark)
    document["attributes"][MARK] |= {"seal": _seal(document)}
    return to_json(document)


def read_mark(root: bytes, where: str) -> dict[str, Any]:
    """Read the state out of a root document.

    Parameters
    ----------
    root : bytes
        Root document.
    where : str
        Path of the store, for messages.

    Returns
    -------
    dict
        Empty where cubekit did not write the store.

    Raises
    ------
    StoreError
        If the document is damaged.
    """
    try:
        document = json.loads(root)
        mark = dict(document["attributes"].get(MARK, {}))
        sound = not mark or mark.pop("seal") == _seal(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where}: {ROOT} is not a Zarr document ({error}). {_MENDING}") from error
    if not sound:
        raise StoreError(
            f"{where}: {ROOT} does not match its own digest: it is damaged or was edited. {_MENDING}"
        )
    return mark


def to_json(document: Any) -> bytes:
    """Write JSON in one way only, so that equal documents are equal bytes."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode()


def _seal(document: Mapping[str, Any]) -> str:
    """Digest a root document, leaving out the seal itself."""
    attributes = dict(document["attributes"])
    mark = {key: value for key, value in attributes.pop(MARK, {}).items() if key != "seal"}
    return hashlib.sha256(to_json({**document, "attributes": attributes | {MARK: mark}})).hexdigest()
