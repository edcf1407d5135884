"""The steps of a class map: each is a few lines over the public functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cubekit
from cubekit.batching.earth_engine import read_pixel_months
from cubekit.batching.extract import extract
from cubekit.batching.samples import Samples
from cubekit.batching.series import read_series
from cubekit.batching.split_record import Split
from cubekit.evaluation.accuracy import Accuracy, assess
from cubekit.labels import ClassTable, class_table
from cubekit.nn import describe
from cubekit.pipeline.classify.spec import ClassifyPipeline, Series
from cubekit.pipeline.scenes import check_files
from cubekit.pipeline.sections import Labels
from cubekit.pipeline.training import train_into
from cubekit.training.bundle import Model
from cubekit.training.checks import check_network

OPTIMISTIC = "random split (optimistic)"
"""Marks scores on samples whose neighbours were trained on."""

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
    if spec.compare is not None:
        for name in spec.compare.networks:
            check_network(name, spec.compare.arguments.get(name, {}), form=describe(name).form)
    sections = {
        "labels": spec.labels,
        "series": spec.series,
        "reference": spec.reference,
        "unlabelled": spec.unlabelled,
    }
    check_files({name: section.source for name, section in sections.items() if section is not None})


def reference_for(spec: ClassifyPipeline, cube: xr.Dataset) -> xr.DataArray | None:
    """Put the reference map on the grid of the cube, or the labels where there is none."""
    section = spec.reference or spec.labels
    return None if section is None else _labels(section, cube)["label"]


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
        return table_samples(spec.series)
    if labels is None or spec.labels is None:  # the schema demands one of the two
        raise AssertionError
    return extract(cube, labels, limit_per_class=spec.labels.limit_per_class, seed=spec.split.seed)


def table_samples(series: Series) -> Samples:
    """Read labelled series from a table."""
    options = series.model_dump(exclude_none=True, exclude={"source", "form", "colours"})
    read = read_pixel_months if series.form == "earth-engine" else read_series
    samples = read(series.source, **options)
    names, codes = samples.classes.names, samples.classes.codes
    return replace(samples, classes=ClassTable.of(names, colours=series.colours, codes=codes))


def split_samples(spec: ClassifyPipeline, samples: Samples, path: Path) -> tuple[Split, Parts]:
    """Split as the pipeline says, and write the split down."""
    found = cubekit.plan_split(samples, **spec.split.model_dump(exclude_none=True))
    found.save(path)
    return found, found.apply(samples)


def train(spec: ClassifyPipeline, parts: Parts, folder: Path, *, split: Split | None = None) -> Model:
    """Train, or reuse a model made from the same samples and settings."""
    options = spec.train.model_dump(exclude_none=True, exclude={"network"})
    return train_into(folder, spec.train.network, parts[:2], options, split=split)[0]


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


def evaluate_random_split(spec: ClassifyPipeline, samples: Samples, folder: Path) -> dict[str, Accuracy]:
    """Train once more on a random split of the same samples, and score everything on it."""
    parts = cubekit.split(samples, by="random", fractions=spec.split.fractions, seed=spec.split.seed)
    found = evaluate(spec, train(spec, parts, folder), parts)
    return {f"{name}, {OPTIMISTIC}": score for name, score in found.items() if name != "majority class"}


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


def without_specks(prediction: xr.Dataset, path: Path, *, least: int) -> xr.Dataset:
    """Merge patches of fewer pixels with their largest neighbour, and write the result."""
    sieved = cubekit.smooth(prediction, method=None, sieve=least)
    return cubekit.write(sieved, path, layout="maps", overwrite=True)


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
