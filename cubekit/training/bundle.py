"""A trained model: use it, save it as a folder without pickle, load it after every check."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from cubekit.batching.samples import Samples
from cubekit.errors import BundleError, CubekitError, ModelMismatchError, OptionError
from cubekit.evaluation.accuracy import Accuracy, assess
from cubekit.nn.registry import create
from cubekit.tasks.classify import SeriesClassifier
from cubekit.tasks.series import SeriesInput
from cubekit.training.card import ModelCard, describe_card
from cubekit.training.match import differences
from cubekit.typing import FloatArray, IntArray, StrPath

WEIGHTS = "weights.safetensors"
RECORD = "model.json"
README = "README.md"

BATCH = 2048
"""Series per forward pass: past this the values leave the processor's cache."""


class Model:
    """A trained network together with all that is needed to use it rightly.

    Parameters
    ----------
    network : torch.nn.Module
        Trained; is put into evaluation mode.
    card : ModelCard
        Facts of the training, and what the model expects.
    """

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        self.network = network.eval()
        self.card = card
        self._classifier = SeriesClassifier(SeriesInput(card.dates(), card.normalisation), network).eval()

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.3g}" for name, value in self.card.metrics.items())
        return (
            f"<Model {self.card.network}: {len(self.card.bands)} bands x {len(self.card.times)} dates -> "
            f"{len(self.card.classes.names)} classes; {scores}>"
        )

    def to(self, device: str | torch.device) -> "Model":
        """Move the model to a device.

        Parameters
        ----------
        device : str or torch.device
            Such as ``"cuda"``.

        Returns
        -------
        Model
            This model.
        """
        self._classifier.to(device)
        return self

    def probabilities(self, x: FloatArray, *, batch: int = BATCH) -> FloatArray:
        """Give class probabilities of pixel series.

        Parameters
        ----------
        x : numpy.ndarray
            Physical values ``(n, time, band)``, bands in the model's order, NaN where there is no data.
        batch : int, optional
            Series per forward pass; changes speed and memory, not the result (up to float32 rounding).

        Returns
        -------
        numpy.ndarray
            ``(n, class)`` float32, rows sum to one; NaN rows where a band was never observed.

        Raises
        ------
        OptionError
            If the shape is not the model's.
        """
        expected = (len(self.card.times), len(self.card.bands))
        if x.ndim != 3 or x.shape[1:] != expected:  # noqa: PLR2004  (n, time, band)
            raise OptionError(
                f"x has shape {x.shape}, expected (n, {expected[0]}, {expected[1]}): time, band."
            )
        device = self._classifier.inputs.days.device
        values = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        out = np.empty((len(x), len(self.card.classes.names)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(x), batch):
                part = values[start : start + batch].to(device)
                out[start : start + batch] = self._classifier.probabilities(part).cpu().numpy()
        return out

    def classify(self, x: FloatArray) -> IntArray:
        """Give the likeliest class of pixel series.

        Parameters
        ----------
        x : numpy.ndarray
            As for :meth:`probabilities`.

        Returns
        -------
        numpy.ndarray
            Class indices ``(n,)`` int64; -1 where a band was never observed.
        """
        likely = self.probabilities(x)
        return np.where(np.isnan(likely[:, 0]), -1, likely.argmax(axis=1)).astype(np.int64)

    def score(self, samples: Samples) -> Accuracy:
        """Compare the model's classes of labelled samples with their labels.

        Parameters
        ----------
        samples : Samples
            That the model was not trained on; same bands, steps and classes.

        Returns
        -------
        Accuracy
            ``print(….table())`` shows it.

        Raises
        ------
        ModelMismatchError
            If bands, number of steps or classes differ.
        """
        for what, own, other in (
            ("bands", self.card.bands, samples.bands),
            ("classes", self.card.classes.names, samples.classes.names),
            ("number of steps", len(self.card.times), len(samples.times)),
        ):
            if own != other:
                raise ModelMismatchError(f"The model's {what} are {own}, those of the samples {other}.")
        return assess(samples.y, self.classify(samples.physical()), samples.classes)

    def check(self, cube: xr.Dataset) -> None:
        """Raise unless a cube fits the model.

        Parameters
        ----------
        cube : xarray.Dataset
            A cube; nothing is computed. Bands may come in any order, and there may be more.

        Raises
        ------
        ModelMismatchError
            Listing every difference: missing bands, steps, dates of the year, coding, pixel size.
        CubeError
            If the dataset is no cube.
        """
        found = differences(self.card, cube)
        if found:
            listed = "\n".join(f"- {line}" for line in found)
            raise ModelMismatchError(
                f"The cube does not fit model {self.card.network!r}:\n{listed}\n"
                "Build the cube as the training cube was built, or train on this one."
            )

    def select(self, cube: xr.Dataset) -> xr.Dataset:
        """Check a cube and put its bands into the model's order.

        Parameters
        ----------
        cube : xarray.Dataset
            A cube that fits; see :meth:`check`.

        Returns
        -------
        xarray.Dataset
            The model's bands only, by name; as lazy as the cube.

        Raises
        ------
        ModelMismatchError
            If the cube does not fit.
        """
        self.check(cube)
        return cube.sel(band=list(self.card.bands))

    def save(self, folder: StrPath) -> Path:
        """Write the model into a folder: weights, ``model.json`` (a STAC item) and a card to read.

        Parameters
        ----------
        folder : path
            Made if absent; a model that it holds is replaced, other files stay.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        BundleError
            If the folder cannot be written, or holds a Zarr store.
        """
        from cubekit.training.stac import to_item

        target = model_folder(folder)
        state = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.network.state_dict().items()
        }
        weights = save(state, metadata=self.card.contract())
        item = to_item(
            self.card, weights=WEIGHTS, sha256=hashlib.sha256(weights).hexdigest(), size=len(weights)
        )
        files = {
            WEIGHTS: weights,
            README: describe_card(self.card).encode(),
            RECORD: (json.dumps(item, indent=2, allow_nan=False) + "\n").encode(),
        }
        for name, content in files.items():  # all written before the first is replaced
            (target / f".{name}.part").write_bytes(content)
        for name in files:
            os.replace(target / f".{name}.part", target / name)  # noqa: PTH105  (the atomic one)
        return target


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


