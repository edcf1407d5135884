"""What a forecast leaves for people: maps as COG, figures, the table of scores and the report."""

from pathlib import Path

import numpy as np
import xarray as xr

import cubekit
from cubekit.batching.years import YearSplit
from cubekit.cube.contract import MAIN
from cubekit.evaluation.forecast import ForecastScore, ForecastScores
from cubekit.exports.figures import curve_figure, save_figure
from cubekit.exports.forecasts import forecast_maps_figure, forecast_scatter_figure
from cubekit.exports.maps import map_figure
from cubekit.exports.report import KeyFigure, Picture, Report, Section, Table, write_report
from cubekit.pipeline.forecast.spec import ForecastPipeline
from cubekit.pipeline.forecast.steps import HISTORY, Tested, save_history
from cubekit.training.bundle import Model
from cubekit.typing import BoolArray

COLUMNS = (
    "year", "zone", "forecaster", "MSE", "MAE", "RMSE", "R²", "mean true", "mean forecast", "std true",
    "std forecast", "slope a", "intercept b", "skill to persistence", "skill to climatology",
)  # fmt: skip


def export_all(
    spec: ForecastPipeline,
    folder: Path,
    *,
    cube: xr.Dataset,
    split: YearSplit,
    model: Model,
    tested: Tested,
    ahead: xr.Dataset,
) -> dict[str, Path]:
    """Write everything that a run leaves beside its stores.

    Parameters
    ----------
    spec : ForecastPipeline
        The job.
    folder : pathlib.Path
        Where the files go.
    cube : xarray.Dataset
        Yearly maps.
    split : YearSplit
        What trained, validated and tested.
    model : Model
        Trained.
    tested : Tested
        Held-out years.
    ahead : xarray.Dataset
        Forecast of the coming years.

    Returns
    -------
    dict
        Name of each result to its path.
    """
    files = {"cube": folder / "cube.zarr", "model": folder / "model", "prediction": folder / "forecast.zarr"}
    coming = [_plain(ahead[MAIN], spec.index, place) for place in range(ahead.sizes["time"])]
    for place, chosen in enumerate(coming):
        year = int(ahead["time"].dt.year[place])
        name = "map" if place == 0 else f"map {year}"
        files[name] = cubekit.export(chosen, folder / f"{spec.index}_{year}.tif", overwrite=True)
    latest = cube[MAIN].isel(time=split.test[-1], band=0)
    found = tested.forecasts[tested.scores.name]
    year = tested.years[-1]
    figures = {
        "maps": forecast_maps_figure(latest, latest.copy(data=found[-1]), title=f"{year}", label=spec.index),
        "scatter": forecast_scatter_figure(
            tested.truth, found, zones=_inner(tested), title=_span(tested), label=spec.index
        ),
        "curves": curve_figure(model.card.history),
        "picture": map_figure(coming[0], title=f"{spec.index} {int(ahead['time'].dt.year[0])}, forecast"),
    }
    for name, figure in figures.items():
        files[name] = save_figure(figure, folder / f"{name}.png")
    files["history"] = save_history(model, folder / f"{spec.index}_{HISTORY}")
    files["metrics"] = folder / "metrics.txt"
    files["metrics"].write_text(tested.scores.table() + "\n", "utf-8")
    report = _report(spec, files, split=split, model=model, tested=tested, ahead=ahead)
    files["report"] = write_report(folder / "report.html", report)
    return files


def verdict(scores: ForecastScores) -> str:
    """Say by how much the network beats the others on the held-out years, or does not.

    Parameters
    ----------
    scores : ForecastScores
        Of the network and the baselines.

    Returns
    -------
    str
        Some lines; names the best forecaster where the network is not it.
    """
    own = scores.of()
    lines = [f"RMSE of {scores.name} on the held-out years: {own.rmse:.4g} (R² {own.r2:.3f})."]
    for name, skill in own.skill.items():
        told = f"skill {skill:+.3f} over" if skill > 0 else f"NOT better than (skill {skill:+.3f})"
        lines.append(f"  {told} {name} ({scores.of(name).rmse:.4g})")
    if scores.best != scores.name:
        lines.append(f"  {scores.best} forecasts these years best: use it unless other years say otherwise.")
    return "\n".join(lines)


