"""What is checked before a training starts, so that a mistake costs seconds."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args

import numpy as np

from cubekit.batching.samples import Samples
from cubekit.errors import OptionError, TrainingError, check_option, did_you_mean
from cubekit.nn.registry import Form, NetworkInfo, Task, check_arguments, describe, names
from cubekit.tasks.examples import Examples
from cubekit.tasks.task import Keep, Schedule

LEAST_CLASSES = 2

VERBS: Mapping[Task, str] = {
    "classify": "classify",
    "fractions": "estimate fractions of",
    "forecast": "forecast",
    "fuse": "fuse",
}


def observed(samples: Samples, *, any_band: bool = False) -> Samples:
    """Leave out the samples that lack a whole band: filling it would invent it.

    Parameters
    ----------
    samples : Samples
        Labelled series.
    any_band : bool, optional
        Whether a value in any band will do, for networks that are told what was observed.

    Returns
    -------
    Samples
        Those with at least one date observed in every band.
    """
    enough = np.any if any_band else np.all
    usable = enough(np.any(samples.valid(), axis=1), axis=1)
    return samples if usable.all() else samples.take(np.flatnonzero(usable))


def check_network(
    network: str, arguments: Iterable[str] = (), *, task: Task = "classify", form: Form = "series"
) -> NetworkInfo:
    """Raise unless a registered network suits a kind of problem.

    Parameters
    ----------
    network : str
        Name in the registry.
    arguments : iterable of str, optional
        Names of the arguments it will be given.
    task : {"classify", "fractions", "forecast", "fuse"}, optional
        Kind of problem. A network that classifies series can estimate fractions as well.
    form : {"series", "patches", "image"}, optional
        Shape of the samples.

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
    accepted = {task, "classify"} if task == "fractions" else {task}
    if info.task not in accepted or info.form != form:
        raise OptionError(
            f"Network {network!r} is for task {info.task!r} on {info.form}, not to {VERBS[task]} {form}. "
            f"Networks that do: {', '.join(_suited(accepted, form))}."
        )
    return info


def _suited(tasks: Collection[str], form: Form) -> list[str]:
    """List the networks for a kind of problem."""
    known = [describe(name) for name in names()]
    return [info.name for info in known if info.task in tasks and info.form == form]


def check_settings(settings: Mapping[str, Any], *, task: Task, with_valid: bool) -> None:
    """Raise unless the numbers of a training make sense.

    Parameters
    ----------
    settings : mapping
        Name of each argument to its value.
    task : {"classify", "fractions", "forecast", "fuse"}
        Kind of problem.
    with_valid : bool
        Whether there are validation samples.

    Raises
    ------
    OptionError
        Naming argument and value.
    """
    for name in ("epochs", "batch", "patience", "valid_every", "devices"):
        value = settings.get(name)
        if value is not None and value < 1:
            raise OptionError(f"{name}={value!r}: expected at least 1.")
    _check_schedule(settings["schedule"])
    check_option("keep", settings["keep"], get_args(Keep))
    check_option("precision", settings["precision"], ("32", "bf16", "16"))
    if settings["schedule"] == "plateau" and not with_valid:
        raise OptionError("schedule='plateau' needs validation samples: pass valid=, or another schedule.")
    if settings["schedule"] == "plateau" and settings.get("valid_every", 1) > 1:
        raise OptionError("schedule='plateau' looks at every epoch: leave valid_every out.")
    if not settings["learning_rate"] > 0:
        raise OptionError(f"learning_rate={settings['learning_rate']!r}: expected a number above 0.")
    if not 0 <= settings["label_smoothing"] < 1:
        raise OptionError(
            f"label_smoothing={settings['label_smoothing']!r}: expected 0 up to, not including, 1."
        )
    if settings["patience"] is not None and not with_valid:
        raise OptionError("patience= needs validation samples: pass valid=, or leave patience out.")
    if settings["keep"] != "loss" and task != "classify":
        raise OptionError(
            f"keep={settings['keep']!r} is a score of classifiers: a network to {task} keeps keep='loss'."
        )
    if settings["keep"] != "loss" and not with_valid:
        raise OptionError(f"keep={settings['keep']!r} needs validation samples: pass valid=.")


def _check_schedule(schedule: Any) -> None:
    """Raise for a schedule that there is not, or epochs that do not rise; they may lie behind the last."""
    if isinstance(schedule, str):
        check_option("schedule", schedule, get_args(Schedule))
        return
    rising = all(isinstance(each, int) for each in schedule) and sorted(set(schedule)) == list(schedule)
    if not schedule or not rising or schedule[0] < 1:
        raise OptionError(f"schedule={list(schedule)}: epochs that halve the learning rate rise from 1 on.")


