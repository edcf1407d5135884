"""The steps of a class map: each is a few lines over the public functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

import cubekit
from cubekit.batching.earth_engine import read_pixel_months
from cubekit.batching.extract import extract
from cubekit.batching.samples import Samples
from cubekit.batching.series import read_series
from cubekit.batching.split_record import Split
from cubekit.catalog import find_bands
from cubekit.errors import PipelineError
from cubekit.evaluation.accuracy import Accuracy, assess
from cubekit.labels import ClassTable, class_table
from cubekit.nn import describe
from cubekit.pipeline.classify.spec import ClassifyPipeline, Series
from cubekit.pipeline.patches import PatchTraining, classes_at, sees_patches
from cubekit.pipeline.scenes import check_files
from cubekit.pipeline.sections import Labels
from cubekit.pipeline.training import save_with_curves, train_into, trained_once
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
    check_network(spec.train.network, spec.train.arguments, form=_form_of(spec))
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


def _form_of(spec: ClassifyPipeline) -> Literal["series", "patches"]:
    """Tell what the network sees; raise where a job has no patches for it."""
    if not sees_patches(spec.train.network):
        return "series"
    if spec.labels is None:
        raise PipelineError(
            f"Key 'train.network': {spec.train.network!r} sees patches, but a table holds single "
            "pixels. Give 'labels' on the grid of scenes, or a network on series such as conv1d."
        )
    if spec.also_random_split or spec.split.by == "random":
        raise PipelineError(
            f"Key 'train.network': {spec.train.network!r} sees patches, and in a random split every patch "
            "holds pixels of another part: split by blocks, and leave 'also_random_split' out."
        )
    return "patches"


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
        samples = table_samples(spec.series)
        _check_bands(samples, cube)
        return samples
    if labels is None or spec.labels is None:  # the schema demands one of the two
        raise AssertionError
    return extract(cube, labels, limit_per_class=spec.labels.limit_per_class, seed=spec.split.seed)


def _check_bands(samples: Samples, cube: xr.Dataset) -> None:
    """Raise before a training whose model could not map the cube."""
    present = [str(name) for name in cube["band"].values]
    found = find_bands(samples.bands, present, collection=str(cube.attrs.get("collection", "")))
    if missing := [name for name in samples.bands if name not in found]:
        raise PipelineError(
            f"Key 'series': the table has bands {missing} that the cube lacks, and could not map it. The "
            f"cube has {', '.join(present)}: name those to learn from in 'series: bands'."
        )


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


def train(
    spec: ClassifyPipeline,
    parts: Parts,
    folder: Path,
    *,
    split: Split | None = None,
    cube: xr.Dataset | None = None,
) -> Model:
    """Train on samples or patches of the cube, or reuse a model made from the same samples and settings."""
    network, options = spec.train.network, spec.train.model_dump(exclude_none=True, exclude={"network"})
    on_patches = _on_patches(spec, parts, cube)
    if on_patches is None:
        return train_into(folder, network, parts[:2], options, split=split)[0]

    def work() -> Model:
        arguments, seed = spec.train.arguments, spec.train.seed
        model = on_patches.fit(network, arguments=arguments, seed=seed, split=split, out=folder)
        save_with_curves(model, folder)
        return model

    recipe = {
        "train": spec.train.model_dump(mode="json"),
        "samples": [part.digest() for part in parts[:2]],
        "split": None if split is None else split.digest(),
        **on_patches.recipe(),
    }
    return trained_once(folder, recipe, work)[0]


def _on_patches(spec: ClassifyPipeline, parts: Parts, cube: xr.Dataset | None) -> PatchTraining | None:
    """Say what a network that sees patches learns from; None for others."""
    if cube is None or not sees_patches(spec.train.network):
        return None
    shared = spec.train.model_dump(exclude_none=True, exclude={"network", "arguments", "seed", "batch"})
    settings = {**shared, **spec.patches.model_dump(exclude_none=True)}
    training, valid, test = parts
    return PatchTraining(cube=cube, train=training, valid=valid, test=test, settings=settings)


def evaluate(
    spec: ClassifyPipeline, model: Model, parts: Parts, *, drawn: xr.DataArray | None = None
) -> dict[str, Accuracy]:
    """Score the model and the named baselines on the test samples.

    Networks on series see the samples; those that see patches are scored where their map `drawn` meets them.
    """
    from cubekit.evaluation import baselines

    training, _, test = parts
    own = classes_at(drawn, test) if drawn is not None and sees_patches(model) else _classes(model, test)
    predictions = {spec.train.network: own}
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