def _plain(data: xr.DataArray, index: str, place: int) -> xr.DataArray:
    """Return one map (y, x) that knows what it is."""
    chosen = data.isel(time=place, band=0, drop=True).rename(index)
    chosen.attrs |= {"long_name": f"{index}, forecast"}
    return chosen


def _inner(tested: Tested) -> dict[str, BoolArray]:
    """Return zones from the smallest, so that the one inside another is seen."""
    return dict(sorted(tested.zones.items(), key=lambda pair: int(pair[1].sum())))


def _span(tested: Tested) -> str:
    years = tested.years
    return f"Held-out {years[0]}" if len(years) == 1 else f"Held-out {years[0]}-{years[-1]}"


def _report(
    spec: ForecastPipeline,
    files: dict[str, Path],
    *,
    split: YearSplit,
    model: Model,
    tested: Tested,
    ahead: xr.Dataset,
) -> Report:
    """Say what was done and what came out."""
    scores = tested.scores
    own = scores.of()
    lost = [name for name, skill in own.skill.items() if not skill > 0]
    years = [int(year) for year in ahead["time"].dt.year]
    return Report(
        title=spec.title,
        summary=f"{spec.description} {verdict(scores).splitlines()[0]}".strip(),
        warnings=[f"The network is not better than {name} on the held-out years." for name in lost],
        key_figures=[
            KeyFigure(label="RMSE, held-out years", value=f"{own.rmse:.4g}", note=f"R² {own.r2:.3f}"),
            *(
                KeyFigure(
                    label=f"skill to {name}", value=f"{skill:+.3f}", note=f"RMSE {scores.of(name).rmse:.4g}"
                )
                for name, skill in own.skill.items()
            ),
        ],
        sections=[
            Section(
                title="Held-out years",
                text="No year here was a target of training or validation, nor an input of such a target. "
                "Each was forecast from the true maps before it. Every forecaster is scored on "
                "the same pixels.",
                pictures=[
                    _picture(
                        files["maps"],
                        "True map, forecast and difference of the last held-out year",
                        wide=True,
                    ),
                    _picture(files["scatter"], "Forecast against true values"),
                ],
                tables=[Table(columns=COLUMNS, rows=[_row(row) for row in scores.rows])],
            ),
            Section(
                title=f"Forecast for {', '.join(map(str, years))}",
                text="Later years take the forecasts before them as input.",
                pictures=[_picture(files["picture"], f"Forecast for {years[0]}", wide=True)],
            ),
            Section(
                title="Training",
                text=f"{model.card.parameters:,} parameters; weights of epoch "
                f"{model.card.metrics['epoch']:g} of {len(model.card.history)}. Windows of "
                f"{split.window} years; target years of training "
                f"{len(split.train)}, of validation {len(split.valid)}.",
                pictures=[_picture(files["curves"], "Losses and scores by epoch")],
                tables=[Table.of(_settings(spec), caption="Settings")],
            ),
        ],
        provenance={key: str(value) for key, value in ahead.attrs.items()},
    )


def _picture(path: Path, caption: str, *, wide: bool = False) -> Picture:
    return Picture(png=path.read_bytes(), caption=caption, wide=wide)


def _row(row: ForecastScore) -> tuple[str, ...]:
    """Write a row of scores."""
    numbers = (
        row.mse, row.mae, row.rmse, row.r2, row.mean_true, row.mean_predicted, row.std_true,
        row.std_predicted, row.slope, row.intercept, row.skill["persistence"], row.skill["climatology"],
    )  # fmt: skip
    return (row.year, row.zone, row.forecaster, *("-" if np.isnan(n) else f"{n:.4f}" for n in numbers))


def _settings(spec: ForecastPipeline) -> dict[str, object]:
    """List every setting of the file."""
    kept = spec.model_dump(
        mode="json", exclude_none=True, include={"index", "maps", "within", "sampling", "train", "predict"}
    )
    return {
        f"{section} {key}".strip(): value
        for section, body in kept.items()
        for key, value in (body.items() if isinstance(body, dict) else [("", body)])
    }
