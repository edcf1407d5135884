"""What every training that a user starts leaves and tells: curves, scores beside baselines, calibration."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import cubekit
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.exports.figures import curve_figure
from cubekit.exports.style import png_bytes
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model, load_model
from cubekit.training.folder import WEIGHTS
from cubekit.training.scores import calibration_of, score_beside_baselines
from cubekit.typing import StrPath

log = logging.getLogger("cubekit")

CURVES = "curves.png"
RECIPE = "recipe.json"


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


def trained_once(
    folder: Path | None, recipe: Mapping[str, Any], work: Callable[[], Model]
) -> tuple[Model, float]:
    """Train, or take the model that was made from the same recipe.

    The note of the recipe goes before a training begins and comes back when it is over: a training that was
    killed while it replaced another's model is never taken for either.

    Parameters
    ----------
    folder : pathlib.Path or None
        Where the training leaves its model; None trains in any case.
    recipe : mapping
        Everything that decides what comes out: network, settings, digests of samples.
    work : callable
        Trains, and saves into the folder, as :func:`train_into` does.

    Returns
    -------
    model : Model
        Trained.
    seconds : float
        What the training took, when it was done.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()
    note = None if folder is None else folder / RECIPE
    if note is not None and note.is_file():
        found = json.loads(note.read_text())
        if found["digest"] == digest:
            log.info("model in %s was made from the same samples and settings", folder)
            return load_model(note.parent), float(found["seconds"])
        note.unlink()
    start = perf_counter()
    model, seconds = work(), round(perf_counter() - start, 3)
    if note is not None:
        note.write_text(json.dumps({"digest": digest, "seconds": seconds}))
    return model, seconds


def train_into(
    folder: Path,
    network: str,
    parts: Sequence[Any],
    options: Mapping[str, Any],
    *,
    split: Split | None = None,
) -> tuple[Model, float]:
    """Train a network for a job, its card with the learning curves, unless that was done before.

    Parameters
    ----------
    folder : pathlib.Path
        Of the model.
    network : str
        Name in the registry.
    parts : sequence
        Samples, examples or streams that train and validate; None where nothing validates.
    options : mapping
        The other arguments of :func:`cubekit.fit`, as a user wrote them.
    split : Split, optional
        What the parts come from.

    Returns
    -------
    model : Model
        Trained.
    seconds : float
        What the training took, when it was done.
    """

    def work() -> Model:
        model = cubekit.fit(network, parts[0], parts[1], out=folder, split=split, **options)
        save_with_curves(model, folder)
        return model

    recipe = {
        "network": network,
        "options": dict(options),
        "samples": [part.digest() for part in parts if part is not None],
        "split": None if split is None else split.digest(),
        "weights": _digest_of_weights(options.get("weights")),
    }
    return trained_once(folder, recipe, work)


def _digest_of_weights(weights: StrPath | None) -> str | None:
    """Return a fingerprint of the weights that a training starts from; another model may come to the path."""
    if weights is None:
        return None
    path = Path(weights)
    file = path / WEIGHTS if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


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
