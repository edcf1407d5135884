"""Go on from a trained model, with the same classes or with others."""

from pathlib import Path

from torch import nn

from cubekit.errors import BundleError, ModelMismatchError
from cubekit.training.bundle import Model, load_model
from cubekit.training.data import Facts
from cubekit.training.folder import RECORD
from cubekit.typing import StrPath


def model_to_go_on_from(weights: StrPath | None, facts: Facts) -> Model | None:
    """Load the model that a training starts from, and check that its inputs are those of the samples.

    Parameters
    ----------
    weights : path or None
        Folder of a saved model, or anything else.
    facts : Facts
        Of the training samples.

    Returns
    -------
    Model or None
        None where `weights` is no such folder.

    Raises
    ------
    BundleError
        If the model is damaged.
    ModelMismatchError
        If bands or ancillary variables differ, in name or order: weights belong to inputs by place.
    """
    if weights is None or not (Path(weights) / RECORD).is_file():
        return None
    model = load_model(weights)
    for what, own, other in (
        ("bands", model.card.bands, facts.bands),
        ("ancillary variables", model.ancillary, facts.variables),
    ):
        if own != other:
            raise ModelMismatchError(
                f"The model in {weights} was trained with the {what} {own}, the samples have {other}. "
                "Give the samples the same, in the same order."
            )
    return model


def take_over(network: nn.Module, source: Model, facts: Facts) -> None:
    """Fill a network with the weights of a trained one; output layers stay fresh where classes are others.

    Parameters
    ----------
    network : torch.nn.Module
        Is changed. Says in ``output_layers`` which of its parts belong to the classes.
    source : Model
        What to take weights from.
    facts : Facts
        With the classes that the network shall tell apart.

    Raises
    ------
    BundleError
        If the weights do not fit, or classes differ and the network does not say what its output layers are.
    """
    state = source.network.state_dict()
    if (source.card.classes.names, source.card.classes.codes) != (facts.classes.names, facts.classes.codes):
        layers: tuple[str, ...] = getattr(network, "output_layers", ())
        if not layers:
            raise BundleError(
                f"The model knows the classes {source.card.classes.names}, the samples "
                f"{facts.classes.names}; network {source.card.network!r} does not say which layers are "
                "its outputs."
            )
        fresh = network.state_dict()
        state = {
            name: fresh[name] if name.rpartition(".")[0] in layers else values
            for name, values in state.items()
        }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"The weights of the model do not fit this network: {error}") from error
