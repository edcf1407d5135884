"""The table of networks: names to build them by, and a decorator to add one's own."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from cubekit.errors import OptionError, UnknownNameError, check_option, did_you_mean

if TYPE_CHECKING:
    from torch import nn

Task: TypeAlias = Literal["classify", "fractions", "forecast", "fuse"]
"""Kind of problem; says what a sample, target, loss, metric and output are."""

Form: TypeAlias = Literal["series", "patches", "image"]
"""Shape of a sample: ``(n, t, c)``, ``(n, t, c, h, w)`` or ``(n, c, h, w)``."""

_SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "brits": "cubekit.nn.brits",
        "conv1d": "cubekit.nn.conv1d",
        "convlstm_unet": "cubekit.nn.convlstm_unet",
        "deeplabv3plus": "cubekit.nn.deeplabv3plus",
        "ecpw_stfn": "cubekit.nn.fusion.ecpw_stfn",
        "edcstfn": "cubekit.nn.fusion.edcstfn",
        "gan_stfm": "cubekit.nn.fusion.gan_stfm",
        "lstm": "cubekit.nn.lstm",
        "ltae": "cubekit.nn.ltae",
        "mlff_gan": "cubekit.nn.fusion.mlff_gan",
        "rits": "cubekit.nn.brits",
        "srsf_gan": "cubekit.nn.fusion.srsf_gan",
        "stfdiff": "cubekit.nn.fusion.stfdiff",
        "swinstfm": "cubekit.nn.fusion.swinstfm",
        "tempcnn": "cubekit.nn.tempcnn",
        "unet": "cubekit.nn.unet",
        "utae": "cubekit.nn.utae",
    }
)
"""Networks of this package, by the module that registers them; a module is imported when first asked for."""

Network = TypeVar("Network", bound="type[nn.Module]")


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """What the registry knows about a network."""

    name: str
    """Name to create it by."""

    task: Task
    """Kind of problem it solves."""

    form: Form
    """Shape of the samples it takes."""

    required: tuple[str, ...]
    """Arguments without a default, such as ``bands``, ``steps``, ``classes``."""

    defaults: Mapping[str, Any] = field(hash=False)
    """The other arguments with their defaults."""

    paper: str | None
    """Where it was published, with DOI."""

    summary: str
    """First line of the class's docstring."""

    network: "type[nn.Module]"
    """The class itself."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of all arguments, required ones first."""
        return (*self.required, *self.defaults)


_REGISTERED: dict[str, NetworkInfo] = {}


def register(name: str, *, task: Task, form: Form, paper: str | None = None) -> Callable[[Network], Network]:
    """Make a network known by a name to training, saved models, prediction and the command line.

    Parameters
    ----------
    name : str
        Name to create it by; lower case by custom.
    task : {"classify", "fractions", "forecast", "fuse"}
        Kind of problem it solves.
    form : {"series", "patches", "image"}
        Shape of the samples it takes: ``(n, t, c)``, ``(n, t, c, h, w)`` or ``(n, c, h, w)``.
    paper : str, optional
        Where it was published, with DOI.

    Returns
    -------
    callable
        Decorator that returns the ``torch.nn.Module`` class unchanged. Every argument of the class must have
        a name, and values that JSON can hold, so that a saved model can build it again.

    Raises
    ------
    OptionError
        If task or form is unknown, the name is taken by another class, or the class takes ``*args`` or
        ``**kwargs`` (a saved model could not list its arguments).

    Examples
    --------
    >>> from torch import nn
    >>> @register("mean-then-linear", task="classify", form="series")
    ... class MeanThenLinear(nn.Module):
    ...     def __init__(self, *, bands: int, classes: int) -> None:
    ...         super().__init__()
    ...         self.head = nn.Linear(bands, classes)
    ...
    ...     def forward(self, x, mask=None, doy=None):
    ...         return self.head(x.mean(dim=1))
    """
    check_option("task", task, get_args(Task))
    check_option("form", form, get_args(Form))

    def decorator(network: Network) -> Network:
        _check_free(name, network)
        required, defaults = _arguments_of(name, network)
        _REGISTERED[name] = NetworkInfo(
            name=name,
            task=task,
            form=form,
            required=required,
            defaults=MappingProxyType(defaults),
            paper=paper,
            summary=(inspect.getdoc(network) or "").partition("\n")[0],
            network=network,
        )
        return network

    return decorator


