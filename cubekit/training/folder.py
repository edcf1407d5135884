"""The folder of a model: where it lies, which files it holds, and whether they belong together."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cubekit.errors import BundleError, ModelMismatchError
from cubekit.training.card import ModelCard
from cubekit.typing import StrPath

WEIGHTS = "weights.safetensors"
RECORD = "model.json"
README = "README.md"


def model_folder(folder: StrPath) -> Path:
    """Make the folder for a model; refuse what is meant for something else.

    Parameters
    ----------
    folder : path
        Made if absent.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    BundleError
        If it is a file, holds a Zarr store, or cannot be written.
    """
    target = Path(folder)
    if any((target / name).exists() for name in ("zarr.json", ".zgroup")):
        raise BundleError(f"{target} holds a Zarr store, no model; it is left alone. Choose another folder.")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"Cannot make the folder {target}: {error.strerror}. Choose another.") from error
    if not os.access(target, os.W_OK):
        raise BundleError(f"Cannot write into {target}: permission denied. Choose another folder.")
    return target


def locate(folder: StrPath, sha256: str | None) -> Path:
    """Return the folder of a model, fetched or looked up where that is asked for.

    Parameters
    ----------
    folder : path or str
        A folder, its https address, or the name of a model that ships.
    sha256 : str or None
        Digest that fetched weights must have.

    Returns
    -------
    pathlib.Path
        The folder; whether a model lies in it is not looked at.

    Raises
    ------
    BundleError
        If the name is that of settings for a training, without weights.
    """
    from cubekit import specs
    from cubekit.training.download import download_model, is_url

    if is_url(str(folder)):
        return download_model(str(folder), sha256=sha256)
    path = Path(folder)
    name = str(folder).removeprefix("models/")
    if (path / RECORD).is_file() or len(Path(name).parts) != 1:
        return path
    shipped = specs.folder("models") / name
    if shipped.is_dir() and not (shipped / RECORD).is_file():
        raise BundleError(
            f"models/{name} holds settings for a training, no weights: train with cubekit.fit, or "
            f"in a pipeline with train: {{model: {name}}}."
        )
    return shipped if shipped.is_dir() else path


def read_record(source: Path) -> dict[str, Any]:
    """Read ``model.json``.

    Parameters
    ----------
    source : pathlib.Path
        The folder.

    Returns
    -------
    dict
        A STAC item.

    Raises
    ------
    BundleError
        If there is none, or it is something else.
    """
    path = source / RECORD
    if not path.is_file():
        raise BundleError(
            f"{source} holds no model: there is no {RECORD}. Write one with model.save(folder)."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}). Save the model anew.") from error
    if not isinstance(record, dict) or not isinstance(record.get("properties"), dict):
        raise BundleError(f"{path} is no STAC item of a model. Save the model anew.")
    return record


def read_weights(source: Path, item: dict[str, Any]) -> bytes:
    """Read the weights file, and refuse it if it is not the one the record was written for.

    Parameters
    ----------
    source : pathlib.Path
        The folder.
    item : dict
        From `read_record`.

    Returns
    -------
    bytes
        In the safetensors format.

    Raises
    ------
    BundleError
        If it is missing or another one.
    """
    path = source / WEIGHTS
    expected = item.get("assets", {}).get("weights", {}).get("file:checksum", "")
    if not path.is_file():
        raise BundleError(f"{source} holds no {WEIGHTS}; copy it from where the model was saved.")
    content = path.read_bytes()
    found = "1220" + hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BundleError(
            f"{path} is not the file that {RECORD} was written for: its SHA-256 is {found[4:]}, expected "
            f"{str(expected)[4:] or 'one'}. Copy the folder anew."
        )
    return content


def check_contract(source: Path, weights: bytes, card: ModelCard) -> None:
    """Refuse a record that was changed by hand: the weights carry what they were trained with.

    Parameters
    ----------
    source : pathlib.Path
        The folder, for the message.
    weights : bytes
        From `read_weights`.
    card : ModelCard
        From the record.

    Raises
    ------
    ModelMismatchError
        Listing every difference.
    """
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])  # the format's first bytes
    trained = header.get("__metadata__", {})
    changed = [
        f"- {name}: the weights were trained with {trained.get(name)}, {RECORD} says {value}"
        for name, value in card.contract().items()
        if trained.get(name) != value
    ]
    if changed:
        raise ModelMismatchError(
            f"{source / RECORD} does not describe its weights:\n" + "\n".join(changed) + "\nRestore the file."
        )


def write_files(target: Path, files: Mapping[str, bytes]) -> None:
    """Write all files of a model before the first is replaced.

    Parameters
    ----------
    target : pathlib.Path
        The folder, which exists.
    files : mapping
        Name to content.
    """
    for name, content in files.items():
        (target / f".{name}.part").write_bytes(content)
    for name in files:
        os.replace(target / f".{name}.part", target / name)  # noqa: PTH105  (the atomic one)
