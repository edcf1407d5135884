"""Train a network on samples: one function for all of them."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from cubekit import __version__
from cubekit.batching.normalise import Normalisation, Rule
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.errors import OptionError, check_option
from cubekit.nn.registry import Task
from cubekit.tasks.classify import Classifier
from cubekit.tasks.fuse import Reconstruct, Reconstructor
from cubekit.tasks.fusion_recipes import FusionRecipe
from cubekit.tasks.task import WEIGHT_DECAY, Keep, Recipe, Schedule
from cubekit.training.bundle import Model
from cubekit.training.calibration import fit_temperature
from cubekit.training.card import DataRecord, ModelCard
from cubekit.training.checks import check_examples, check_network, check_samples, check_settings, observed
from cubekit.training.data import (
    Data,
    Facts,
    ancillary_scaling,
    check_values,
    counts_of,
    describe_data,
    extent_of,
    scaling_of,
    stream_of,
)
from cubekit.training.finetune import model_to_go_on_from, take_over
from cubekit.training.folder import model_folder
from cubekit.training.loop import run_epochs
from cubekit.training.resume import (
    PRETRAINING,
    Log,
    Precision,
    Run,
    forget,
    state_to_go_on_from,
)
from cubekit.training.session import quiet, repeatable, torch_threads
from cubekit.training.setup import (
    build_network,
    fusion_recipe,
    predictor_of,
    start_from,
    takes_gaps,
    task_of,
    trainer_task,
)
from cubekit.typing import StrPath

ClassWeights = Literal["balanced"] | Sequence[float]
"""Weights of the classes in the loss: by frequency, or one number a class."""

SPLIT = "split.parquet"
"""File of the split beside a model."""

PRETRAINED_SHARE = 0.4
"""Epochs for the autoencoder of a fusion network, as a share of the others: 200 to 500 as published."""

NORMALISED: Mapping[Task, Rule | None] = {
    "classify": "percentile",
    "fractions": "standard",
    "forecast": None,
    "fuse": None,
}
"""Scaling of each task where nothing is said; None feeds values as they are."""


def fit(  # noqa: PLR0913  (the one place where a training is described; all keyword-only)
    network: str | nn.Module,
    train: Data,
    valid: Data | None = None,
    *,
    task: Task | None = None,
    epochs: int = 20,
    batch: int = 256,
    learning_rate: float | None = None,
    schedule: Schedule | Sequence[int] | None = None,
    keep: Keep = "loss",
    seed: int = 0,
    normalise: Rule | Normalisation | Literal["auto", "none"] = "auto",
    normalise_ancillary: Normalisation | None = None,
    out: "StrPath | None" = None,
    resume: bool = True,
    checkpoint_minutes: float = 5.0,
    class_weights: ClassWeights | None = None,
    label_smoothing: float = 0.0,
    calibrate: bool = True,
    patience: int | None = None,
    valid_every: int = 1,
    pretrain: int | None = None,
    clip: float | None = Recipe.clip,
    precision: Precision = "32",
    devices: int = 1,
    log: Sequence[Log] = (),
    arguments: Mapping[str, Any] | None = None,
    weights: "StrPath | None" = None,
    split: Split | None = None,
    threads: int = 1,
    progress: bool | None = None,
) -> Model:
    """Train a network on labelled series, patches, past maps or pairs of images.

    Parameters
    ----------
    network : str or torch.nn.Module
        Name in the registry (see :func:`cubekit.nn.names`), or a network of your own, of which a copy is
        trained. What its ``forward`` takes and returns is told by the task's module in ``cubekit.tasks``: to
        classify series, ``x`` ``(n, time, band)`` to logits ``(n, class)``; if it names ``doy`` it gets the
        days of the year ``(n, time)`` as well.
    train : Samples, Examples or stream
        Training samples. A stream is an iterable of batches (dictionaries of tensors) that has ``len``,
        ``bands``, ``times`` and ``classes``; with ``state_dict`` and ``load_state_dict`` an interrupted epoch
        goes on where it stopped.
    valid : Samples, Examples or stream, optional
        Validation samples, of the same bands, dates and classes. They choose the epoch whose weights are kept
        (lowest loss); without them the last epoch is kept.
    task : {"classify", "fractions", "forecast", "fuse"}, optional
        Kind of problem. Default: that of a registered network; "classify" for a network of your own.
    epochs : int, optional
        Passes over the training samples.
    batch : int, optional
        Samples per step.
    learning_rate : float, optional
        Of the Adam optimiser. Default: 0.001; for fusion networks the published one.
    schedule : {"constant", "cosine", "plateau", "step"} or sequence of int, optional
        How it falls: not at all; to zero along a cosine; to a tenth after five epochs without a lower
        validation loss; by a fifth after each fifth of the epochs; by half after each of the epochs listed.
        Default: constant; for fusion networks the published one.
    keep : {"loss", "accuracy", "macro_f1", "weighted_f1"}, optional
        What chooses the epoch whose weights are kept: the lowest validation loss, or the highest score on
        the validation samples, which only classifiers have.
    seed : int, optional
        Seed of weights, dropout and order; the same seed gives the same model on the same machine. The global
        random state is left as it was.
    normalise : str or Normalisation, optional
        Scaling of physical values, fitted on the training samples (of a stream: on its first 64 batches)
        unless given ready, as by :func:`cubekit.fit_normalisation`: "percentile" or "standard" by band,
        "percentile_by_step" or "standard_by_step" by step and band, "none". "auto" takes percentiles to
        classify, mean and standard deviation for fractions, and leaves maps and images as they are; with the
        weights of a saved model, its own.
    normalise_ancillary : Normalisation, optional
        Scaling of ancillary variables. Default: mean and standard deviation of the training samples; with the
        weights of a saved model, its own.
    out : path, optional
        Folder to save the model and ``metrics.csv`` (one row an epoch) into.
    resume : bool, optional
        Whether to go on where this very training (same samples, network and settings) was interrupted in
        `out`: the result is the same as without the interruption. Another training in the folder is
        replaced.
    checkpoint_minutes : float, optional
        How often the state is saved into `out` within an epoch; after each epoch it always is.
    class_weights : {"balanced"} or sequence of float, optional
        Weights of the classes in the loss; "balanced" weighs by inverse frequency.
    label_smoothing : float, optional
        Share of each target spread over all classes, 0 to 1.
    calibrate : bool, optional
        Whether to fit a temperature on the validation samples, so that a probability of 0.8 is right in eight
        of ten cases there. Classes do not change.
    patience : int, optional
        Stop after this many validations that are not better, as `keep` says.
    valid_every : int, optional
        Epochs from one validation to the next; only validated epochs can be kept.
    pretrain : int, optional
        Epochs for the autoencoder whose features some fusion networks are compared by. Default: 0.4 of
        `epochs`.
    clip : float, optional
        Norm that gradients are clipped to; None does not clip.
    precision : {"32", "bf16", "16"}, optional
        Arithmetic of the network; weights stay float32.
    devices : int, optional
        How many processors or processes share the batches. Every one of them runs the calling script, which
        therefore needs the usual ``if __name__ == "__main__"``.
    log : sequence of {"tensorboard", "wandb"}, optional
        Loggers beside ``metrics.csv``; they write into `out`.
    arguments : mapping, optional
        Arguments of a registered network besides ``bands``, ``steps``, ``classes``, which the samples tell.
    weights : path, optional
        ``weights.safetensors`` to start from rather than from random weights, as of ``cubekit
        import-weights``; or the folder of a saved model, whose output layers are replaced by fresh ones where
        the classes are others.
    split : Split, optional
        The split that `train` and `valid` come from, of :func:`cubekit.plan_split`: it is written into `out`
        as ``split.parquet``, and the card names its digest.
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
        Before training: fewer than two classes, fewer samples than a batch, samples that differ in kind or
        cannot be learned from. During training: a loss that is not finite, with epoch, batch and samples.
    OptionError
        If an option is out of range, or the network is for another kind of problem.
    UnknownNameError
        If the registry does not know the network.
    BundleError
        If `out` cannot be written, or holds something else.
    KeyboardInterrupt
        After Ctrl-C: the batch at hand is finished and the state saved into `out`, where the same call goes
        on.

    Examples
    --------
    >>> train, valid, test = split(samples, by="groups")  # doctest: +SKIP
    >>> model = fit("tempcnn", train, valid, epochs=20, seed=0)  # doctest: +SKIP
    >>> model.save("runs/first")  # doctest: +SKIP
    """
    task = task_of(network, task) if task is None or task in get_args(Task) else _refuse_task(task)
    facts = describe_data(train, task)
    decay = 0.0 if task == "fractions" else WEIGHT_DECAY  # none as published for BRITS
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "schedule": schedule if isinstance(schedule, str | None) else tuple(schedule),
        "keep": keep,
        "weight_decay": decay,
        "gradient_norm": clip,
        "seed": seed,
        "class_weights": class_weights if isinstance(class_weights, str | None) else list(class_weights),
        "label_smoothing": label_smoothing,
        "patience": patience,
        "valid_every": valid_every,
        "precision": precision,
        "devices": devices,
    }
    if isinstance(network, str):
        check_network(network, arguments or {}, task=task, form=facts.form)
    how = fusion_recipe(network if isinstance(network, str) else "")
    settings["learning_rate"] = how.learning_rate if learning_rate is None else learning_rate
    settings["schedule"] = how.schedule if schedule is None else settings["schedule"]
    if task == "fuse" and how.features is not None:
        settings["pretrain"] = max(1, round(PRETRAINED_SHARE * epochs)) if pretrain is None else pretrain
    check_settings(settings, task=task, with_valid=valid is not None)
    folder = None if out is None else model_folder(out)
    told = task == "fractions" and takes_gaps(network)
    parts = _usable(train, valid, task, batch=batch, gaps=told)
    source = model_to_go_on_from(weights, facts)
    if source is not None:
        normalise = source.card.normalisation if normalise == "auto" else normalise
        normalise_ancillary = normalise_ancillary or source.card.ancillary
    method = None if normalise == "none" else NORMALISED[task] if normalise == "auto" else normalise
    scaling = scaling_of(parts[0], method, facts, task)
    ancillary = ancillary_scaling(parts[0], normalise_ancillary, facts)
    recipe = Recipe(
        epochs=epochs,
        learning_rate=settings["learning_rate"],
        schedule=settings["schedule"],
        lowest_rate=how.lowest_rate,
        weight_decay=decay,
        clip=clip,
    )
    with repeatable(seed), quiet(), torch_threads(threads):
        built, name, built_with = build_network(network, facts, task, arguments or {})
        if source is not None:
            take_over(built, source, facts)
        elif weights is not None:
            start_from(built, weights)
        predictor = predictor_of(built, task, times=facts.times, normalisation=scaling, ancillary=ancillary)
        streams = (
            stream_of(parts[0], batch=batch, shuffle=True, seed=seed),
            None if parts[1] is None else stream_of(parts[1], batch=batch),
        )
        run = Run(
            patience=patience,
            keep=keep,
            precision=precision,
            devices=devices,
            out=folder,
            log=log,
            progress=progress,
            checkpoint_minutes=checkpoint_minutes,
            valid_every=valid_every,
            identity=_identity(
                settings
                | {"network": name, "arguments": built_with, "scaling": scaling.to_dict()}
                | ({} if ancillary is None else {"ancillary": ancillary.to_dict()}),
                built,
                parts,
            ),
        )
        if folder is not None and not resume:
            forget(folder)
        before = replace(recipe, epochs=settings.get("pretrain", 0))
        features = _features(how, facts, run, before, streams) if task == "fuse" else None
        module = trainer_task(
            predictor,
            name,
            facts,
            recipe=recipe,
            class_weights=_weights(class_weights, parts[0], facts),
            label_smoothing=label_smoothing,
            features=features,
        )
        kept = run_epochs(module, run, train=streams[0], valid=streams[1])
        best = module.kept.cpu()
        temperature = 1.0
        if calibrate and isinstance(predictor, Classifier) and parts[1] is not None:
            temperature = fit_temperature(predictor.cpu().eval(), stream_of(parts[1], batch=batch))
    card = ModelCard(
        network=name,
        arguments=built_with,
        task=task,
        form=facts.form,
        bands=facts.bands,
        times=tuple(np.datetime_as_string(facts.times, "s").tolist()),
        encoding=facts.encoding,
        normalisation=scaling,
        ancillary=ancillary,
        classes=facts.classes,
        temperature=temperature,
        crs=facts.crs,
        resolution=facts.resolution,
        halo=0 if facts.form == "series" else getattr(best, "reach", None),
        parameters=sum(weights.numel() for weights in best.parameters()),
        data=_data_record(train, valid, parts, facts, split),
        settings=settings,
        metrics=kept.best,
        history=tuple(kept.rows),
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    model = Model(best, card)
    if folder is not None:
        _save(model, folder, split)
    return model


def _save(model: Model, folder: Path, split: Split | None) -> None:
    """Save the model and the split; the first of several processes does."""
    first: Any = rank_zero_only
    if first.rank == 0:
        model.save(folder)
        if split is not None:
            split.save(folder / SPLIT)
        forget(folder)


def _refuse_task(task: object) -> Task:
    """Raise for a task that there is not."""
    check_option("task", task, get_args(Task))
    raise AssertionError  # check_option has raised


def _usable(
    train: Data, valid: Data | None, task: Task, *, batch: int, gaps: bool = False
) -> tuple[Data, Data | None]:
    """Leave out series without a band (or, with `gaps`, without any value), refuse what cannot train."""
    parts = [observed(part, any_band=gaps) if isinstance(part, Samples) else part for part in (train, valid)]
    for what, part in zip(("training", "validation"), parts, strict=True):
        if part is not None:
            check_values(what, part, task)
    if isinstance(parts[0], Samples) and (parts[1] is None or isinstance(parts[1], Samples)):
        check_samples(parts[0], parts[1], batch=batch, shares=task == "fractions")
    else:
        check_examples(parts[0], parts[1], batch=batch, task=task)
    return parts[0], parts[1]


def _identity(settings: Mapping[str, Any], network: nn.Module, parts: tuple[Data, Data | None]) -> str:
    """Digest of everything that decides what comes out; a module's own weights are part of it."""
    weights = hashlib.sha256()
    for values in network.state_dict().values():
        weights.update(values.detach().cpu().contiguous().numpy().tobytes())
    recipe = {
        "settings": dict(settings),
        "weights": weights.hexdigest(),
        "samples": [_digest(part) for part in parts],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()


def _digest(part: Any) -> str:
    """Fingerprint of samples; of a stream without one, what it says of itself."""
    return str(part.digest()) if hasattr(part, "digest") else repr(part)


def _features(
    how: FusionRecipe,
    facts: Facts,
    run: Run,
    recipe: Recipe,
    streams: tuple[Any, Any],
) -> nn.Module | None:
    """Train the autoencoder of a fusion network first; a state of the second stage holds it already."""
    if how.features is None:
        return None
    autoencoder = how.features(bands=len(facts.bands))
    first = replace(
        run,
        patience=None,
        out=None if run.out is None else run.out / PRETRAINING,
        log=(),
    )
    if state_to_go_on_from(run) is None and recipe.epochs:
        if first.out is not None:
            first.out.mkdir(exist_ok=True)
        task = Reconstruct(Reconstructor(autoencoder), how=how, recipe=recipe)
        with torch.random.fork_rng():  # what follows must not depend on whether this was done just now
            run_epochs(task, first, train=streams[0], valid=streams[1])
        if hasattr(streams[0], "set_epoch"):
            streams[0].set_epoch(0)
    return autoencoder


def _weights(class_weights: ClassWeights | None, data: Data, facts: Facts) -> list[float] | None:
    """Return one weight a class; "balanced" gives classes without samples the weight of one sample."""
    size = len(facts.classes)
    if class_weights is None:
        return None
    if isinstance(class_weights, str):
        check_option("class_weights", class_weights, ["balanced"])
        counts = np.array(counts_of(data, facts))
        if not counts.any():
            raise OptionError("class_weights='balanced' needs samples in memory: pass one number a class.")
        balanced: list[float] = (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist()
        return balanced
    if len(class_weights) != size or min(class_weights) < 0:
        raise OptionError(
            f"class_weights={list(class_weights)}: expected one number of at least 0 for each of "
            f"{facts.classes.names}."
        )
    return list(class_weights)


def _data_record(
    train: Data, valid: Data | None, used: tuple[Data, Data | None], facts: Facts, split: Split | None
) -> DataRecord:
    """Note which samples were used."""
    counts = [0 if part is None else len(part) for part in (train, valid, *used)]
    return DataRecord(
        digest=facts.digest,
        train=counts[2],
        valid=counts[3],
        dropped=counts[0] + counts[1] - counts[2] - counts[3],
        train_counts=counts_of(used[0], facts),
        extent=extent_of(used[0]),
        split=None if split is None else split.digest(),
    )


def _versions() -> dict[str, str]:
    """Return the versions that a repeat would need."""
    found = {name: version(name) for name in ("torch", "lightning", "numpy")}
    return {"python": platform.python_version(), "cubekit": __version__, **found}
