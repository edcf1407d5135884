"""What is checked before a training starts, so that a mistake costs seconds."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cubekit.batching.samples import Samples
from cubekit.errors import OptionError, TrainingError
from cubekit.nn.registry import NetworkInfo, check_arguments

LEAST_CLASSES = 2


def observed(samples: Samples) -> Samples:
    """Leave out the samples that lack a whole band: filling it would invent it.

    Parameters
    ----------
    samples : Samples
        Labelled series.

    Returns
    -------
    Samples
        Those with at least one date observed in every band.
    """
    usable = np.all(np.any(samples.valid(), axis=1), axis=1)
    return samples if usable.all() else samples.take(np.flatnonzero(usable))


def check_network(network: str, arguments: Iterable[str] = ()) -> NetworkInfo:
    """Raise unless a registered network can classify series.

    Parameters
    ----------
    network : str
        Name in the registry.
    arguments : iterable of str, optional
        Names of the arguments it will be given.

    Returns
    -------
    NetworkInfo
        What the registry knows of it.

    Raises
    ------
    UnknownNameError
        If the registry does not know the network; the message names the nearest.
    OptionError
        If it is for another kind of problem, or an argument is unknown.
    """
    info = check_arguments(network, arguments)
    if (info.task, info.form) != ("classify", "series"):
        raise OptionError(
            f"Network {network!r} is for task {info.task!r} on {info.form}, not to classify series."
        )
    return info


def check_settings(settings: Mapping[str, Any], *, with_valid: bool) -> None:
    """Raise unless the numbers of a training make sense.

    Parameters
    ----------
    settings : mapping
        Name of each argument to its value.
    with_valid : bool
        Whether there are validation samples.

    Raises
    ------
    OptionError
        Naming argument and value.
    """
    for name in ("epochs", "batch", "patience"):
        value = settings[name]
        if value is not None and value < 1:
            raise OptionError(f"{name}={value!r}: expected at least 1.")
    if not settings["learning_rate"] > 0:
        raise OptionError(f"learning_rate={settings['learning_rate']!r}: expected a number above 0.")
    if not 0 <= settings["label_smoothing"] < 1:
        raise OptionError(
            f"label_smoothing={settings['label_smoothing']!r}: expected 0 up to, not including, 1."
        )
    if settings["patience"] is not None and not with_valid:
        raise OptionError("patience= needs validation samples: pass valid=, or leave patience out.")


def check_samples(train: Samples, valid: Samples | None, *, batch: int) -> None:
    """Raise unless samples can train a classifier.

    Parameters
    ----------
    train : Samples
        Training samples.
    valid : Samples or None
        Validation samples.
    batch : int
        Samples per step.

    Raises
    ------
    TrainingError
        If there are fewer samples than a batch, fewer than two classes, shares instead of classes, no
        validation sample, or validation samples of other bands, dates or classes.
    """
    for what, samples in (("training", train), ("validation", valid)):
        if samples is not None:
            _check_labels(what, samples)
    if len(train) < batch:
        raise TrainingError(
            f"{len(train)} training samples are fewer than one batch of {batch}: lower batch=, or add labels."
        )
    names = [train.classes.names[index] for index in np.unique(train.y)]
    if len(names) < LEAST_CLASSES:
        raise TrainingError(
            f"All training samples are of class {names[0]!r}: a classifier needs at least two classes. Add "
            "labels of another, or split in another way."
        )
    if valid is not None:
        _check_alike(train, valid)


def _check_labels(what: str, samples: Samples) -> None:
    """Raise unless there are samples, each with a class."""
    if len(samples) == 0:
        raise TrainingError(f"There are no {what} samples with data in every band.")
    if samples.y.ndim != 1:
        raise TrainingError(f"The {what} samples hold shares of classes, not one class each.")


def _check_alike(train: Samples, valid: Samples) -> None:
    """Raise unless validation samples are of the same kind as training samples."""
    pairs = {
        "bands": (train.bands, valid.bands),
        "classes": (train.classes.names, valid.classes.names),
        "number of dates": (len(train.times), len(valid.times)),
        "dates": (_shown(train), _shown(valid)),
        "coding": (train.encoding, valid.encoding),
    }
    found = [
        f"{what}: {ours} and {theirs}" for what, (ours, theirs) in pairs.items() if str(ours) != str(theirs)
    ]
    if found:
        raise TrainingError(f"Training and validation samples differ in {'; '.join(found)}. Split one set.")


def _shown(samples: Samples) -> str:
    """List dates by day."""
    return ", ".join(np.datetime_as_string(samples.times, "D").tolist())
