"""The steps of a map of fractions: each is a few lines over the public functions."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import xarray as xr

import cubekit
from cubekit.batching.abundance import abundance_samples, read_abundance
from cubekit.batching.balance import BalancedSplit, split_balanced
from cubekit.batching.extract import extract
from cubekit.batching.levels import read_level
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.cube.ancillary import add_ancillary
from cubekit.errors import OptionError
from cubekit.evaluation.fractions import (
    FractionScores,
    assess_fractions,
    assess_imputation,
    hide_observed,
)
from cubekit.evaluation.regression import Errors
from cubekit.pipeline import scenes
from cubekit.pipeline.fractions.spec import FractionsPipeline, Published
from cubekit.pipeline.training import train_into
from cubekit.training.bundle import Model
from cubekit.training.checks import check_network
from cubekit.training.scores import other_shares, predict_values

log = logging.getLogger("cubekit")

Parts = tuple[Samples, Samples, Samples]

NAMES = {
    "random_forest": "random forest",
    "linear_unmixing": "linear unmixing",
    "mean_shares": "mean shares",
}
"""Key of a baseline in the file to its name in tables."""


@dataclass(frozen=True)
class Made:
    """Everything a run has made, for the report."""

    spec: FractionsPipeline
    cube: xr.Dataset | None
    parts: Parts
    split: BalancedSplit | None
    model: Model
    predicted: np.ndarray
    scores: Mapping[str, FractionScores]
    imputation: Errors | None
    prediction: xr.Dataset | None
    seconds: Mapping[str, float]


def check_inputs(spec: FractionsPipeline) -> None:
    """Raise for what would only be missed once the cube is built, hours later perhaps."""
    check_network(spec.train.network, spec.train.arguments, task="fractions")
    files = {} if spec.shares is None else {"shares": spec.shares.source}
    files |= {} if spec.train.weights is None else {"train.weights": spec.train.weights}
    if spec.ancillary is not None:
        files |= {} if spec.ancillary.elevation is None else {"ancillary.elevation": spec.ancillary.elevation}
        files |= {f"ancillary.layers.{name}": path for name, path in spec.ancillary.layers.items()}
    if spec.published is not None:
        named = spec.published.model_dump(exclude_none=True, include={"train", "valid", "test", "ancillary"})
        files |= {f"published.{name}": path for name, path in named.items()}
    scenes.check_files(files)


def build_cube(spec: FractionsPipeline, path: Path, *, overwrite: bool) -> xr.Dataset:
    """Build the cube of coarse pixels, gaps left open, and lay beside it what is known of each pixel."""
    cube = scenes.build_cube(cast("scenes.CubeJob", spec), path, overwrite=overwrite)  # source is there
    if spec.ancillary is None:
        return cube
    known = spec.ancillary
    return add_ancillary(cube, elevation=known.elevation, layers=known.layers, place=known.place)


def samples_for(spec: FractionsPipeline, cube: xr.Dataset) -> Samples:
    """Collect the series of all pixels whose shares are known."""
    if spec.shares is None:  # the schema demands them
        raise AssertionError
    options = spec.shares.model_dump(exclude_none=True, exclude={"source"})
    shares = cubekit.load_fractions(spec.shares.source, cube, **options)
    names = () if spec.ancillary is None else spec.ancillary.names
    return extract(cube, shares, ancillary=names)


def split_samples(spec: FractionsPipeline, samples: Samples, path: Path) -> BalancedSplit:
    """Split by squares of land, classes spread alike, and write the split down."""
    found = split_balanced(samples, **spec.split.model_dump())
    found.record.save(path)
    log.info("%s", found)
    return found


def published_parts(source: Published) -> Parts:
    """Read published pixels in the parts that their tables make."""
    train, valid, test = (
        abundance_samples(
            read_abundance(
                source.folder,
                labels=labels,
                ancillary=source.ancillary,
                level=source.level,
                variables=source.variables,
                year=source.year,
            )
        )
        for labels in (source.train, source.valid, source.test)
    )
    return train, valid, test


def train(spec: FractionsPipeline, parts: Parts, folder: Path, *, split: Split | None = None) -> Model:
    """Train, or reuse a model made from the same samples and settings."""
    options = spec.train.model_dump(exclude_none=True, exclude={"network", "scaling", "clip"})
    options |= {"task": "fractions", "clip": spec.train.clip}
    options["batch"] = min(spec.train.batch, len(parts[0]))  # a region may be smaller than the published one
    if spec.train.scaling == "published":
        options |= _published_scaling(parts[0])
    elif spec.train.weights is not None:
        options["normalise"] = "auto"  # that of the model
    return train_into(folder, spec.train.network, parts[:2], options, split=split)[0]


def _published_scaling(samples: Samples) -> dict[str, object]:
    """Return the published constants for these bands and variables."""
    level = read_level("N1")  # the constants of both levels are the same
    if samples.bands != level.bands:
        raise OptionError(f"Constants were published for the bands {level.bands}, found {samples.bands}.")
    found: dict[str, object] = {"normalise": level.reflectance}
    if samples.variables:
        found["normalise_ancillary"] = level.scaling(samples.variables)
    return found


def evaluate(
    spec: FractionsPipeline, model: Model, parts: Parts
) -> tuple[np.ndarray, dict[str, FractionScores], Errors | None]:
    """Score the model, beside the named baselines, on the test samples; then its imputation."""
    training, _, test = parts
    own = predict_values(model, test)
    others = other_shares(
        training, test, seed=spec.train.seed, names=tuple(NAMES[name] for name in spec.baselines)
    )
    scores = {
        name: assess_fractions(test.y, shares, test.classes)
        for name, shares in {spec.train.network: own, **others}.items()
    }
    return own, scores, imputation_of(model, test, share=spec.hidden)


def imputation_of(model: Model, test: Samples, *, share: float) -> Errors | None:
    """Hide some of what was observed, and score what the model puts there; None where it imputes nothing."""
    truth = test.physical()
    hidden, where = hide_observed(truth, share=share)
    inputs = {"x": hidden} | ({} if test.ancillary is None else {"ancillary": test.ancillary})
    found = model.apply(inputs, batch=2048)
    if "imputed" not in found or not where.any(axis=(0, 1)).all():
        return None
    return assess_imputation(truth, found["imputed"], where, test.bands)


def predict_map(spec: FractionsPipeline, model: Model, cube: xr.Dataset, path: Path) -> xr.Dataset:
    """Predict the whole cube and write it; go on with or reuse what lies there."""
    options = spec.predict
    return cubekit.predict(
        model, cube, out=path, outputs=tuple(options.outputs), tile=options.tile, overwrite=True
    )
