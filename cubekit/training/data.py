"""What a training must know of its samples, whatever form they come in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from cubekit.batching.normalise import Normalisation, Rule
from cubekit.batching.normalise_fit import fit_rule
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError, TrainingError
from cubekit.labels import ClassTable
from cubekit.nn.registry import Form, Task
from cubekit.tasks.examples import Examples, ExampleStream
from cubekit.tasks.fuse import IMAGES
from cubekit.typing import Array, BBox, IntArray

Data = Samples | Examples | Any
"""Labelled series, examples in memory, or a stream: an iterable of batches with ``len`` and the attributes
``bands``, ``times``, ``classes``."""

PROBED = 64
"""Batches of a stream that its normalisation is fitted on."""

INPUTS: Mapping[Task, tuple[str, ...]] = {
    "classify": ("x",),
    "fractions": ("x",),
    "forecast": ("x",),
    "fuse": IMAGES,
}
"""Arrays that a task reads, beside ``y``."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of samples before the first batch."""

    bands: tuple[str, ...]
    """Band names."""

    times: Array
    """Dates of the steps."""

    classes: ClassTable
    """Classes; empty for tasks without."""

    encoding: Encoding
    """Coding of the cube they came from."""

    form: Form
    """Shape of a sample."""

    crs: str | None
    """CRS."""

    resolution: float | None
    """Pixel size."""

    size: int
    """Number of samples; of batches for a stream that does not know."""

    digest: str
    """Fingerprint; empty where it is not known."""

    variables: tuple[str, ...] = ()
    """Names of the ancillary variables."""


def describe_data(data: Data, task: Task) -> Facts:
    """Look at samples.

    Parameters
    ----------
    data : Samples, Examples or stream
        See :data:`Data`.
    task : str
        Kind of problem.

    Returns
    -------
    Facts
        What is known.

    Raises
    ------
    OptionError
        If an array that the task needs is missing, or the stream does not say what it holds.
    """
    missing = [name for name in ("bands", "times", "classes", "__iter__") if not hasattr(data, name)]
    if not isinstance(data, Samples | Examples) and missing:
        shown = repr(data) if isinstance(data, str) else f"a {type(data).__name__}"
        raise OptionError(
            f"train is {shown}, expected Samples, Examples or a stream of batches with {', '.join(missing)}: "
            "split a cube and its labels with cubekit.split."
        )
    if isinstance(data, Examples):
        wanted = (*INPUTS[task], "y")
        absent = [name for name in wanted if name not in data.arrays]
        if absent:
            raise OptionError(f"Task {task!r} needs the arrays {wanted}; the examples lack {absent}.")
    digest = data.digest() if hasattr(data, "digest") else ""
    return Facts(
        bands=tuple(data.bands),
        times=np.asarray(data.times),
        classes=data.classes,
        encoding=getattr(data, "encoding", None) or Encoding(dtype="float32", nodata=float("nan")),
        form=_form(data, task),
        crs=getattr(data, "crs", None),
        resolution=getattr(data, "resolution", None),
        size=len(data),
        digest=str(digest),
        variables=_variables(data),
    )


def _variables(data: Data) -> tuple[str, ...]:
    """Return the names of ancillary variables; numbers where examples do not name them."""
    named = tuple(getattr(data, "variables", ()))
    if named or not isinstance(data, Examples) or "ancillary" not in data.arrays:
        return named
    return tuple(f"variable {number + 1}" for number in range(data.arrays["ancillary"].shape[1]))


def _form(data: Data, task: Task) -> Form:
    """Tell series, patches and images apart."""
    if task == "fuse":
        return "image"
    if isinstance(data, Samples):
        return "series"
    axes = data.arrays["x"].ndim if isinstance(data, Examples) else next(iter(data))["x"].ndim
    return "series" if axes == 3 else "patches"  # noqa: PLR2004  (n, t, c)


