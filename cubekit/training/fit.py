"""Train a network on samples: one function for all of them."""

import platform
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from torch import nn

from cubekit import __version__
from cubekit.batching.normalise import Method, Normalisation, fit_normalisation
from cubekit.batching.samples import Samples
from cubekit.batching.torch import batches
from cubekit.errors import OptionError, check_kind, check_option
from cubekit.nn.registry import Task, create
from cubekit.tasks.classify import WEIGHT_DECAY, Classify
from cubekit.tasks.series import SeriesInput
from cubekit.training.bundle import Model, model_folder
from cubekit.training.card import DataRecord, ModelCard
from cubekit.training.checks import check_network, check_samples, check_settings, observed
from cubekit.training.loop import GRADIENT_NORM, run_epochs
from cubekit.training.session import quiet, repeatable, torch_threads
from cubekit.typing import BBox, StrPath

ClassWeights = Literal["balanced"] | Sequence[float]
"""Weights of the classes in the loss: by frequency, or one number a class."""


def fit(  # noqa: PLR0913  (the one place where a training is described; all keyword-only)
    network: str | nn.Module,
    train: Samples,
    valid: Samples | None = None,
    *,
    task: Task = "classify",
    epochs: int = 20,
    batch: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    normalise: Method | Normalisation = "percentile",
    out: "StrPath | None" = None,
    class_weights: ClassWeights | None = None,
    label_smoothing: float = 0.0,
    patience: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    threads: int = 1,
    progress: bool | None = None,
) -> Model:
    """Train a network on labelled pixel series.

    Parameters
    ----------
    network : str or torch.nn.Module
        Name in the registry (see :func:`cubekit.nn.names`), or a network of your own, of which a copy is
        trained. Its ``forward`` takes ``x`` ``(n, time, band)`` and returns logits ``(n, class)``; if it
        names ``doy`` it gets the days of the year ``(n, time)`` as well.
    train : Samples
        Training samples.
    valid : Samples, optional
        Validation samples, of the same bands, dates and classes. They choose the epoch whose weights are kept
        (lowest loss); without them the last epoch is kept.
    task : {"classify"}, optional
        Kind of problem.
    epochs : int, optional
        Passes over the training samples.
    batch : int, optional
        Samples per step.
    learning_rate : float, optional
        Of the Adam optimiser.
    seed : int, optional
        Seed of weights, dropout and order; the same seed gives the same model on the same machine. The global
        random state is left as it was.
    normalise : {"percentile", "standard"} or Normalisation, optional
        Scaling of physical values; fitted on the training samples unless given ready.
    out : path, optional
        Folder to save the model and ``metrics.csv`` (one row an epoch) into.
    class_weights : {"balanced"} or sequence of float, optional
        Weights of the classes in the loss; "balanced" weighs by inverse frequency.
    label_smoothing : float, optional
        Share of each target spread over all classes, 0 to 1.
    patience : int, optional
        Stop after this many epochs without a lower validation loss.
    arguments : mapping, optional
        Arguments of a registered network besides ``bands``, ``steps``, ``classes``, which the samples tell.
    threads : int, optional
        CPU threads of torch while training. Batches of series are too small to share: on a busy machine two
        threads were ten times slower than one.
    progress : bool, optional
        Whether to draw a bar; by default on a terminal only, elsewhere a line at each tenth of the epochs.

    Returns
    -------
    Model
        With the weights of the best epoch, in evaluation mode, on the CPU.

    Raises
    ------
    TrainingError
        Before training: fewer than two classes, fewer samples than a batch, samples that differ in kind.
        During training: a loss that is not finite, with epoch and batch.
    OptionError
        If an option is out of range.
    UnknownNameError
        If the registry does not know the network.
    BundleError
        If `out` cannot be written, or holds something else.

    Examples
    --------
    >>> train, valid, test = split(samples, by="groups")  # doctest: +SKIP
    >>> model = fit("tempcnn", train, valid, epochs=20, seed=0)  # doctest: +SKIP
    >>> model.save("runs/first")  # doctest: +SKIP
    """
    settings = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "weight_decay": WEIGHT_DECAY,
        "gradient_norm": GRADIENT_NORM,
        "seed": seed,
        "class_weights": class_weights if isinstance(class_weights, str | None) else list(class_weights),
        "label_smoothing": label_smoothing,
        "patience": patience,
    }
    check_option("task", task, ["classify"])
    check_kind("train", train, Samples, "split a cube and its labels with cubekit.split")
    if isinstance(network, str):
        check_network(network, arguments or {})
    if out is not None:
        model_folder(out)
    check_settings(settings, with_valid=valid is not None)
    usable = observed(train)
    usable_valid = None if valid is None else observed(valid)
    check_samples(usable, usable_valid, batch=batch)
    scaling = fit_normalisation(usable, method=normalise) if isinstance(normalise, str) else normalise
    if scaling.bands != train.bands:
        raise OptionError(f"normalise= is for bands {scaling.bands}, the samples have {train.bands}.")
    with repeatable(seed), quiet(), torch_threads(threads):
        built, name, built_with = _build(network, usable, arguments or {})
        module = Classify(
            built,
            SeriesInput(usable.times, scaling),
            classes=len(train.classes),
            learning_rate=learning_rate,
            class_weights=_weights(class_weights, usable),
            label_smoothing=label_smoothing,
        )
        kept = run_epochs(
            module,
            built,
            train=batches(usable, batch=batch, shuffle=True, seed=seed),
            valid=None if usable_valid is None else batches(usable_valid, batch=batch),
            epochs=epochs,
            patience=patience,
            out=out,
            progress=progress,
        )
    card = ModelCard(
        network=name,
        arguments=built_with,
        task=task,
        bands=train.bands,
        times=tuple(np.datetime_as_string(train.times, "s").tolist()),
        encoding=train.encoding,
        normalisation=scaling,
        classes=train.classes,
        crs=train.crs,
        resolution=train.resolution,
        parameters=sum(weights.numel() for weights in built.parameters()),
        data=_data_record(train, usable, valid, usable_valid),
        settings=settings,
        metrics=kept.best,
        history=tuple(kept.rows),
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    model = Model(built.cpu(), card)
    if out is not None:
        model.save(out)
    return model


def _build(
    network: str | nn.Module, samples: Samples, arguments: Mapping[str, Any]
) -> tuple[nn.Module, str, dict[str, Any] | None]:
    """Return the network, its name, and the arguments it was built with."""
    if isinstance(network, nn.Module):
        if arguments:
            raise OptionError("arguments= only goes with a registered name; this network is built already.")
        kind = type(network)
        return deepcopy(network), f"{kind.__module__}.{kind.__qualname__}", None
    info = check_network(network, arguments)
    told = {"bands": len(samples.bands), "steps": len(samples.times), "classes": len(samples.classes)}
    merged = {key: value for key, value in told.items() if key in info.arguments} | dict(arguments)
    return create(network, **merged), network, merged


def _weights(class_weights: ClassWeights | None, samples: Samples) -> list[float] | None:
    """Return one weight a class; "balanced" gives classes without samples the weight of one sample."""
    size = len(samples.classes)
    if class_weights is None:
        return None
    if isinstance(class_weights, str):
        check_option("class_weights", class_weights, ["balanced"])
        counts = np.bincount(samples.y, minlength=size)
        balanced: list[float] = (len(samples) / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist()
        return balanced
    if len(class_weights) != size or min(class_weights) < 0:
        raise OptionError(
            f"class_weights={list(class_weights)}: expected one number of at least 0 for each of "
            f"{samples.classes.names}."
        )
    return list(class_weights)


def _data_record(
    train: Samples, used: Samples, valid: Samples | None, used_valid: Samples | None
) -> DataRecord:
    """Note which samples were used."""
    counts = [0 if part is None else len(part) for part in (train, valid, used, used_valid)]
    return DataRecord(
        digest=train.digest(),
        train=counts[2],
        valid=counts[3],
        dropped=counts[0] + counts[1] - counts[2] - counts[3],
        train_counts=tuple(np.bincount(used.y, minlength=len(train.classes)).tolist()),
        extent=_extent(used),
    )


def _extent(samples: Samples) -> BBox | None:
    """Return west, south, east, north of the samples in degrees, where their places are known."""
    if samples.crs is None or not np.isfinite(samples.position).all():
        return None
    from pyproj import Transformer

    (left, bottom), (right, top) = samples.position.min(axis=0), samples.position.max(axis=0)
    to_degrees = Transformer.from_crs(samples.crs, "EPSG:4326", always_xy=True)
    west, south, east, north = (
        round(float(edge), 6) for edge in to_degrees.transform_bounds(left, bottom, right, top)
    )
    return west, south, east, north


def _versions() -> dict[str, str]:
    """Return the versions that a repeat would need."""
    found = {name: version(name) for name in ("torch", "lightning", "numpy")}
    return {"python": platform.python_version(), "cubekit": __version__, **found}
