"""The steps of a class map: each is a few lines over the public functions."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cubekit
from cubekit.batching.extract import extract
from cubekit.batching.samples import Samples
from cubekit.batching.series import read_series
from cubekit.evaluation.accuracy import Accuracy, assess
from cubekit.labels import ClassTable, class_table
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.scenes import check_files
from cubekit.pipeline.sections import Labels
from cubekit.pipeline.training import save_with_curves
from cubekit.training.bundle import Model
from cubekit.training.checks import check_network

log = logging.getLogger("cubekit")

Parts = tuple[Samples, Samples, Samples]


@dataclass(frozen=True)
class Made:
    """Everything a run has made, for the report."""

    spec: ClassifyPipeline
    cube: xr.Dataset
    labels: xr.Dataset | None
    parts: Parts
    model: Model
    scores: Mapping[str, Accuracy]
    prediction: xr.Dataset
    reference: Mapping[str, Accuracy]
    seconds: Mapping[str, float]

    def all_scores(self) -> dict[str, Accuracy]:
        """Return the scores on the test samples and against the reference map."""
        return {**self.scores, **self.reference}


def check_inputs(spec: ClassifyPipeline) -> None:
    """Raise for what would only be missed once the cube is built, hours later perhaps."""
    check_network(spec.train.network, spec.train.arguments)
    sections = {"labels": spec.labels, "series": spec.series, "reference": spec.reference}
    check_files({name: section.source for name, section in sections.items() if section is not None})


def labels_for(spec: ClassifyPipeline, cube: xr.Dataset) -> xr.Dataset | None:
    """Put the labels of a pipeline on the grid of its cube."""
    return None if spec.labels is None else _labels(spec.labels, cube)


def _labels(labels: Labels, cube: xr.Dataset) -> xr.Dataset:
    """Load one label section."""
    options = labels.model_dump(exclude_none=True, exclude={"source", "limit_per_class"})
    return cubekit.load_labels(labels.source, cube, **options)


def samples_for(spec: ClassifyPipeline, cube: xr.Dataset, labels: xr.Dataset | None) -> Samples:
    """Collect labelled series, from the cube or from a table."""
    if spec.series is not None:
        options = spec.series.model_dump(exclude_none=True, exclude={"source", "colours"})
        samples = read_series(spec.series.source, **options)
        names, codes = samples.classes.names, samples.classes.codes
        return replace(samples, classes=ClassTable.of(names, colours=spec.series.colours, codes=codes))
    if labels is None or spec.labels is None:  # the schema demands one of the two
        raise AssertionError
    return extract(cube, labels, limit_per_class=spec.labels.limit_per_class, seed=spec.split.seed)


def split_samples(spec: ClassifyPipeline, samples: Samples) -> Parts:
    """Split as the pipeline says."""
    return cubekit.split(samples, **spec.split.model_dump(exclude_none=True))


def train(spec: ClassifyPipeline, parts: Parts, folder: Path) -> Model:
    """Train, or reuse a model made from the same samples and settings."""
    recipe = {"train": spec.train.model_dump(mode="json"), "samples": [part.digest() for part in parts[:2]]}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    note = folder / "recipe.sha256"
    if note.is_file() and note.read_text() == digest:
        log.info("model in %s was made from the same samples and settings", folder)
        return cubekit.load_model(folder)
    options = spec.train.model_dump(exclude_none=True, exclude={"network"})
    model = cubekit.fit(spec.train.network, parts[0], parts[1], out=folder, **options)
    save_with_curves(model, folder)
    note.write_text(digest)
    return model


def evaluate(spec: ClassifyPipeline, model: Model, parts: Parts) -> dict[str, Accuracy]:
    """Score the model and the named baselines on the test samples."""
    from cubekit.evaluation import baselines

    training, _, test = parts
    predictions = {spec.train.network: _classes(model, test)}
    if "random_forest" in spec.baselines:
        forest = baselines.random_forest(training, test, seed=spec.train.seed)
        predictions["random forest"] = forest
    if "majority" in spec.baselines:
        predictions["majority class"] = baselines.majority(training, test)
    return {name: assess(test.y, predicted, test.classes) for name, predicted in predictions.items()}


def _classes(model: Model, samples: Samples) -> np.ndarray[Any, Any]:
    """Return the class index that the model gives each sample."""
    return np.asarray(model.classify(samples.physical()))


def predict_map(spec: ClassifyPipeline, model: Model, cube: xr.Dataset, path: Path) -> xr.Dataset:
    """Predict the whole cube and write it; go on with or reuse what lies there."""
    options = spec.predict
    return cubekit.predict(
        model,
        cube,
        out=path,
        outputs=tuple(options.outputs),
        tile=options.tile,
        passes=options.passes,
        turning=options.turning,
        overwrite=True,
    )


def compare_with_reference(
    spec: ClassifyPipeline, prediction: xr.Dataset, labels: xr.Dataset | None
) -> dict[str, Accuracy]:
    """Score the map against a reference raster, where nothing was labelled."""
    if spec.reference is None:
        return {}
    truth = _labels(spec.reference, prediction)
    predicted = prediction["class"].values
    fillvalue = prediction["class"].attrs["_FillValue"]
    counted = (truth["label"].values >= 0) & (predicted != fillvalue)
    if labels is not None:
        counted &= labels["label"].values < 0
    names = list(truth["label"].attrs["classes"])
    order = np.array([names.index(name) for name in prediction["class"].attrs["classes"]])
    classes = class_table(truth)
    found = order[predicted[counted]]
    return {
        "map against the reference, away from labels": assess(truth["label"].values[counted], found, classes)
    }
