"""A trained model: use it, save it as a folder without pickle, load it after every check."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from cubekit.batching.samples import Samples
from cubekit.cube.contract import layers_of
from cubekit.errors import BundleError, CubekitError, ModelMismatchError, OptionError
from cubekit.evaluation.accuracy import Accuracy, assess
from cubekit.nn.registry import create
from cubekit.tasks.examples import Examples
from cubekit.training.card import ModelCard, describe_card
from cubekit.training.data import INPUTS
from cubekit.training.folder import (
    README,
    RECORD,
    WEIGHTS,
    check_contract,
    locate,
    model_folder,
    read_record,
    read_weights,
    write_files,
)
from cubekit.training.match import bands_of, differences
from cubekit.training.setup import predictor_of
from cubekit.typing import FloatArray, IntArray, StrPath

if TYPE_CHECKING:
    from cubekit.training.exchange import Exported

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
        self.predictor = predictor_of(
            network,
            card.task,
            times=card.dates(),
            normalisation=card.normalisation,
            temperature=card.temperature,
            ancillary=card.ancillary,
        ).eval()

    @property
    def ancillary(self) -> tuple[str, ...]:
        """Names of the layers ``(y, x)`` of a cube, or columns, that the model takes beside the series."""
        return () if self.card.ancillary is None else self.card.ancillary.bands

    def __repr__(self) -> str:
        card = self.card
        scores = ", ".join(f"{name} {value:.3g}" for name, value in card.metrics.items())
        goal = f"{len(card.classes)} classes" if len(card.classes) else card.task
        return (
            f"<Model {card.network}: {len(card.bands)} bands x {len(card.times)} dates -> {goal}; {scores}>"
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
        self.predictor.to(device)
        return self

    def apply(self, inputs: Mapping[str, FloatArray], *, batch: int = 16) -> dict[str, FloatArray]:
        """Run the model on inputs of its task.

        Parameters
        ----------
        inputs : mapping
            Physical arrays by name, one entry an example, NaN where there is no data: ``x`` for series,
            patches and past maps; ``coarse_t1``, ``coarse_t2``, ``fine_t1`` for fusion; see
            :class:`cubekit.tasks.examples.Examples`. ``ancillary`` ``(n, a)`` for models that take it.
        batch : int, optional
            Examples per forward pass.

        Returns
        -------
        dict
            float32 by name: ``probabilities``, ``fractions`` (and ``imputed``), or ``predicted``.

        Raises
        ------
        OptionError
            If an input is missing or has not the model's bands and steps.
        """
        self._check_inputs(inputs)
        device = next(self.network.parameters()).device
        parts: list[dict[str, FloatArray]] = []
        with torch.inference_mode():
            for start in range(0, len(next(iter(inputs.values()))), batch):
                given = {
                    name: torch.from_numpy(
                        np.ascontiguousarray(values[start : start + batch], dtype=np.float32)
                    ).to(device)
                    for name, values in inputs.items()
                }
                found = self.predictor.outputs(given)
                parts.append({name: values.float().cpu().numpy() for name, values in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _check_inputs(self, inputs: Mapping[str, FloatArray]) -> None:
        """Raise unless the inputs are those of the task."""
        wanted = (*INPUTS[self.card.task], *(("ancillary",) if self.ancillary else ()))
        missing = [name for name in wanted if name not in inputs]
        if missing:
            raise OptionError(
                f"The model takes {', '.join(wanted)}; {', '.join(missing)} is missing, found {list(inputs)}."
            )
        lead = (
            (len(self.card.bands),)
            if self.card.task == "fuse"
            else (
                len(self.card.times),
                len(self.card.bands),
            )
        )
        if self.ancillary and inputs["ancillary"].shape[1:] != (len(self.ancillary),):
            raise OptionError(
                f"ancillary has shape {inputs['ancillary'].shape}, expected (n, {len(self.ancillary)}): "
                f"{', '.join(self.ancillary)}."
            )
        for name in INPUTS[self.card.task]:
            if inputs[name].shape[1 : 1 + len(lead)] != lead:
                raise OptionError(
                    f"{name} has shape {inputs[name].shape}, expected (n, {', '.join(map(str, lead))}, …)."
                )

    def probabilities(
        self, x: FloatArray, ancillary: FloatArray | None = None, *, batch: int = BATCH
    ) -> FloatArray:
        """Give probabilities of classes, or their shares.

        Parameters
        ----------
        x : numpy.ndarray
            Physical values, series ``(n, time, band)`` or patches ``(n, time, band, y, x)``, bands in the
            model's order, NaN where there is no data.
        ancillary : numpy.ndarray, optional
            Physical values ``(n, a)`` in the order of :attr:`ancillary`, for models that take them.
        batch : int, optional
            Series per forward pass; changes speed and memory, not the result (up to float32 rounding).

        Returns
        -------
        numpy.ndarray
            ``(n, class)`` or ``(n, class, y, x)`` float32, sums of one; NaN where a band was never observed.

        Raises
        ------
        OptionError
            If the shape is not the model's, or it has no classes.
        """
        expected = (len(self.card.times), len(self.card.bands))
        axes = {"series": 3, "patches": 5}.get(self.card.form)
        if not self.card.classes.names:
            raise OptionError(f"A model to {self.card.task} has no classes: use model.apply(inputs).")
        if x.ndim != axes or x.shape[1:3] != expected:
            space = "" if axes == 3 else ", y, x"  # noqa: PLR2004  (n, time, band)
            raise OptionError(
                f"x has shape {x.shape}, expected (n, {expected[0]}, {expected[1]}{space}): time, band."
            )
        if not len(x):
            return np.empty((0, len(self.card.classes), *x.shape[3:]), dtype=np.float32)
        size = batch if axes == 3 else max(1, batch // int(np.prod(x.shape[3:])))  # noqa: PLR2004
        inputs = {"x": x} if ancillary is None else {"x": x, "ancillary": ancillary}
        found = self.apply(inputs, batch=size)
        return found["probabilities" if self.card.task == "classify" else "fractions"]

    def classify(self, x: FloatArray) -> IntArray:
        """Give the likeliest class.

        Parameters
        ----------
        x : numpy.ndarray
            As for :meth:`probabilities`.

        Returns
        -------
        numpy.ndarray
            Class indices ``(n,)`` or ``(n, y, x)`` int64; -1 where a band was never observed.
        """
        likely = self.probabilities(x)
        return np.where(np.isnan(likely[:, 0]), -1, likely.argmax(axis=1)).astype(np.int64)

    def score(self, samples: Samples | Examples) -> Accuracy:
        """Compare the model's classes of labelled samples with their labels.

        Parameters
        ----------
        samples : Samples or Examples
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
        self.check_samples(samples)
        if isinstance(samples, Samples):
            return assess(samples.y, self.classify(samples.physical()), samples.classes)
        return assess(samples.arrays["y"], self.classify(samples.arrays["x"]), samples.classes)

    def check_samples(self, samples: Samples | Examples) -> None:
        """Raise unless labelled samples fit the model.

        Parameters
        ----------
        samples : Samples or Examples
            To be scored or looked at.

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
            The model's bands only, under its names (``B2`` where the cube says ``B02``); as lazy as the cube.

        Raises
        ------
        ModelMismatchError
            If the cube does not fit.
        UnknownNameError
            If it lacks an ancillary layer.
        """
        self.check(cube)
        layers_of(cube, self.ancillary)
        own, wanted = bands_of(self.card, cube), list(self.card.bands)
        return cube.sel(band=[own[name] for name in wanted]).assign_coords(band=wanted)

    def export(self, path: StrPath, *, side: int = 64) -> "Exported":
        """Write the model as ONNX or with torch.export, and check that it answers the same there.

        Parameters
        ----------
        path : path
            Ending in ``.onnx`` or ``.pt2``.
        side : int, optional
            Rows and columns of patches and images.

        Returns
        -------
        Exported
            The file, and the largest difference to this model.
        """
        from cubekit.training.exchange import export_model

        return export_model(self, path, side=side)

    def save(self, folder: StrPath, *, pictures: Mapping[str, bytes] | None = None) -> Path:
        """Write the model into a folder: weights, ``model.json`` (a STAC item) and a card to read.

        Parameters
        ----------
        folder : path
            Made if absent; a model that it holds is replaced, other files stay.
        pictures : mapping, optional
            File name, ending in ``.png``, to the picture; the card shows them.

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
        shown = dict(pictures or {})
        for name in shown:
            if Path(name).name != name or not name.endswith(".png"):
                raise BundleError(f"{name!r} is no file name of a picture; it should look like curves.png.")
        self.card = replace(self.card, pictures=tuple(dict.fromkeys((*self.card.pictures, *shown))))
        item = to_item(
            self.card, weights=WEIGHTS, sha256=hashlib.sha256(weights).hexdigest(), size=len(weights)
        )
        files = shown | {
            WEIGHTS: weights,
            README: describe_card(self.card).encode(),
            RECORD: (json.dumps(item, indent=2, allow_nan=False) + "\n").encode(),
        }
        write_files(target, files)
        return target


def load_model(folder: StrPath, *, network: nn.Module | None = None, sha256: str | None = None) -> Model:
    """Load a saved model.

    Parameters
    ----------
    folder : path or str
        What :meth:`Model.save` wrote: a folder, its https address, or the name of a model that ships.
    network : torch.nn.Module, optional
        The network to fill with the weights; needed only where it is not in the registry. It is not copied.
    sha256 : str, optional
        Digest that the weights must have.

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
    source = locate(folder, sha256)
    item = read_record(source)
    card = ModelCard.from_dict(item.get("properties", {}).get("cubekit:card"))
    weights = read_weights(source, item)
    if sha256 is not None and hashlib.sha256(weights).hexdigest() != sha256.lower():
        raise BundleError(f"The weights in {source} do not have the SHA-256 {sha256}.")
    check_contract(source, weights, card)
    built = _build(card) if network is None else network
    try:
        built.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise BundleError(f"The weights in {source} do not fit network {card.network!r}: {error}") from error
    return Model(built, card)


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