def stream_of(data: Data, *, batch: int, shuffle: bool = False, seed: int = 0) -> Any:
    """Return batches of samples.

    Parameters
    ----------
    data : Samples, Examples or stream
        A stream is returned as it is: it knows its own batch size and order.
    batch : int
        Samples in a batch, at most.
    shuffle : bool, optional
        Whether every epoch has its own order.
    seed : int, optional
        Seed of the orders.

    Returns
    -------
    iterable
        Of dictionaries of tensors.
    """
    if isinstance(data, Samples | Examples):
        return ExampleStream(data, batch=batch, shuffle=shuffle, seed=seed)
    return data


def scaling_of(data: Data, rule: Rule | Normalisation | None, facts: Facts, task: Task) -> Normalisation:
    """Fit the normalisation, or check the one that was given.

    Parameters
    ----------
    data : Samples, Examples or stream
        Training samples.
    rule : str, Normalisation or None
        None leaves values as they are.
    facts : Facts
        Of the samples.
    task : str
        Kind of problem.

    Returns
    -------
    Normalisation
        By band, or by step and band.

    Raises
    ------
    OptionError
        If a given normalisation is for other bands or steps, or one by step is asked of a forecast, whose
        target is no step of its input.
    TrainingError
        If a band is constant.
    """
    if rule is None:
        ones = tuple(1.0 for _ in facts.bands)
        return Normalisation(method="percentile", bands=facts.bands, low=tuple(0.0 for _ in ones), high=ones)
    if isinstance(rule, Normalisation):
        found = rule
        if found.bands != facts.bands:
            raise OptionError(f"normalise= is for bands {found.bands}, the samples have {facts.bands}.")
    else:
        found = fit_rule(data if isinstance(data, Samples) else _Physical(data, facts.bands), rule)
    if found.steps > 1 and (task == "forecast" or found.steps != len(facts.times)):
        why = (
            "a forecast is no step of its input: scale all steps alike"
            if task == "forecast"
            else f"the samples have {len(facts.times)}"
        )
        raise OptionError(f"normalise= has numbers for {found.steps} steps; {why}.")
    return found


def ancillary_scaling(data: Data, given: Normalisation | None, facts: Facts) -> Normalisation | None:
    """Fit the scaling of ancillary variables, or check the one that was given.

    Parameters
    ----------
    data : Samples, Examples or stream
        Training samples.
    given : Normalisation or None
        None takes mean and standard deviation of the training samples.
    facts : Facts
        Of the samples.

    Returns
    -------
    Normalisation or None
        By variable; None where there are none.

    Raises
    ------
    OptionError
        If a given scaling is for other variables, or must be fitted on a stream.
    TrainingError
        If a variable is constant.
    """
    if given is not None and given.bands != facts.variables:
        raise OptionError(
            f"normalise_ancillary= is for {given.bands}, the samples have the variables {facts.variables}."
        )
    if given is not None or not facts.variables:
        return given
    values = data.ancillary if isinstance(data, Samples) else getattr(data, "arrays", {}).get("ancillary")
    if values is None:
        raise OptionError(
            "The ancillary variables of a stream are not scaled here: give normalise_ancillary=."
        )
    return fit_rule(_Physical(values[:, None], facts.variables), "standard")


class _Physical:
    """Batches of physical values to fit a normalisation on: an array, examples, or the first of a stream."""

    def __init__(self, data: Data, bands: tuple[str, ...]) -> None:
        self._data, self.bands = data, bands

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        if isinstance(self._data, Examples | np.ndarray):
            yield {"x": self._data.arrays["x"] if isinstance(self._data, Examples) else self._data}
            return
        stream: Any = self._data
        yield from islice(iter(stream), PROBED)
        if hasattr(stream, "set_epoch"):
            stream.set_epoch(0)


