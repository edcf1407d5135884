"""What a run leaves for people: the map as COG and picture, and the report."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cubekit
from cubekit.batching.leakage import leakage
from cubekit.errors import OptionError
from cubekit.evaluation.accuracy import Accuracy
from cubekit.evaluation.area import AreaEstimate, estimate_areas
from cubekit.exports.cartography import pixel_area
from cubekit.exports.figures import attention_figure, map_figure, save_figure
from cubekit.exports.landcover import ClassMap, class_map_report
from cubekit.exports.maps import class_areas
from cubekit.exports.report import write_report
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.patches import sees_patches
from cubekit.prediction.places import places_of_map
from cubekit.prediction.table import write_csv
from cubekit.training.scores import calibration_of

if TYPE_CHECKING:
    from cubekit.pipeline.classify.steps import Made

log = logging.getLogger("cubekit")

AREAS_NOTE = (
    "The test samples count as drawn at random within each class of the map: where they were picked by hand, "
    "or come in polygons, the intervals are too narrow."
)


def export_all(made: "Made", folder: Path) -> dict[str, Path]:
    """Write map, picture and report of a run.

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
    picture = folder / "map.png"
    save_figure(map_figure(made.prediction, title=made.spec.title), picture)
    table = {"predicted": folder / "predicted.csv"} if made.spec.predict.csv else {}
    for path in table.values():
        write_csv(places_of_map(made.prediction), path)
    sieved = {"sieved": folder / "sieved.zarr"} if made.spec.predict.sieve else {}
    return {
        "cube": folder / "cube.zarr",
        "split": folder / "split.parquet",
        "model": folder / "model",
        "prediction": folder / "prediction.zarr",
        **sieved,
        **_attention(made, folder),
        "map": cubekit.export(made.prediction, folder / "map.tif", overwrite=True),
        "picture": picture,
        **table,
        "report": write_report(folder / "report.html", class_map_report(_class_map(made))),
    }


def _attention(made: "Made", folder: Path) -> dict[str, Path]:
    """Write which dates a network with attention looks at, as a table and a figure; nothing for others."""
    if not hasattr(made.model.network, "attend"):
        return {}
    attention = cubekit.date_attention(made.model, made.parts[2])
    table = attention[["weight", "spread"]].to_dataframe().dropna().reset_index()
    table.to_csv(folder / "attention.csv", index=False, float_format="%.5f")
    picture = save_figure(attention_figure(attention), folder / "attention.png")
    return {"attention": picture}


def _class_map(made: "Made") -> ClassMap:
    """Say what is known of the map."""
    accuracy, *_ = made.scores.values()
    return ClassMap(
        title=made.spec.title,
        prediction=made.prediction,
        accuracy=accuracy,
        baselines=dict(list(made.scores.items())[1:]),
        reference=made.reference,
        areas=_areas(made, accuracy),
        areas_note=AREAS_NOTE,
        calibration=None if sees_patches(made.model) else calibration_of(made.model, made.parts[2]),
        cube=made.cube,
        parts=dict(zip(("training", "validation", "test"), made.parts, strict=True)),
        history=made.model.card.history,
        settings=settings_of(made.spec, made.seconds),
        provenance=_provenance(made),
        warnings=_shared_groups(made),
    )


def _areas(made: "Made", accuracy: Accuracy) -> AreaEstimate | None:
    """Estimate areas from the test samples; None where a class on the map has too few of them."""
    counts = class_areas(made.prediction["class"]).astype(float)
    size = pixel_area(made.prediction)
    try:
        return estimate_areas(accuracy, counts if size is None else 100 * counts * size)
    except OptionError as error:
        log.info("no error-adjusted areas: %s", error)
        return None


def _shared_groups(made: "Made") -> list[str]:
    """Warn of polygons or places with samples in two parts of the split."""
    shared = leakage(*made.parts).groups
    return [
        f"{count} polygons or places have samples in both {one} and {other}."
        for (one, other), count in shared.items()
        if count
    ]


def settings_of(spec: ClassifyPipeline, seconds: Mapping[str, float]) -> dict[str, object]:
    """List every setting of a pipeline, and the time each step took.

    Parameters
    ----------
    spec : ClassifyPipeline
        The job.
    seconds : mapping
        Step to time.

    Returns
    -------
    dict
        Name to value, for the report.
    """
    kept = spec.model_dump(mode="json", exclude_none=True, exclude={"title", "description", "parameters"})
    settings = {
        f"{section} {key}".strip(): value for section, body in kept.items() for key, value in _pairs(body)
    }
    return settings | {f"time for {step}": f"{spent:.1f} s" for step, spent in seconds.items()}


def _pairs(body: Any) -> list[tuple[str, Any]]:
    """Return the settings of a section."""
    return list(body.items()) if isinstance(body, dict) else [("", body)]


def _provenance(made: "Made") -> dict[str, str]:
    """Say what the map was made from."""
    items = list(made.cube.attrs.get("items", []))
    shown = f"{len(items)} items, {items[0]} to {items[-1]}" if items else "not known"
    return {"scenes": shown, **{key: str(value) for key, value in made.prediction.attrs.items()}}
