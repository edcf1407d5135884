"""Models for and from elsewhere: ONNX and torch.export with a numeric check, foreign weight files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cubekit.errors import BundleError, MissingDependencyError, OptionError
from cubekit.typing import FloatArray, StrPath

if TYPE_CHECKING:
    from cubekit.training.bundle import Model

TOLERANCE = 1e-4
"""Largest difference between an exported model and the one it was made from."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "generator")
_PREFIXES = ("module.", "model.", "net.", "network.")


@dataclass(frozen=True)
class Exported:
    """What an export has made."""

    path: Path
    """The file."""

    difference: float
    """Largest difference to the model on inputs drawn at random."""


def export_model(model: "Model", path: StrPath, *, side: int = 64) -> Exported:
    """Write a model for other programs, and check that it answers the same there.

    The file holds normalisation, network and calibration. It takes physical values **without gaps**: filling
    them in time stays with the caller. The number of examples may vary; the size of patches is `side`.

    Parameters
    ----------
    model : Model
        To classify, or for fractions, forecast or fuse.
    path : path
        Ending in ``.onnx`` (needs onnx, onnxscript and onnxruntime) or ``.pt2`` (torch.export).
    side : int, optional
        Rows and columns of patches and images.

    Returns
    -------
    Exported
        File, and the largest difference between its answers and the model's.

    Raises
    ------
    OptionError
        If the ending is another.
    MissingDependencyError
        If onnx, onnxscript or onnxruntime is not installed.
    BundleError
        If the file answers otherwise; it is not kept.
    """
    target = Path(path)
    if target.suffix not in {".onnx", ".pt2"}:
        raise OptionError(f"{target.name!r} should end in .onnx or .pt2.")
    inputs = _drawn(model, side=side)
    answer, expected = _Answer(model).eval(), model.apply(inputs)
    tensors = tuple(torch.from_numpy(values) for values in inputs.values())
    part = target.with_name(f".part-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write = _write_onnx if target.suffix == ".onnx" else _write_pt2
        found = write(answer, tensors, list(inputs), part)
        difference = float(np.abs(found - expected[answer.output]).max())
        if not difference <= TOLERANCE:
            raise BundleError(
                f"The exported model answers otherwise: by {difference:.3g}, {TOLERANCE:g} is allowed. "
                f"Nothing was written to {target}."
            )
        os.replace(part, target)  # noqa: PTH105  (the atomic one)
    finally:
        part.unlink(missing_ok=True)
    return Exported(target, difference)


class _Answer(nn.Module):
    """The part of a model that has no branches: normalisation, network, calibration."""

    def __init__(self, model: "Model") -> None:
        super().__init__()
        self.network, self.card = model.network, model.card
        self.predictor: Any = model.predictor
        task = model.card.task
        self.output = {"classify": "probabilities", "fractions": "fractions"}.get(task, "predicted")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer."""
        if self.card.task == "fuse":
            fused: Tensor = self.network(*inputs)
            return fused
        (x,) = inputs
        scaled = self.card.normalisation.apply(x, axis=2)
        known = {"doy": self.predictor.inputs.doy.expand(x.shape[0], -1)}
        if self.card.task == "fractions":
            known["mask"] = torch.ones_like(x, dtype=torch.bool)
        found = self.network(scaled, **{k: v for k, v in known.items() if k in self.predictor.asked})
        if isinstance(found, dict):
            estimated: Tensor = found["fractions"]
            return estimated
        if self.card.task == "forecast":
            brought: Tensor = self.predictor.physical(found)
            return brought
        likely: Tensor = (found / self.card.temperature).softmax(dim=1)
        return likely


def _drawn(model: "Model", *, side: int) -> dict[str, FloatArray]:
    """Draw gap-free physical inputs from the range of the training samples."""
    card, dice = model.card, np.random.default_rng(0)
    space = () if card.form == "series" else (side, side)
    if card.task == "fuse":
        shape = (2, len(card.bands), *space)
        names: tuple[str, ...] = ("coarse_t1", "coarse_t2", "fine_t1")
        return {name: dice.random(shape, dtype=np.float32) for name in names}
    x = dice.random((2, len(card.times), len(card.bands), *space), dtype=np.float32)
    return {"x": card.normalisation.undo(x, axis=2)}


def _write_pt2(answer: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path) -> FloatArray:
    """Write with torch.export, read back, and answer."""
    del names
    n = torch.export.Dim("n", min=1)
    program = torch.export.export(answer, inputs, dynamic_shapes={"inputs": tuple({0: n} for _ in inputs)})
    torch.export.save(program, path)
    with torch.inference_mode():
        found: Tensor = torch.export.load(path).module()(*inputs)
    return found.numpy()


def _write_onnx(answer: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path) -> FloatArray:
    """Write as ONNX, run it with onnxruntime, and answer."""
    import warnings

    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX export needs more packages: pip install onnx onnxscript onnxruntime."
        ) from error
    n = torch.export.Dim("n", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        torch.onnx.export(
            answer,
            inputs,
            path,
            input_names=names,
            output_names=["output"],
            dynamic_shapes={"inputs": tuple({0: n} for _ in inputs)},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {entry.name: values.numpy() for entry, values in zip(session.get_inputs(), inputs, strict=True)}
    found: FloatArray = session.run(None, given)[0]
    return found


@dataclass(frozen=True)
class Imported:
    """Weights of another program in a network of ours."""

    network: nn.Module
    """With the weights."""

    names: Mapping[str, str]
    """Name in the file to name in the network."""


def import_weights(path: StrPath, network: str, *, arguments: Mapping[str, Any] | None = None) -> Imported:
    """Read a ``.pt`` or ``.pth`` file of another program into a registered network.

    The only place where such files are read, and never by running what they hold: anything but tensors and
    plain containers is refused. Tensors are matched by name, without prefixes such as ``module.``; where
    names differ, by order, if all shapes agree.

    Parameters
    ----------
    path : path
        State dictionary, alone or under a key such as ``state_dict``.
    network : str
        Name in the registry.
    arguments : mapping, optional
        To build it with, such as ``{"bands": 6}``.

    Returns
    -------
    Imported
        Network, and which tensor went where.

    Raises
    ------
    BundleError
        If the file cannot be read safely, or its tensors do not fit; the differences are listed.
    """
    from cubekit.nn.registry import create

    built = create(network, **(arguments or {}))
    found = _read_tensors(Path(path))
    wanted = built.state_dict()
    names = {name: _bare(name) for name in found}
    if set(names.values()) != set(wanted):
        learned = [name for name, value in wanted.items() if not name.endswith("num_batches_tracked")]
        given = [name for name in found if not name.endswith("num_batches_tracked")]
        shapes = [tuple(found[name].shape) for name in given], [tuple(wanted[name].shape) for name in learned]
        if shapes[0] != shapes[1]:
            raise BundleError(_listed(path, network, found, wanted))
        names = dict(zip(given, learned, strict=True))
    wrong = [name for name, own in names.items() if found[name].shape != wanted[own].shape]
    if wrong:
        raise BundleError(_listed(path, network, found, wanted))
    built.load_state_dict(wanted | {own: found[name] for name, own in names.items()})
    return Imported(built.eval(), names)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary without running what the file holds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BundleError(f"There is no file at {path}.") from error
    except Exception as error:
        raise BundleError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}): it is damaged, or holds code, "
            "which is never run. Save its state_dict() alone where it comes from."
        ) from error
    for key in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = (
        {str(name): value for name, value in dict(content).items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise BundleError(f"{path} holds no state dictionary but {type(content).__name__}.")
    return tensors


def _bare(name: str) -> str:
    """Take the prefixes of wrappers off a name."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _listed(path: StrPath, network: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """List what does not fit."""
    bare = {_bare(name): value for name, value in found.items()}
    lines = [f"- missing: {name} {tuple(wanted[name].shape)}" for name in wanted if name not in bare]
    lines += [f"- not known: {name} {tuple(bare[name].shape)}" for name in bare if name not in wanted]
    lines += [
        f"- other shape: {name} {tuple(bare[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in bare and bare[name].shape != wanted[name].shape
    ]
    more = f"\n- and {len(lines) - 12} more" if len(lines) > 12 else ""  # noqa: PLR2004
    return (
        f"The {len(found)} tensors of {path} do not fit the {len(wanted)} of network {network!r}:\n"
        + "\n".join(lines[:12])
        + more
        + "\nGive the arguments it was trained with, or another network."
    )
