"""From a network and its samples to the task that trains it, and to the predictor that uses it."""

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cubekit.batching.normalise import Normalisation
from cubekit.errors import BundleError, OptionError
from cubekit.nn.registry import Task as TaskName
from cubekit.nn.registry import create, describe
from cubekit.tasks.adversarial import FuseAdversarial
from cubekit.tasks.classify import Classifier, Classify
from cubekit.tasks.diffusion import FuseDiffusion
from cubekit.tasks.forecast import Forecast, Forecaster
from cubekit.tasks.fractions import FractionEstimator, Fractions
from cubekit.tasks.fuse import Fuse, Fuser
from cubekit.tasks.fusion_recipes import PLAIN, RECIPES, FusionRecipe
from cubekit.tasks.series import SeriesInput
from cubekit.tasks.task import Predictor, Recipe, Task
from cubekit.training.checks import check_network
from cubekit.training.data import Facts
from cubekit.typing import Array, StrPath


def task_of(network: str | nn.Module, task: TaskName | None) -> TaskName:
    """Tell the kind of problem.

    Parameters
    ----------
    network : str or torch.nn.Module
        A registered name says it.
    task : str or None
        What the user said.

    Returns
    -------
    str
        Kind of problem; "classify" for a module without further words.

    Raises
    ------
    OptionError
        If the network is for another kind.
    """
    if not isinstance(network, str):
        return task or "classify"
    own = describe(network).task
    if task is not None and own not in {task, "classify"}:
        raise OptionError(f"Network {network!r} is for task {own!r}, not for {task!r}. Leave task= out.")
    return task or own


def build_network(
    network: str | nn.Module, facts: Facts, task: TaskName, arguments: Mapping[str, Any]
) -> tuple[nn.Module, str, dict[str, Any] | None]:
    """Build a network for samples.

    Parameters
    ----------
    network : str or torch.nn.Module
        Registered name, or a module, of which a copy is made.
    facts : Facts
        Tell bands, steps and classes.
    task : str
        Kind of problem.
    arguments : mapping
        Further arguments of a registered network.

    Returns
    -------
    network : torch.nn.Module
        With fresh weights, or those of the module.
    name : str
        Registered name, or the import path of the class.
    arguments : dict or None
        To build it again; None for a network that is not registered.

    Raises
    ------
    OptionError
        If the network is for another kind of problem, or arguments do not fit.
    """
    if isinstance(network, nn.Module):
        if arguments:
            raise OptionError("arguments= only goes with a registered name; this network is built already.")
        kind = type(network)
        return deepcopy(network), f"{kind.__module__}.{kind.__qualname__}", None
    info = check_network(network, arguments, task=task, form=facts.form)
    told = {
        "bands": len(facts.bands),
        "steps": len(facts.times),
        "classes": len(facts.classes),
        "ancillary": len(facts.variables),
    }
    if facts.variables and "ancillary" not in info.arguments:
        raise OptionError(
            f"Network {network!r} takes no ancillary variables, the samples have {facts.variables}: train "
            "'brits', or leave them out."
        )
    merged = {key: value for key, value in told.items() if key in info.arguments} | dict(arguments)
    return create(network, **merged), network, merged


def takes_gaps(network: str | nn.Module) -> bool:
    """Tell whether a network is told which values were observed.

    Parameters
    ----------
    network : str or torch.nn.Module
        Registered name, or a module.

    Returns
    -------
    bool
        Whether its ``forward`` takes ``mask``.
    """
    kind = describe(network).network if isinstance(network, str) else network
    return "mask" in inspect.signature(kind.forward).parameters


def fusion_recipe(name: str) -> FusionRecipe:
    """Return how a fusion network was trained when it was published.

    Parameters
    ----------
    name : str
        Registered name, or anything.

    Returns
    -------
    FusionRecipe
        That of any network where nothing is known.
    """
    return RECIPES.get(name, PLAIN)


def predictor_of(
    network: nn.Module,
    task: TaskName,
    *,
    times: Array,
    normalisation: Normalisation,
    temperature: float = 1.0,
    ancillary: Normalisation | None = None,
) -> Predictor:
    """Put a network behind its preprocessing.

    Parameters
    ----------
    network : torch.nn.Module
        Trained or not.
    task : str
        Kind of problem.
    times : numpy.ndarray
        Dates of the steps.
    normalisation : Normalisation
        By band.
    temperature : float, optional
        What logits are divided by.
    ancillary : Normalisation, optional
        Scaling of ancillary variables, for fractions.

    Returns
    -------
    Predictor
        Ready to use.
    """
    if task == "fuse":
        return Fuser(network)
    inputs = SeriesInput(np.asarray(times), normalisation)
    if task == "fractions":
        return FractionEstimator(inputs, network, ancillary=ancillary)
    if task == "forecast":
        return Forecaster(inputs, network)
    return Classifier(inputs, network, temperature=temperature)


def trainer_task(
    predictor: Predictor,
    name: str,
    facts: Facts,
    *,
    recipe: Recipe,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    features: nn.Module | None = None,
) -> Task:
    """Build the task that trains a predictor.

    Parameters
    ----------
    predictor : Predictor
        Network and preprocessing.
    name : str
        Name of the network, which says how fusion networks are trained.
    facts : Facts
        Of the samples.
    recipe : Recipe
        Learning rate, schedule and the like.
    class_weights : sequence of float, optional
        For classify.
    label_smoothing : float, optional
        For classify.
    features : torch.nn.Module, optional
        Trained autoencoder, for fuse.

    Returns
    -------
    Task
        Ready to train.
    """
    if isinstance(predictor, FractionEstimator):
        return Fractions(predictor, classes=len(facts.classes), recipe=recipe)
    if isinstance(predictor, Forecaster):
        return Forecast(predictor, recipe=recipe)
    if isinstance(predictor, Classifier):
        return Classify(
            predictor,
            classes=len(facts.classes),
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            recipe=recipe,
        )
    if not isinstance(predictor, Fuser):
        raise TypeError(type(predictor).__name__)  # predictor_of makes no other
    how = fusion_recipe(name)
    if hasattr(predictor.network, "denoise"):
        return FuseDiffusion(predictor, how=how, recipe=recipe)
    if how.judge is not None:
        judge = how.judge(bands=len(facts.bands))
        return FuseAdversarial(predictor, judge, how=how, features=features, recipe=recipe)
    return Fuse(predictor, how=how, features=features, recipe=recipe)


def start_from(network: nn.Module, path: StrPath) -> None:
    """Fill a network with saved weights.

    Parameters
    ----------
    network : torch.nn.Module
        Is changed.
    path : path
        A safetensors file with all its weights.

    Raises
    ------
    BundleError
        If there is no such file, or it holds the weights of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{path} does not hold weights of this network: {error}") from error