def check_samples(train: Samples, valid: Samples | None, *, batch: int, shares: bool = False) -> None:
    """Raise unless samples can train a network.

    Parameters
    ----------
    train : Samples
        Training samples.
    valid : Samples or None
        Validation samples.
    batch : int
        Samples per step.
    shares : bool, optional
        Whether shares of classes are wanted rather than one class each.

    Raises
    ------
    TrainingError
        If there are fewer samples than a batch, fewer than two classes, shares instead of classes, no
        validation sample, or validation samples of other bands, dates or classes.
    """
    for what, samples in (("training", train), ("validation", valid)):
        if samples is not None:
            _check_labels(what, samples, shares=shares)
    _check_size(len(train), batch)
    if valid is not None:
        _check_alike(train, valid)
    if shares:
        return
    names = [train.classes.names[index] for index in np.unique(train.y)]
    if len(names) < LEAST_CLASSES:
        raise TrainingError(
            f"All training samples are of class {names[0]!r}: a classifier needs at least two classes. Add "
            "labels of another, or split in another way."
        )


def check_examples(train: Any, valid: Any | None, *, batch: int, task: Task) -> None:
    """Raise unless examples in memory, or streams, can train a network.

    Parameters
    ----------
    train : Examples or stream
        Training samples.
    valid : Examples or stream, optional
        Validation samples.
    batch : int
        Samples per step.
    task : str
        Kind of problem.

    Raises
    ------
    TrainingError
        If there are fewer examples than a batch, a single class, or validation examples of other bands, steps
        or classes.
    """
    if valid is not None:
        pairs = {
            "bands": (tuple(train.bands), tuple(valid.bands)),
            "classes": (train.classes.names, valid.classes.names),
            "number of dates": (len(train.times), len(valid.times)),
        }
        _refuse_differences(pairs)
    if not isinstance(train, Examples):
        return
    _check_size(len(train), batch)
    y = train.arrays["y"]
    if task == "classify":
        found = np.unique(y[y >= 0])
        if len(found) < LEAST_CLASSES:
            named = train.classes.names[found[0]] if len(found) else "none"
            raise TrainingError(
                f"All training samples are of class {named!r}: a classifier needs at least two classes. Add "
                "labels of another, or split in another way."
            )


def _check_size(size: int, batch: int) -> None:
    """Raise unless the samples fill a batch."""
    if size < batch:
        raise TrainingError(
            f"{size} training samples are fewer than one batch of {batch}: lower batch=, or add labels."
        )


def _check_labels(what: str, samples: Samples, *, shares: bool) -> None:
    """Raise unless there are samples, each with a class or with shares."""
    if len(samples) == 0:
        raise TrainingError(f"There are no {what} samples with data in every band.")
    if (samples.y.ndim != 1) != shares:
        found, wanted = (
            ("one class each", "shares of classes") if shares else ("shares of classes", "one class each")
        )
        remedy = "" if shares else " Train with task='fractions'."
        raise TrainingError(f"The {what} samples hold {found}, not {wanted}.{remedy}")


def _check_alike(train: Samples, valid: Samples) -> None:
    """Raise unless validation samples are of the same kind as training samples."""
    pairs = {
        "bands": (train.bands, valid.bands),
        "classes": (train.classes.names, valid.classes.names),
        "number of dates": (len(train.times), len(valid.times)),
        "dates": (_shown(train), _shown(valid)),
        "coding": (train.encoding, valid.encoding),
    }
    _refuse_differences(pairs)


def _refuse_differences(pairs: Mapping[str, tuple[object, object]]) -> None:
    """Raise if training and validation differ in anything."""
    found = [
        f"{what}: {ours} and {theirs}" for what, (ours, theirs) in pairs.items() if str(ours) != str(theirs)
    ]
    if found:
        raise TrainingError(f"Training and validation samples differ in {'; '.join(found)}. Split one set.")


def _shown(samples: Samples) -> str:
    """List dates by day."""
    return ", ".join(np.datetime_as_string(samples.times, "D").tolist())


def check_fit_options(options: Mapping[str, Any], *, taken: Collection[str] = ()) -> dict[str, Any]:
    """Raise unless options typed by a user are arguments of ``fit``.

    Parameters
    ----------
    options : mapping
        Name to value.
    taken : collection of str, optional
        Arguments that have an option of their own.

    Returns
    -------
    dict
        The same.

    Raises
    ------
    OptionError
        With the nearest argument.
    """
    from inspect import signature

    from cubekit.training.fit import fit

    free = [name for name in signature(fit).parameters if name not in {"network", "train", "valid", *taken}]
    for name in options:
        if name not in free:
            raise OptionError(f"Training has no setting {name!r} here. {did_you_mean(name, free)}")
    return dict(options)
