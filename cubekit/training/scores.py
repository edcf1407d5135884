"""A model's scores on samples it has not seen, always beside named baselines on the same samples."""

from collections.abc import Callable, Sequence

import numpy as np

from cubekit.batching.samples import Samples
from cubekit.errors import OptionError
from cubekit.evaluation import baselines, fraction_baselines, map_baselines
from cubekit.evaluation.accuracy import Accuracy, assess
from cubekit.evaluation.calibration import Calibration, reliability
from cubekit.evaluation.regression import Errors, assess_values
from cubekit.tasks.examples import Examples
from cubekit.tasks.fuse import IMAGES
from cubekit.training.bundle import BATCH, Model

Scores = Accuracy | Errors
"""Of classes, or of numbers."""

MIN_RATIO = 4

SHARE_BASELINES = ("random forest", "linear unmixing", "mean shares")
"""What estimates of shares stand beside."""


def score_beside_baselines(
    model: Model, train: Samples | Examples, test: Samples | Examples, *, seed: int = 0, others: bool = True
) -> dict[str, Scores]:
    """Score a model and the baselines of its task on the same samples.

    ========= ======================================================
    task      baselines
    ========= ======================================================
    classify  random forest (series), majority class
    fractions random forest, linear unmixing, mean shares
    forecast  persistence, climatology, linear trend
    fuse      nearest date, bicubic coarse
    ========= ======================================================

    Parameters
    ----------
    model : Model
        Trained.
    train : Samples or Examples
        What it was trained on: some baselines learn from it.
    test : Samples or Examples
        What neither has seen.
    seed : int, optional
        Of the random forest.
    others : bool, optional
        Whether to score the baselines too.

    Returns
    -------
    dict
        Name to :class:`~cubekit.evaluation.accuracy.Accuracy`, or to
        :class:`~cubekit.evaluation.regression.Errors`; the model stands first.
    """
    own: dict[str, Scores] = {model.card.network: score_model(model, test)}
    return own | (score_baselines(model, train, test, seed=seed) if others else {})


def score_model(model: Model, test: Samples | Examples) -> Scores:
    """Score a model on samples it has not seen.

    Parameters
    ----------
    model : Model
        Trained.
    test : Samples or Examples
        Of its task.

    Returns
    -------
    Accuracy or Errors
        Of classes, or of numbers.
    """
    if model.card.task == "classify":
        return model.score(test)
    names, axis, truth = _variables(model, test)
    return assess_values(truth, predict_values(model, test), names, axis=axis)


def score_baselines(
    model: Model, train: Samples | Examples, test: Samples | Examples, *, seed: int = 0
) -> dict[str, Scores]:
    """Score the baselines of a model's task on samples; see :func:`score_beside_baselines`.

    Parameters
    ----------
    model : Model
        Tells the task, and the names of its variables.
    train : Samples or Examples
        What baselines learn from.
    test : Samples or Examples
        What they have not seen.
    seed : int, optional
        Of the random forest.

    Returns
    -------
    dict
        Name to Accuracy or Errors.
    """
    if model.card.task == "classify":
        return _other_classes(train, test, seed=seed)
    names, axis, truth = _variables(model, test)
    found = _other_values(model, train, test, seed=seed)
    return {name: assess_values(truth, values, names, axis=axis) for name, values in found.items()}


def predict_values(model: Model, test: Samples | Examples) -> np.ndarray:
    """Return what a model of numbers predicts for samples.

    Parameters
    ----------
    model : Model
        For fractions, forecast or fuse.
    test : Samples or Examples
        Of its task.

    Returns
    -------
    numpy.ndarray
        Shape of ``y``.
    """
    inputs = {"x": test.physical()} if isinstance(test, Samples) else dict(test.arrays)
    if isinstance(test, Samples) and test.ancillary is not None:
        inputs["ancillary"] = test.ancillary
    inputs.pop("y", None)
    size = BATCH if model.card.form == "series" else 16
    return model.apply(inputs, batch=size)["fractions" if model.card.task == "fractions" else "predicted"]


