"""The plan of a store: what decides its bytes, digested, so that only the same work is ever continued."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

import cubekit
from cubekit.store.layout import Layout, gridded
from cubekit.store.mark import to_json
from cubekit.store.objects import ROOT, SIDE

PLAN = f"{SIDE}/plan.json"
"""Key of the plan in a store."""

FORMAT = 1
"""Version of this store format."""

_DIGESTS = (".digest", ".metadata", ".source")  # entries that say nothing to people

_SHOWN = 20


def plan_of(
    cube: xr.Dataset, layout: Layout, skeleton: Mapping[str, bytes], source: str | None
) -> dict[str, Any]:
    """Collect what decides the bytes of a store; never host, time or number of workers.

    Parameters
    ----------
    cube : xarray.Dataset
        What is written.
    layout : Layout
        Its chunks and shards.
    skeleton : mapping
        Metadata and coordinates, encoded.
    source : str or None
        Name of the computation behind the lazy variables; None takes Dask's tokens.

    Returns
    -------
    dict
        For people to read and for `difference`; `digest_of` makes it short.
    """
    lazy = gridded(cube)
    small = sorted({key.split("/")[0] for key in skeleton} - set(lazy) - {ROOT})
    root = json.loads(skeleton[ROOT])
    return {
        "format": FORMAT,
        "cubekit": cubekit.__version__,
        "attributes": {key: _short(to_json(value)) for key, value in root["attributes"].items()},
        "coordinates": {name: _coordinate(cube, name, skeleton) for name in small},
        "variables": {
            array.name: {
                "dims": list(array.dims),
                "shape": list(array.shape),
                "dtype": array.dtype,
                "chunks": list(array.chunks),
                "shards": list(array.objects),
                "metadata": _short(skeleton[f"{array.name}/{ROOT}"]),
                "source": source or _token(lazy[array.name]),
            }
            for array in layout.arrays
        },
    }


def digest_of(plan: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a plan as hexadecimal text."""
    return hashlib.sha256(to_json(plan)).hexdigest()


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List where two plans differ.

    Parameters
    ----------
    before, now : mapping
        Plans.

    Returns
    -------
    list of str
        One text for each entry that differs, such as ``"variables.data.dtype: 'uint16', now 'int16'"``; of
        what is only known by its digest, the name. Attributes come last.
    """
    old, new = dict(_entries(before)), dict(_entries(now))
    changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    return [
        f"{key} differs"
        if key.startswith("attributes.") or key.endswith(_DIGESTS)
        else f"{key}: {old.get(key, 'absent')!r}, now {new.get(key, 'absent')!r}"
        for key in sorted(changed, key=lambda key: (key.startswith("attributes."), key))
    ]


def _entries(plan: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through the entries of nested mappings under dotted names."""
    for key, value in plan.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _coordinate(cube: xr.Dataset, name: str, skeleton: Mapping[str, bytes]) -> dict[str, Any]:
    """Digest a small variable, and say in words what it holds."""
    content = hashlib.sha256()
    for key in sorted(key for key in skeleton if key.startswith(f"{name}/")):
        content.update(skeleton[key])
    entry: dict[str, Any] = {"digest": content.hexdigest()[:16]}
    if name in cube.variables and cube.variables[name].ndim == 1:
        values = np.asarray(cube.variables[name].values)
        texts = [str(value) for value in (values if len(values) <= _SHOWN else values[[0, -1]])]
        entry |= {"size": len(values), "values" if len(values) <= _SHOWN else "range": texts}
    return entry


def _token(variable: xr.DataArray) -> str:
    """Return Dask's name of a computation, or a digest of numbers in memory."""
    lazy = variable.variable if variable.chunks else variable.variable.chunk({})
    return str(lazy.data.name)


def _short(data: bytes) -> str:
    """Return the start of a SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]
