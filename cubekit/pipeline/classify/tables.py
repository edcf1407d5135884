"""A job from tables alone: labelled series train a network, and it predicts a table of others."""

import logging
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

import cubekit
from cubekit.batching.leakage import leakage
from cubekit.errors import GridError
from cubekit.evaluation.accuracy import Accuracy
from cubekit.exports.figures import confusion_figure, curve_figure, map_figure, save_figure, series_figure
from cubekit.exports.landcover import class_score_table, method_table
from cubekit.exports.report import KeyFigure, Picture, Report, Section, Table, write_report
from cubekit.pipeline.classify import steps
from cubekit.pipeline.classify.report import settings_of
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.classify.verdict import verdict
from cubekit.pipeline.result import RunResult, Workplace
from cubekit.prediction.places import map_of_places
from cubekit.prediction.table import predict_table
from cubekit.training.bundle import Model

log = logging.getLogger("cubekit")


def run_tables(spec: ClassifyPipeline, place: Workplace) -> RunResult:
    """Train on a table, and predict another.

    Parameters
    ----------
    spec : ClassifyPipeline
        The job; it has no scenes.
    place : Workplace
        Where it is done.

    Returns
    -------
    RunResult
        With ``model``, ``confusion``, ``report``; where a table is to be predicted ``predicted`` (CSV), and
        if its pixels lie on a grid ``predicted_map`` (COG) and ``predicted_picture``.

    Raises
    ------
    CubekitError
        From any step.
    """
    folder = place.folder
    if spec.series is None:  # the schema demands it where there are no scenes
        raise AssertionError
    series = spec.series
    samples = place.step("samples", lambda: steps.table_samples(series))
    split, parts = steps.split_samples(spec, samples, folder / "split.parquet")
    model = place.step("train", lambda: steps.train(spec, parts, folder / "model", split=split))
    scores = place.step("evaluate", lambda: steps.evaluate(spec, model, parts))
    if spec.also_random_split:
        again = folder / "model_random_split"
        scores |= place.step("random split", lambda: steps.evaluate_random_split(spec, samples, again))
    files = {
        "split": folder / "split.parquet",
        "model": folder / "model",
        "confusion": folder / "confusion.png",
    }
    save_figure(confusion_figure(next(iter(scores.values())), title="Test samples"), files["confusion"])
    if spec.unlabelled is not None:
        files |= place.step("predict table", lambda: write_predicted(spec, model, folder))
    report = _report(spec, model, parts, scores, place.seconds)
    files["report"] = write_report(folder / "report.html", report)
    return place.finish(spec.title, files, scores, verdict=verdict(scores))


def write_predicted(spec: ClassifyPipeline, model: Model, folder: Path) -> dict[str, Path]:
    """Predict the table of a job, and draw the map where its pixels lie on a grid.

    Parameters
    ----------
    spec : ClassifyPipeline
        With ``unlabelled``.
    model : Model
        Trained.
    folder : pathlib.Path
        Of the run.

    Returns
    -------
    dict
        Name of each result to its path.
    """
    if spec.unlabelled is None:
        return {}
    wanted = spec.unlabelled.model_dump()
    frame = predict_table(
        model,
        wanted.pop("source"),
        **wanted,
        out=folder / "predicted.csv",
        probabilities=True,
        overwrite=True,
    )
    files = {"predicted": folder / "predicted.csv"}
    try:
        drawn = map_of_places(frame, model.card.classes)
    except GridError as error:
        log.info("no map of the table: %s", error)
        return files
    return files | _write_map(drawn, folder, spec.title)


def _write_map(drawn: xr.Dataset, folder: Path, title: str) -> dict[str, Path]:
    """Write a map as COG and picture."""
    picture = folder / "predicted.png"
    save_figure(map_figure(drawn, title=title), picture)
    return {
        "predicted_map": cubekit.export(drawn, folder / "predicted.tif", overwrite=True),
        "predicted_picture": picture,
    }


def _report(
    spec: ClassifyPipeline,
    model: Model,
    parts: steps.Parts,
    scores: Mapping[str, Accuracy],
    seconds: Mapping[str, float],
) -> Report:
    """Put together what is known of a model from a table."""
    own = next(iter(scores.values()))
    colours = dict(zip(model.card.classes.names, model.card.classes.colours, strict=True))
    pictures = [
        Picture.of(confusion_figure(score, title=name), "Rows are the truth.")
        for name, score in scores.items()
        if name.startswith(spec.train.network)
    ]
    training = [
        Picture.of(series_figure(parts[0]), "Mean series of each class in the training samples."),
        Picture.of(curve_figure(model.card.history), "Loss and scores by epoch."),
    ]
    return Report(
        title=spec.title,
        summary=f"{own.overall:.1%} of {int(own.support.sum()):,} test series, which the model has not seen, "
        "get the right class.",
        key_figures=[
            KeyFigure(label=f"Overall accuracy, {name}", value=f"{score.overall:.1%}")
            for name, score in scores.items()
        ],
        warnings=[
            f"{count} groups have samples in both {one} and {other}."
            for (one, other), count in leakage(*parts).groups.items()
            if count
        ],
        sections=[
            Section(
                title="Accuracy",
                pictures=pictures,
                tables=[method_table(scores), class_score_table(own, colours)],
            ),
            Section(title="Samples and training", pictures=training),
            Section(title="Data and settings", tables=[Table.of(settings_of(spec, seconds))]),
        ],
        provenance={"model": model.card.network, "software": f"cubekit {cubekit.__version__}"},
    )