def load_model(folder: StrPath, *, network: nn.Module | None = None) -> Model:
    """Load a saved model.

    Parameters
    ----------
    folder : path
        What :meth:`Model.save` wrote.
    network : torch.nn.Module, optional
        The network to fill with the weights; needed only where it is not in the registry. It is not copied.

    Returns
    -------
    Model
        On the CPU, ready to use.

    Raises
    ------
    BundleError
        If a file is missing or damaged, the weights are not those the record was written for, or the network
        is not known here.
    """
    source = Path(folder)
    item = _read_record(source)
    card = ModelCard.from_dict(item.get("properties", {}).get("cubekit:card"))
    weights = _read_weights(source, item)
    _check_contract(source, weights, card)
    built = _build(card) if network is None else network
    try:
        built.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise BundleError(f"The weights in {source} do not fit network {card.network!r}: {error}") from error
    return Model(built, card)


def _read_record(source: Path) -> dict[str, Any]:
    """Read ``model.json``."""
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


def _read_weights(source: Path, item: dict[str, Any]) -> bytes:
    """Read the weights file, and refuse it if it is not the one the record was written for."""
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


def _check_contract(source: Path, weights: bytes, card: ModelCard) -> None:
    """Refuse a record that was changed by hand: the weights carry what they were trained with."""
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


def _build(card: ModelCard) -> nn.Module:
    """Build the network of a card from the registry."""
    if card.arguments is None:
        raise BundleError(
            f"Network {card.network!r} is not in the registry: pass it as load_model(folder, network=…), or "
            "register its class with cubekit.nn.register before training."
        )
    try:
        return create(card.network, **card.arguments)
    except CubekitError as error:
        raise BundleError(
            f"Network {card.network!r} cannot be built here: {error} Import the module that registers it."
        ) from error
