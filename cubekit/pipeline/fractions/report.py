"""What a run of fractions leaves for people: maps, tables and the report."""

from pathlib import Path
from typing import Any

import numpy as np

import cubekit
from cubekit.exports.figures import (
    confusion_figure,
    curve_figure,
    fraction_maps_figure,
    map_figure,
    save_figure,
    share_reliability_figure,
    split_figure,
)
from cubekit.exports.fraction_tables import write_comparison
from cubekit.exports.report import KeyFigure, Picture, Report, Section, Table, write_report
from cubekit.labels import ClassTable
from cubekit.pipeline.fractions.steps import Made

PARTS = ("training", "validation", "test")


def export_all(made: Made, folder: Path) -> dict[str, Path]:
    """Write tables, maps and the report of a run.

    Parameters
    ----------
    made : Made
        Everything the run has made.
    folder : pathlib.Path
        Where the files go.

    Returns
    -------
    dict
        Name of each result to its path.
    """
    test = made.parts[2]
    files = {
        "model": folder / "model",
        "comparison": write_comparison(
            folder / "test.csv", np.asarray(test.group), test.y, made.predicted, test.classes
        ),
    }
    if made.prediction is not None:
        picture = folder / "fractions.png"
        save_figure(fraction_maps_figure(made.prediction["fractions"], test.classes), picture)
        files |= {
            "cube": folder / "cube.zarr",
            "split": folder / "split.parquet",
            "prediction": folder / "prediction.zarr",
            "map": cubekit.export(
                made.prediction, folder / "fractions.tif", variable="fractions", overwrite=True
            ),
            "picture": picture,
        }
        if "class" in made.prediction:
            files["classes"] = cubekit.export(
                made.prediction, folder / "dominant.tif", variable="class", overwrite=True
            )
    return files | {"report": write_report(folder / "report.html", _report(made))}


def _report(made: Made) -> Report:
    """Put the report together."""
    own, *_ = made.scores.values()
    classes = made.parts[2].classes
    sections = [] if made.prediction is None else [Section(title="Maps", pictures=_maps(made, classes))]
    sections += [
        Section(title="Errors", pictures=_error_pictures(made, classes), tables=_error_tables(made)),
        Section(title="Samples and training", pictures=_training_pictures(made), tables=_sample_tables(made)),
        Section(title="Data and settings", tables=[Table.of(_settings(made))]),
    ]
    others = list(made.scores.items())[1:]
    return Report(
        title=made.spec.title,
        summary=(
            f"Shares of {len(classes)} classes in every pixel. On {len(made.parts[2]):,} test samples, which "
            f"the model has not seen, the mean of the classes' RMSE is {own.overall:.3f}."
        ),
        key_figures=[
            KeyFigure(
                label="Mean RMSE, test samples",
                value=f"{own.overall:.3f}",
                note=", ".join(f"{name} {score.overall:.3f}" for name, score in others),
            ),
            KeyFigure(
                label="Greatest share is the right class",
                value=f"{own.dominant.overall:.1%}",
                note=", ".join(f"{name} {score.dominant.overall:.1%}" for name, score in others),
            ),
            KeyFigure(label="Pearson's r, mean", value=f"{np.nanmean(own.errors.r):.3f}"),
        ],
        warnings=[
            f"The model is not better than {name}: mean RMSE {own.overall:.4f} against {score.overall:.4f}."
            for name, score in others
            if score.overall <= own.overall
        ],
        sections=sections,
        provenance={} if made.prediction is None else {k: str(v) for k, v in made.prediction.attrs.items()},
    )


def _maps(made: Made, classes: ClassTable) -> list[Picture]:
    """Return the shares, and the class of the greatest."""
    if made.prediction is None:
        return []
    shares = fraction_maps_figure(made.prediction["fractions"], classes)
    pictures = [Picture.of(shares, "Share of each class, white to full colour.", wide=True)]
    if "class" in made.prediction:
        dominant = map_figure(made.prediction, title="Class of the greatest share")
        pictures.append(Picture.of(dominant, "Class of the greatest share in every pixel.", wide=True))
    return pictures


