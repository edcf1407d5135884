"""What a store may ask for, checked before it is opened: codecs, types, sizes, and names that stay inside."""

import json
from collections.abc import Mapping
from math import ceil, prod
from pathlib import PurePosixPath
from typing import Any

from cubekit.errors import SecurityError, StoreError
from cubekit.store.objects import ROOT, Objects

_BYTES = ("adler32", "blosc", "bz2", "crc32", "crc32c", "fletcher32", "gzip", "lz4", "lzma", "zlib", "zstd")
_NUMBERS = ("bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle")

CODECS = frozenset(
    {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd"}
    | {f"numcodecs.{name}" for name in (*_BYTES, *_NUMBERS)}
)
"""Codecs of Zarr v3 that turn bytes into numbers or text and can do nothing else."""

FILTERS = frozenset({*_BYTES, *_NUMBERS, "vlen-utf8"})
"""The same for Zarr v2; pickle, msgpack and JSON of objects are not among them."""

KINDS = frozenset(
    {"bool", "string", "fixed_length_utf32", "null_terminated_bytes", "numpy.datetime64", "numpy.timedelta64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    | {f"float{bits}" for bits in (16, 32, 64)}
)
"""Types of Zarr v3; a v2 type is judged by its letter."""

LARGEST_CHUNK = 4 << 30
"""Bytes that decoding one chunk may take."""

MOST_CHUNKS = 1 << 22
"""Chunks in one shard: its index is read whole."""

_MOST_DIMENSIONS = 8
_V3 = 3


def check_trusted(objects: Objects, where: str, *, every: bool = False) -> None:
    """Refuse a store whose metadata asks for more than data may.

    Parameters
    ----------
    objects : Objects
        Of the store. Only metadata is read, as JSON.
    where : str
        Path, for messages.
    every : bool, optional
        Look at the document of each array also where the root holds them all, which readers prefer.

    Raises
    ------
    SecurityError
        For a codec, type, size or name that is not on the list.
    StoreError
        If the metadata is not JSON, or not as Zarr wants it.
    """
    found = None  # whether the document that readers begin with holds all others
    for top in (ROOT, ".zmetadata"):
        document = _parsed(objects, top, where)
        inside = document if top == ".zmetadata" else document.get("consolidated_metadata") or {}
        found = bool(inside) if document and found is None else found
        for key, content in inside.get("metadata", {}).items():
            check_document(key, content, where)
        check_document(top, document, where)
    for key in objects.keys() if every or not found else ():
        if key.endswith((f"/{ROOT}", ".zarray")):
            check_document(key, _parsed(objects, key, where), where)


def check_document(key: str, document: Mapping[str, Any], where: str) -> None:
    """Refuse the metadata of one array if it asks for more than data may.

    Parameters
    ----------
    key : str
        Of the document.
    document : mapping
        Its content; groups pass.
    where : str
        Path of the store, for messages.

    Raises
    ------
    SecurityError
        For a codec, type, size or name that is not on the list.
    StoreError
        If it is not as Zarr wants it.
    """
    name = f"{where}, {key}"
    if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts or "\\" in key:
        raise SecurityError(f"{name}: a name must not lead out of the store.")
    try:
        if "shape" in document:
            chunk, size = (_check_v3 if document["zarr_format"] == _V3 else _check_v2)(document, name)
            _check_sizes(document["shape"], chunk, size, name)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise StoreError(f"{name}: the metadata is damaged ({error!r}). Run cubekit.verify.") from error


def _parsed(objects: Objects, key: str, where: str) -> dict[str, Any]:
    """Read a metadata document; empty where there is none."""
    try:
        document = json.loads(objects.read(key) or b"{}")
    except ValueError as error:
        raise StoreError(f"{where}, {key}: the metadata is damaged ({error}). Run cubekit.verify.") from error
    if not isinstance(document, dict):
        raise StoreError(f"{where}, {key}: the metadata is damaged: no mapping. Run cubekit.verify.")
    return document


def _check_v3(document: Mapping[str, Any], name: str) -> tuple[list[int], int]:
    """Check types and codecs of a v3 array; return its chunk shape and a guess of bytes for each number."""
    kind = document["data_type"]
    kind = kind.get("name") if isinstance(kind, Mapping) else kind
    if kind not in KINDS:
        raise SecurityError(f"{name}: type {kind!r} is not accepted.")
    chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = list(document["codecs"])
    while codecs:
        codec = codecs.pop()
        label = codec if isinstance(codec, str) else codec.get("name")
        if label not in CODECS:
            raise SecurityError(f"{name}: codec {label!r} is not accepted.")
        configuration = {} if isinstance(codec, str) else codec.get("configuration") or {}
        codecs += [*configuration.get("codecs", []), *configuration.get("index_codecs", [])]
        if label == "sharding_indexed":
            parts = prod(
                ceil(whole / part) for whole, part in zip(chunk, configuration["chunk_shape"], strict=True)
            )
            if parts > MOST_CHUNKS:
                raise SecurityError(f"{name}: {parts} chunks in one shard are not accepted.")
            chunk = configuration["chunk_shape"]
    digits = "".join(letter for letter in str(kind) if letter.isdigit())
    given = document["data_type"]
    length = given.get("configuration", {}).get("length_bytes", 0) if isinstance(given, Mapping) else 0
    return chunk, max(1, int(digits or 64) // 8, int(length))


def _check_v2(document: Mapping[str, Any], name: str) -> tuple[list[int], int]:
    """Check types and codecs of a v2 array; return its chunk shape and the bytes of a number."""
    used = [
        *(document.get("filters") or []),
        *([document["compressor"]] if document.get("compressor") else []),
    ]
    labels = [codec.get("id") for codec in used]
    if refused := [label for label in labels if label not in FILTERS]:
        raise SecurityError(f"{name}: codec {refused[0]!r} is not accepted.")
    kind = document["dtype"]
    letter = kind[1:2] if isinstance(kind, str) else "structured"
    if letter not in set("biufcmMSU") and not (letter == "O" and "vlen-utf8" in labels):
        raise SecurityError(f"{name}: type {kind!r} is not accepted.")
    digits = "".join(character for character in kind[2:].partition("[")[0] if character.isdigit())
    return document["chunks"], max(1, int(digits or 8))


def _check_sizes(shape: list[int], chunk: list[int], size: int, name: str) -> None:
    """Refuse shapes that only an attacker, or a damaged file, would have."""
    if (
        len(shape) > _MOST_DIMENSIONS
        or len(shape) != len(chunk)
        or min([*shape, 0]) < 0
        or min([*chunk, 1]) < 1
    ):
        raise SecurityError(f"{name}: shape {shape} in chunks {chunk} is not accepted.")
    if prod(chunk) * size > LARGEST_CHUNK:
        raise SecurityError(
            f"{name}: one chunk takes {prod(chunk) * size / 1e9:.0f} GB; {chunk} is not accepted."
        )
