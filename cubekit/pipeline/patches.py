"""Networks that see patches on the split of a job: fed from its cube, scored on their map."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize
from torch import nn

from cubekit.batching.augment import Augmentation
from cubekit.batching.footprints import patches_of, pixels_of
from cubekit.batching.normalise_fit import fit_normalisation
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.batching.torch import batches
from cubekit.cube.contract import MAIN
from cubekit.evaluation.accuracy import MISSING
from cubekit.nn.registry import Task, describe
from cubekit.training.bundle import Model
from cubekit.training.fit import fit
from cubekit.typing import IntArray

PATCHES: Mapping[str, Any] = {"size": 32, "stride": None, "batch": 16, "flips": True}
"""How networks that see patches are fed where nothing is said."""


def sees_patches(network: str | Model) -> bool:
    """Tell whether a network gives every pixel of a patch a class.

    Parameters
    ----------
    network : str or Model
        Name in the registry, or a trained model.

    Returns
    -------
    bool
        False for networks on series, and for other kinds of problems.
    """
    known = network.card if isinstance(network, Model) else describe(network)
    return known.form == "patches" and known.task == "classify"


@dataclass(frozen=True, kw_only=True)
class PatchTraining:
    """What a network that sees patches learns from: labels of one part of a split, on land of no other."""

    cube: xr.Dataset
    """What the samples were extracted from."""

    train: Samples
    """Pixels that the loss counts."""

    valid: Samples | None
    """Pixels that choose the epoch."""

    test: Samples
    """Pixels that no patch may see."""

    settings: Mapping[str, Any]
    """:data:`PATCHES`, and arguments of :func:`cubekit.fit`."""

    def recipe(self) -> dict[str, Any]:
        """Say all that decides what comes out, beside network, arguments and seed.

        Returns
        -------
        dict
            Digests of the samples, settings, and what tells the cube from others.
        """
        data = self.cube[MAIN].data
        parts = [None if part is None else part.digest() for part in (self.train, self.valid, self.test)]
        values = data.name if hasattr(data, "name") else tokenize(data)
        return {"samples": parts, "patches": {**PATCHES, **self.settings}, "cube": values}

    def fit(
        self,
        network: str | nn.Module,
        *,
        arguments: Mapping[str, Any],
        seed: int,
        task: Task | None = None,
        split: Split | None = None,
        out: Path | None = None,
    ) -> Model:
        """Train.

        Parameters
        ----------
        network : str or torch.nn.Module
            Sees patches.
        arguments : mapping
            Of the network.
        seed : int
            Of the training.
        task : str, optional
            Kind of problem, for networks of the user's own.
        split : Split, optional
            Written beside the model.
        out : pathlib.Path, optional
            Folder of the model.

        Returns
        -------
        Model
            Trained.

        Raises
        ------
        LabelError
            If no patch holds a sample without seeing one of another part.
        CubekitError
            From training.
        """
        options = {**PATCHES, **self.settings}
        size, stride, batch, flips = (options.pop(name) for name in PATCHES)
        others = [part for part in (self.valid, self.test) if part is not None]
        plan, labels = patches_of(self.train, others, self.cube, size=size, stride=stride)
        turned = Augmentation(flip=True, rotate=True) if flips else None
        stream = batches(self.cube, plan, batch=batch, shuffle=True, seed=seed, labels=labels, augment=turned)
        valid = None
        if self.valid is not None:
            plan, labels = patches_of(self.valid, [], self.cube, size=size, stride=size)
            valid = batches(self.cube, plan, batch=batch, labels=labels)
        method = options.pop("normalise", "percentile")
        if method in {"auto", "percentile", "standard"}:  # of all training pixels, as for series
            method = fit_normalisation(self.train, method="percentile" if method == "auto" else method)
        if options.get("class_weights") == "balanced":
            options["class_weights"] = _balanced(self.train)
        return fit(
            network, stream, valid, task=task, arguments=arguments, seed=seed, out=out,
            normalise=method, split=split, **options,
        )  # fmt: skip


def classes_at(drawn: xr.DataArray, samples: Samples) -> IntArray:
    """Look samples up on a class map.

    Parameters
    ----------
    drawn : xarray.DataArray
        Class map (y, x), of :func:`cubekit.predict`, on the grid that the samples were extracted from.
    samples : Samples
        With positions.

    Returns
    -------
    numpy.ndarray
        (n,) int64 class index; :data:`cubekit.evaluation.accuracy.MISSING` where the map has none.
    """
    found = drawn.to_numpy()[pixels_of(samples, drawn.to_dataset(name="class"))].astype("int64")
    found[found == drawn.attrs["_FillValue"]] = MISSING
    return np.asarray(found)


def _balanced(samples: Samples) -> list[float]:
    """Weigh classes by inverse frequency, as :func:`cubekit.fit` does where it knows the samples."""
    counts = np.array(list(samples.counts().values()))
    weights: list[float] = (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist()
    return weights