def create(name: str, **arguments: Any) -> "nn.Module":
    """Build a registered network with fresh weights.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    **arguments
        Arguments of the network. Shared names: ``bands``, ``steps``, ``classes``, ``ancillary``, ``dropout``.

    Returns
    -------
    torch.nn.Module
        In training mode, on the CPU. Weights follow torch's global seed.

    Raises
    ------
    UnknownNameError
        If no network has this name; the message names the nearest.
    OptionError
        If an argument is unknown (the message names the nearest) or a required one is missing.
    """
    info = check_arguments(name, arguments)
    missing = [argument for argument in info.required if argument not in arguments]
    if missing:
        raise OptionError(
            f"Network {name!r} needs {', '.join(missing)} as well: create({name!r}, "
            f"{', '.join(f'{argument}=…' for argument in info.required)})."
        )
    return info.network(**arguments)


def check_arguments(name: str, arguments: Iterable[str]) -> NetworkInfo:
    """Raise unless a network has these arguments.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    arguments : iterable of str
        Their names.

    Returns
    -------
    NetworkInfo
        Of the network.

    Raises
    ------
    UnknownNameError
        If no network has this name; the message names the nearest.
    OptionError
        If an argument is unknown; the message names the nearest.
    """
    info = describe(name)
    for argument in arguments:
        if argument not in info.arguments:
            raise OptionError(
                f"Network {name!r} has no argument {argument!r}. {did_you_mean(argument, info.arguments)}"
            )
    return info


def names(task: Task | None = None) -> tuple[str, ...]:
    """List the networks that can be created.

    Parameters
    ----------
    task : {"classify", "fractions", "forecast", "fuse"}, optional
        Only networks for this kind of problem (imports every network of this package).

    Returns
    -------
    tuple of str
        Sorted names.

    Raises
    ------
    OptionError
        If the task is unknown.
    """
    known = sorted({*_SHIPPED, *_REGISTERED})
    if task is None:
        return tuple(known)
    check_option("task", task, get_args(Task))
    return tuple(name for name in known if describe(name).task == task)


def describe(name: str) -> NetworkInfo:
    """Tell what is known about a network.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    NetworkInfo
        Task, form of samples, arguments, paper and class.

    Raises
    ------
    UnknownNameError
        If no network has this name; the message names the nearest.
    """
    if name not in _REGISTERED and name in _SHIPPED:
        import_module(_SHIPPED[name])
    if name not in _REGISTERED:
        raise UnknownNameError(
            f"No network is called {name!r}. {did_you_mean(name, names())} "
            "Your own become known with cubekit.nn.register."
        )
    return _REGISTERED[name]


def _check_free(name: str, network: "type[nn.Module]") -> None:
    """Raise if the name belongs to another class; the same class again (a reload, a notebook) is welcome."""
    module, taken = _SHIPPED.get(name), _REGISTERED.get(name)
    owner = f"{taken.network.__module__}.{taken.network.__qualname__}" if taken else None
    if owner not in {None, f"{network.__module__}.{network.__qualname__}"} or (
        module is not None and network.__module__ != module
    ):
        raise OptionError(f"The name {name!r} belongs to {owner or module} already; choose another.")


def _arguments_of(name: str, network: "type[nn.Module]") -> tuple[tuple[str, ...], dict[str, Any]]:
    """Read names and defaults from the constructor."""
    parameters = inspect.signature(network).parameters.values()
    if any(p.kind in {p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY} for p in parameters):
        raise OptionError(
            f"Network {name!r} takes *args, **kwargs or unnamed arguments: give every argument of "
            f"{network.__qualname__} a name, so that a saved model can list them."
        )
    required = tuple(p.name for p in parameters if p.default is p.empty)
    return required, {p.name: p.default for p in parameters if p.default is not p.empty}