def counts_of(data: Data, facts: Facts) -> tuple[int, ...]:
    """Count the labelled samples, or pixels, of each class; whole numbers of shares.

    Parameters
    ----------
    data : Samples, Examples or stream
        Labelled samples.
    facts : Facts
        Their classes.

    Returns
    -------
    tuple of int
        One number a class; zeros for a stream, which is not read for it.
    """
    size = len(facts.classes)
    y = data.y if isinstance(data, Samples) else data.arrays["y"] if isinstance(data, Examples) else None
    if y is None or not size:
        return (0,) * size
    if y.dtype.kind == "f":
        return tuple(np.rint(np.nansum(y, axis=0)).astype(int).tolist())
    labelled: IntArray = y[y >= 0].astype(np.int64)
    return tuple(np.bincount(labelled.ravel(), minlength=size).tolist())


def extent_of(data: Data) -> BBox | None:
    """Return west, south, east, north of samples in degrees, where their places are known.

    Parameters
    ----------
    data : Samples, Examples or stream
        Training samples.

    Returns
    -------
    tuple of float or None
        Rounded to six decimals.
    """
    if not isinstance(data, Samples):
        return getattr(data, "extent", None)
    if data.crs is None or not np.isfinite(data.position).all():
        return None
    from pyproj import Transformer

    (left, bottom), (right, top) = data.position.min(axis=0), data.position.max(axis=0)
    to_degrees = Transformer.from_crs(data.crs, "EPSG:4326", always_xy=True)
    west, south, east, north = (
        round(float(edge), 6) for edge in to_degrees.transform_bounds(left, bottom, right, top)
    )
    return west, south, east, north


def check_values(what: str, data: Data, task: Task) -> None:
    """Raise for targets and images that a task cannot learn from.

    Parameters
    ----------
    what : str
        Name of the part, for messages.
    data : Samples, Examples or stream
        Looked at if it lies in memory.
    task : str
        Kind of problem.

    Raises
    ------
    TrainingError
        Naming the first examples that are wrong, and what to do.
    """
    if isinstance(data, Samples) and data.x.dtype.kind == "f":
        _refuse(what, "", np.isinf(data.x), "hold infinite values: make them NaN")
    if isinstance(data, Examples):
        _check_examples(what, data, task)


def _check_examples(what: str, data: Examples, task: Task) -> None:
    """Raise for values of examples in memory that their task cannot learn from."""
    y = data.arrays["y"]
    if "x" in data.arrays:
        _refuse(what, "x", np.isinf(data.arrays["x"]), "hold infinite values: make them NaN")
    if task == "fuse":
        for name in (*IMAGES, "y"):
            _refuse(
                what, name, ~np.isfinite(data.arrays[name]), "hold gaps; fusion needs whole images: fill them"
            )
    elif task == "fractions":
        off = (np.abs(y.sum(axis=1) - 1) > 1e-3) | (y < 0).any(axis=1)  # noqa: PLR2004
        _refuse(what, "y", off, "hold shares that are negative or do not sum to one: divide by their sum")
    elif task == "forecast":
        _refuse(what, "y", np.isinf(y), "hold infinite values: make them NaN")
        if not np.isfinite(y).any():
            raise TrainingError(f"The {what} examples hold no known pixel in y.")
    elif y.dtype.kind not in "iu" or y.max(initial=-1) >= len(data.classes):
        raise TrainingError(
            f"y of the {what} examples holds {y.dtype} up to {y.max(initial=0)}; expected integers from 0 to "
            f"{len(data.classes) - 1}, and -1 where there is no label: {list(data.classes.names)}."
        )


def _refuse(what: str, name: str, wrong: Array, why: str) -> None:
    """Raise if any example is wrong."""
    numbers = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    if numbers.size:
        shown = ", ".join(map(str, numbers[:5].tolist())) + (", …" if numbers.size > 5 else "")  # noqa: PLR2004
        kind, where = ("examples", f"{name} of {shown}") if name else ("samples", shown)
        raise TrainingError(f"{numbers.size} {what} {kind} ({where}) {why}, or leave them out.")
