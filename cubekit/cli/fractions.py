"""Commands for fractions of classes."""

from pathlib import Path
from typing import Annotated, Any

import typer

import cubekit
from cubekit.cli.app import app
from cubekit.errors import BundleError, ModelMismatchError


@app.command()
def unmix(
    model: Annotated[Path, typer.Argument(help="A saved model, or a folder with one for each level.")],
    source: Annotated[Path, typer.Argument(help="A folder of JSON pixels, or a cube made by *build*.")],
    *,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder for tables and maps.")],
    level: Annotated[
        str | None, typer.Option(help="N1 (4 classes) or N2 (10): which the model must be of.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of true fractions of the pixels, to score against.")
    ] = None,
    ancillary: Annotated[
        Path | None, typer.Option(help="CSV of ancillary variables, where the JSON files hold none.")
    ] = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Pixels a side of one task's block.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another prediction of a cube.")] = False,
) -> None:
    """Estimate the share of every class in each pixel.

    Pixels give predictions.csv and, with --labels, evaluation.csv and scores; a cube gives abundance.zarr,
    shares (class, y, x), and fractions.tif.
    """
    loaded = _model_of(model, level)
    if _is_store(source):
        _unmix_cube(loaded, source, output_dir, tile=tile, overwrite=overwrite)
    else:
        _unmix_pixels(loaded, source, output_dir, level=level or "N1", labels=labels, ancillary=ancillary)


def _model_of(folder: Path, level: str | None) -> Any:
    """Load the model, and make sure that its classes are those of the level."""
    from cubekit.batching.levels import read_level

    wanted = None if level is None else read_level(level)
    inside = folder / str(level)
    loaded = cubekit.load_model(inside if wanted is not None and inside.is_dir() else folder)
    if loaded.card.task != "fractions":
        raise BundleError(f"The model in {folder} is to {loaded.card.task}; train one for fractions.")
    if wanted is not None and loaded.card.classes.codes != wanted.classes.codes:
        raise ModelMismatchError(
            f"The model in {folder} knows the classes {loaded.card.classes.names}, level {level} has "
            f"{wanted.classes.names}."
        )
    return loaded


def _is_store(path: Path) -> bool:
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _unmix_cube(model: Any, source: Path, folder: Path, *, tile: int | None, overwrite: bool) -> None:
    """Predict a cube tile by tile."""
    made = cubekit.predict(
        model,
        cubekit.open(source),
        out=folder / "abundance.zarr",
        outputs=("fractions", "class"),
        tile=tile,
        overwrite=overwrite,
    )
    print(cubekit.export(made, folder / "fractions.tif", variable="fractions", overwrite=True))
    print(cubekit.export(made, folder / "dominant.tif", variable="class", overwrite=True))
    print(folder / "abundance.zarr")


def _unmix_pixels(
    model: Any, source: Path, folder: Path, *, level: str, labels: Path | None, ancillary: Path | None
) -> None:
    """Predict a folder of pixels."""
    from cubekit.batching.abundance import as_inputs, read_abundance
    from cubekit.evaluation.fractions import assess_fractions
    from cubekit.exports.fraction_tables import write_comparison, write_fractions

    pixels = read_abundance(source, labels=labels, ancillary=ancillary, level=level)
    classes = model.card.classes
    shares = model.apply(as_inputs(pixels, model.ancillary, model.card.bands), batch=2048)["fractions"]
    ids = pixels["pixel"].to_numpy()
    print(write_fractions(folder / "predictions.csv", ids, shares, classes))
    if labels is not None:
        truth = pixels["abundance"].to_numpy()
        print(write_comparison(folder / "evaluation.csv", ids, truth, shares, classes))
        print(assess_fractions(truth, shares, classes).table())
