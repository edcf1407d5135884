"""One network in a comparison: trained on the split, mapped over the cube, scored on the test pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import xarray as xr
from torch import nn

from cubekit.batching.samples import Samples
from cubekit.errors import OptionError, did_you_mean
from cubekit.evaluation.accuracy import assess
from cubekit.nn.registry import Task
from cubekit.pipeline.patches import PATCHES, PatchTraining, classes_at, sees_patches
from cubekit.pipeline.training import trained_once
from cubekit.prediction.predict import predict
from cubekit.training.bundle import Model
from cubekit.training.fit import fit
from cubekit.training.scores import Scores, score_model

Contestant = str | nn.Module | Model
"""Name of a network, a network of one's own, or a model that is trained already."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One network and seed."""

    model: Model
    """Trained."""

    scores: Scores
    """On the test samples."""

    train_seconds: float | None
    """None where it came trained."""

    samples_per_second: float | None
    """Rate of prediction in memory; None for patches."""

    drawn: xr.DataArray | None
    """Its class map, where it was to be kept."""

    megapixels_per_second: float | None
    """Rate of mapping the cube."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What all contestants share; see :func:`cubekit.compare`."""

    train: Any
    """Training samples or examples."""

    valid: Any
    """Those that choose the epoch, or None."""

    test: Any
    """Those that are scored."""

    task: Task | None = None
    """Kind of problem, for networks of the user's own."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of ``fit`` that all share."""

    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Network to its own arguments."""

    cube: xr.Dataset | None = None
    """What the samples were extracted from."""

    split: Any = None
    """The split that the samples come from, written beside every model; or None."""

    patches: Mapping[str, Any] = field(default_factory=dict)
    """How networks that see patches are fed, and trained differently."""

    folder: Path | None = None
    """Where models go."""

    def check(self, networks: Sequence[Contestant]) -> None:
        """Raise for what would only be found after the first trainings.

        Parameters
        ----------
        networks : sequence
            Take part.

        Raises
        ------
        OptionError
            For settings that are not the contestants' to choose, and networks that see patches but have no
            cube.
        """
        for name, given in {"settings": self.settings, "patches": self.patches}.items():
            taken = sorted({"seed", "out", "split", "task", "valid", "arguments"} & set(given))
            if taken:
                raise OptionError(
                    f"{name}= holds {taken}, which compare decides itself: pass seeds=, out=, task=, "
                    "arguments=."
                )
        named = [each for each in networks if isinstance(each, str)]
        for name in self.arguments:
            if name not in named:
                raise OptionError(
                    f"arguments= names {name!r}, which does not take part. {did_you_mean(name, named)}"
                )
        seen = [label_of(each, number) for number, each in enumerate(networks) if self._on_patches(each)]
        if self.cube is None and seen:
            raise OptionError(f"{', '.join(seen)} see patches: give the cube of the samples with cube=.")

    def trial(self, network: Contestant, label: str, seed: int, *, drawn: bool) -> Trial:
        """Train a network, draw its map and score it.

        Parameters
        ----------
        network : str, torch.nn.Module or Model
            Trained unless it is already.
        label : str
            Its name in the table, and of its folder.
        seed : int
            Of the training.
        drawn : bool
            Whether the map is kept; networks that see patches are mapped in any case, to be scored.

        Returns
        -------
        Trial
            What came out.
        """
        if isinstance(network, Model):
            model, spent = network, None
        else:
            place = None if self.folder is None else self.folder / f"{label}-{seed}"
            arguments = self.arguments.get(network, {}) if isinstance(network, str) else {}
            train = self._fit_patches if self._on_patches(network) else self._fit
            known = isinstance(network, str)
            model, spent = trained_once(
                place if known else None,
                self._recipe(network, arguments, seed) if known else {},
                lambda: train(network, arguments, seed, place),
            )
        patches = self._on_patches(model)
        found, rate = self._map(model) if self.cube is not None and (drawn or patches) else (None, None)
        if patches and found is not None:
            scores: Scores = assess(self.test.y, classes_at(found, self.test), self.test.classes)
            pace = None
        else:
            start = perf_counter()
            scores = score_model(model, self.test)
            pace = len(self.test) / (perf_counter() - start)
        return Trial(
            model=model, scores=scores, train_seconds=spent, samples_per_second=pace,
            drawn=found if drawn else None, megapixels_per_second=rate,
        )  # fmt: skip

    def _recipe(self, network: Contestant, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Say all that decides what comes out of a training."""
        told = {"network": network, "arguments": arguments, "seed": seed, "settings": self.settings}
        if self._on_patches(network):
            return {**told, **self._patch_training().recipe()}
        parts = [None if part is None else part.digest() for part in (self.train, self.valid)]
        return {**told, "samples": parts}

    @property
    def _ground(self) -> xr.Dataset:
        """The cube, where there must be one."""
        if self.cube is None:
            raise AssertionError  # check() has seen to it
        return self.cube

    def _fit(
        self, network: str | nn.Module, arguments: Mapping[str, Any], seed: int, place: Path | None
    ) -> Model:
        """Train on the samples."""
        return fit(
            network, self.train, self.valid, task=self.task, arguments=arguments, seed=seed, out=place,
            split=self.split, **self.settings,
        )  # fmt: skip

    def _fit_patches(
        self, network: str | nn.Module, arguments: Mapping[str, Any], seed: int, place: Path | None
    ) -> Model:
        """Train on patches that hold the same labels and see no pixel of another part."""
        return self._patch_training().fit(
            network, arguments=arguments, seed=seed, task=self.task, split=self.split, out=place
        )

    def _patch_training(self) -> PatchTraining:
        """Say what networks that see patches learn from."""
        return PatchTraining(
            cube=self._ground, train=self.train, valid=self.valid, test=self.test,
            settings={**self.settings, **PATCHES, **self.patches},
        )  # fmt: skip

    def _map(self, model: Model) -> tuple[xr.DataArray, float]:
        """Map the whole cube, and tell the rate in million pixels a second."""
        start = perf_counter()
        found = predict(model, self._ground, outputs=("class",))["class"].compute()
        return found, found.size / 1e6 / (perf_counter() - start)

    def _on_patches(self, network: Contestant) -> bool:
        """Tell whether a network sees patches of the cube; one of the user's own is taken to see series."""
        if not isinstance(self.train, Samples) or isinstance(network, nn.Module):
            return False
        return sees_patches(network)


def label_of(network: Contestant, number: int) -> str:
    """Name a network in the table.

    Parameters
    ----------
    network : str, torch.nn.Module or Model
        Takes part.
    number : int
        Its place among all.

    Returns
    -------
    str
        Names of networks as they are.
    """
    if isinstance(network, str):
        return network
    if isinstance(network, Model):
        return (
            f"{network.card.network.rpartition('.')[2]} (trained {network.card.created[:10]}, {number + 1})"
        )
    return f"{type(network).__name__}-{number + 1}"
