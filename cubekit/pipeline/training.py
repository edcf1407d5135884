"""What every training that a user starts leaves and tells: curves, scores beside baselines, calibration."""

from pathlib import Path

from cubekit.batching.samples import Samples
from cubekit.exports.figures import curve_figure
from cubekit.exports.style import png_bytes
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model
from cubekit.training.scores import calibration_of, score_beside_baselines

CURVES = "curves.png"


def save_with_curves(model: Model, folder: Path) -> None:
    """Save a model again, its card with the learning curves.

    Parameters
    ----------
    model : Model
        Trained.
    folder : pathlib.Path
        Its folder.
    """
    model.save(folder, pictures={CURVES: png_bytes(curve_figure(model.card.history))})


def tell_scores(model: Model, train: Samples | Examples, test: Samples | Examples, *, seed: int = 0) -> str:
    """Say how good a model is beside the baselines, and how honest its probabilities are.

    Parameters
    ----------
    model : Model
        Trained.
    train : Samples or Examples
        What it was trained on.
    test : Samples or Examples
        What it has not seen.
    seed : int, optional
        Of the random forest.

    Returns
    -------
    str
        The model's table, one line a baseline, and the calibration error.
    """
    (name, own), *others = score_beside_baselines(model, train, test, seed=seed).items()
    what = "overall accuracy" if model.card.task == "classify" else "RMSE"
    lines = [own.table(), f"{what} on the test samples: {name} {own.overall:.4g}"]
    lines += [f"  {other} {score.overall:.4g}" for other, score in others]
    if model.card.task == "classify":
        lines.append(f"expected calibration error {calibration_of(model, test).error:.3f}")
    return "\n".join(lines)