def calibration_of(model: Model, test: Samples | Examples) -> Calibration:
    """Tell how honest the probabilities of a classifier are on samples it has not seen.

    Parameters
    ----------
    model : Model
        A classifier.
    test : Samples or Examples
        Labelled.

    Returns
    -------
    Calibration
        Reliability by bins, and the expected calibration error.

    Raises
    ------
    OptionError
        If the model is no classifier.
    """
    if model.card.task != "classify":
        raise OptionError(f"A model to {model.card.task} gives no probabilities of classes.")
    x, y = (test.physical(), test.y) if isinstance(test, Samples) else (test.arrays["x"], test.arrays["y"])
    likely = np.moveaxis(model.probabilities(x), 1, -1)
    return reliability(y.ravel(), likely.reshape(-1, likely.shape[-1]))


def _other_classes(train: Samples | Examples, test: Samples | Examples, *, seed: int) -> dict[str, Scores]:
    """Score the baselines of classes."""
    found: dict[str, Scores] = {}
    if isinstance(train, Samples) and isinstance(test, Samples):
        forest = baselines.random_forest(train, test, seed=seed)
        found["random forest"] = assess(test.y, forest, test.classes)
        found["majority class"] = assess(test.y, baselines.majority(train, test), test.classes)
    elif isinstance(train, Examples) and isinstance(test, Examples):
        labels, truth = train.arrays["y"], test.arrays["y"]
        commonest = int(np.bincount(labels[labels >= 0].ravel()).argmax())
        found["majority class"] = assess(truth, np.full_like(truth, commonest), test.classes)
    return found


def other_shares(
    train: Samples | Examples,
    test: Samples | Examples,
    *,
    seed: int = 0,
    names: Sequence[str] = SHARE_BASELINES,
) -> dict[str, np.ndarray]:
    """Predict shares with the baselines.

    Parameters
    ----------
    train : Samples or Examples
        What they learn from.
    test : Samples or Examples
        What they predict.
    seed : int, optional
        Of the random forest.
    names : sequence of str, optional
        Which of them.

    Returns
    -------
    dict
        Name to shares ``(n, k)``.
    """
    known, asked = _table(train), _table(test)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "random forest": lambda: fraction_baselines.forest_shares(known, asked, seed=seed),
        "linear unmixing": lambda: fraction_baselines.unmix_linearly(known, asked),
        "mean shares": lambda: map_baselines.mean_shares(known.y, len(test)),
    }
    return {name: ways[name]() for name in names}


def _table(part: Samples | Examples) -> fraction_baselines.Table:
    """Return what the baselines of shares take."""
    if isinstance(part, Samples):
        return fraction_baselines.Table(part.physical(), part.y, part.times, part.ancillary)
    known = part.arrays
    return fraction_baselines.Table(known["x"], known["y"], part.times, known.get("ancillary"))


def _other_values(
    model: Model, train: Samples | Examples, test: Samples | Examples, *, seed: int
) -> dict[str, np.ndarray]:
    """Predict with the baselines of a task of numbers."""
    if model.card.task == "fractions":
        return other_shares(train, test, seed=seed)
    if not isinstance(test, Examples):
        return {}
    if model.card.task == "forecast":
        x = test.arrays["x"]
        return {
            "persistence": map_baselines.persistence(x),
            "climatology": map_baselines.climatology(x),
            "linear trend": map_baselines.linear_trend(x),
        }
    coarse = test.arrays["coarse_t2"]
    ratio = max(MIN_RATIO, min(16, min(coarse.shape[-2:]) // 2))
    return {
        "nearest date": map_baselines.nearest_date(test.arrays[IMAGES[2]]),
        "bicubic coarse": map_baselines.bicubic_coarse(coarse, ratio=ratio),
    }


def _variables(model: Model, test: Samples | Examples) -> tuple[tuple[str, ...], int | None, np.ndarray]:
    """Return names and axis of the variables, and the truth."""
    truth = test.y if isinstance(test, Samples) else test.arrays["y"]
    if model.card.task == "forecast":
        return (model.card.bands[0],), None, truth
    return (model.card.classes.names if model.card.task == "fractions" else model.card.bands), 1, truth