def _error_pictures(made: Made, classes: ClassTable) -> list[Picture]:
    own, *_ = made.scores.values()
    return [
        Picture.of(
            share_reliability_figure(own.bins, classes),
            "Predicted against true shares, on the test samples: below the line a class is overestimated.",
            wide=True,
        ),
        Picture.of(confusion_figure(own.dominant, title="Greatest share"), "Rows are the truth."),
    ]


def _error_tables(made: Made) -> list[Table]:
    """Return errors by method, by class, and of the imputation."""
    own, *_ = made.scores.values()
    methods = Table(
        columns=["method", "mean RMSE", "mean MAE", "mean r", "accuracy of the greatest share", "macro F1"],
        rows=[
            [name, *map(_digits, (s.overall, s.errors.mae.mean(), _mean(s.errors.r), s.dominant.overall,
                                  s.dominant.macro_f1))]
            for name, s in made.scores.items()
        ],
        caption="All methods on the same test samples.",
    )  # fmt: skip
    errors = own.errors
    columns = (errors.rmse, errors.mae, errors.bias, errors.r, own.dominant.f1)
    by_class = Table(
        columns=["class", "RMSE", "MAE", "bias", "r", "F1 of the greatest share"],
        rows=[
            [name, *(_digits(float(column[index])) for column in columns)]
            for index, name in enumerate(errors.names)
        ],
        colours=made.parts[2].classes.colours,
        caption="This model, by class.",
    )
    found = made.imputation
    if found is None:
        return [methods, by_class]
    imputed = Table(
        columns=["band", "RMSE", "MAE", "hidden values"],
        rows=[
            [name, f"{found.rmse[i]:.4g}", f"{found.mae[i]:.4g}", f"{int(found.samples[i])}"]
            for i, name in enumerate(found.names)
        ],
        caption=f"Imputation, where {made.spec.hidden:.0%} of what was observed was hidden.",
    )
    return [methods, by_class, imputed]


def _training_pictures(made: Made) -> list[Picture]:
    pictures = []
    if made.prediction is not None and "class" in made.prediction:
        parts = dict(zip(PARTS, made.parts, strict=True))
        pictures.append(
            Picture.of(
                split_figure(parts, background=made.prediction["class"]),
                "Samples by part of the split.",
                wide=True,
            )
        )
    return [*pictures, Picture.of(curve_figure(made.model.card.history), "Loss and scores by epoch.")]


def _sample_tables(made: Made) -> list[Table]:
    """Return mean shares by part."""
    rows = [
        [part, f"{len(samples)}", *(f"{mean:.4f}" for mean in samples.y.mean(axis=0))]
        for part, samples in zip(PARTS, made.parts, strict=True)
    ]
    caption = "Mean share of each class." + (
        ""
        if made.split is None
        else f" {made.split.blocks} squares of {made.split.block:g} m; training and test are "
        f"{made.split.distance:.6g} m apart at least."
    )
    return [Table(columns=["part", "samples", *made.parts[0].classes.names], rows=rows, caption=caption)]


def _settings(made: Made) -> dict[str, object]:
    """List every setting of the pipeline, and the time each step took."""
    kept = made.spec.model_dump(
        mode="json", exclude_none=True, exclude={"title", "description", "parameters"}
    )
    settings = {f"{section} {key}": value for section, body in kept.items() for key, value in _pairs(body)}
    return settings | {f"time for {step}": f"{spent:.1f} s" for step, spent in made.seconds.items()}


def _pairs(body: Any) -> list[tuple[str, Any]]:
    """Return the settings of a section."""
    return list(body.items()) if isinstance(body, dict) else [("", body)]


def _mean(values: Any) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _digits(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
