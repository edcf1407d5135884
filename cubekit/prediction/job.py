"""A cube, models that fit it, and what is to be done: found out before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN, encoding_of
from cubekit.errors import CubeError, OptionError, did_you_mean
from cubekit.prediction.model import form_of, kind_of, names_of
from cubekit.prediction.outputs import check_outputs
from cubekit.prediction.rule import Rule
from cubekit.prediction.shipping import ShippedModel
from cubekit.prediction.tiling import TILE
from cubekit.prediction.windows import Windows, plan_windows

Turning: TypeAlias = Literal["none", "flips", "rotations"]
"""Test-time augmentation."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cube that fits, and what is to be done with it."""

    cube: xr.Dataset
    rule: Rule
    names: tuple[str, ...]
    table: Any
    units: str | None
    ancillary: tuple[str, ...]

    def side(self, tile: int | None) -> int | None:
        """Return the side of a tile.

        Parameters
        ----------
        tile : int or None
            Side asked for.

        Returns
        -------
        int or None
            Whole windows; None where the cube's own chunks decide.
        """
        windows = self.rule.windows
        if windows is None:
            return tile
        wanted = tile or (windows.step if not windows.blended else 2 * TILE)
        return windows.step * max(1, round(wanted / windows.step))


def job_of(
    model: Any,
    cube: xr.Dataset,
    outputs: Sequence[str] | None,
    *,
    passes: int,
    turning: Turning,
    blend: int | None = None,
) -> Job:
    """Find out what models give and take, and whether cube and options fit.

    Parameters
    ----------
    model : SeriesModel, PatchModel, or sequence of them
        Several are an ensemble.
    cube : xarray.Dataset
        A cube; nothing is computed.
    outputs : sequence of str or None
        Layers.
    passes : int
        Thinned networks to draw from each model.
    turning : {"none", "flips", "rotations"}
        Test-time augmentation.
    blend : int, optional
        Pixels a side of windows to be averaged in place of exact margins.

    Returns
    -------
    Job
        What is to be done.

    Raises
    ------
    OptionError
        If models or options do not fit each other.
    CubeError
        If the cube lacks a variable that the models take.
    ModelMismatchError
        If the cube does not fit a model.
    """
    models = tuple(model) if isinstance(model, list | tuple) else (model,)
    for member in models:
        if not hasattr(member, "select"):
            raise OptionError(f"model is {member!r}, expected a Model: load it with cubekit.load_model.")
    if not models:
        raise OptionError("model is an empty sequence: give at least one model.")
    selected = [member.select(cube) for member in models]
    facts = [
        (form_of(m), kind_of(m), names_of(m, kind_of(m)), tuple(getattr(m, "ancillary", ()))) for m in models
    ]
    _check_members(facts, [tuple(each["band"].to_numpy().tolist()) for each in selected])
    form, kind, names, ancillary = facts[0]
    if blend is not None and (form != "patches" or blend < 1):
        raise OptionError(f"blend={blend!r}: give a number of pixels, for a model that looks around.")
    windows = _windows(models, selected[0], ancillary, blend) if form == "patches" else None
    _check_averaging(models, windows, passes=passes, turning=turning)
    codings = [
        encoding_of(selected[0][MAIN]),
        *(encoding_of(_ancillary(selected[0], name)) for name in ancillary),
    ]
    rule = Rule(
        models=tuple(ShippedModel(member) for member in models),
        kind=kind,
        count=len(names),
        outputs=check_outputs(outputs, kind),
        codings=tuple(codings),
        windows=windows,
        passes=passes,
        turning=turning,
    )
    table = None if kind == "value" else models[0].card.classes
    units = getattr(models[0], "units", None)
    return Job(cube=selected[0], rule=rule, names=names, table=table, units=units, ancillary=ancillary)


def _check_members(facts: Sequence[tuple[Any, ...]], bands: Sequence[tuple[str, ...]]) -> None:
    """Refuse an ensemble whose members do not take and give the same."""
    for number, (fact, taken) in enumerate(zip(facts, bands, strict=True)):
        if (fact, taken) != (facts[0], bands[0]):
            raise OptionError(
                f"Model {number + 1} of the ensemble takes {taken} and gives {fact[2]}, the first takes "
                f"{bands[0]} and gives {facts[0][2]}: only models of one kind can be averaged."
            )


def _check_averaging(
    models: Sequence[Any], windows: Windows | None, *, passes: int, turning: Turning
) -> None:
    """Refuse averages that would not average anything."""
    if turning != "none" and windows is None:
        raise OptionError(f"turning={turning!r}: a series of one pixel has no orientation. Leave it out.")
    if passes:
        from cubekit.prediction.members import has_dropout

        for member in models:
            if not has_dropout(getattr(member, "network", None)) or not hasattr(member, "card"):
                raise OptionError(f"passes={passes}: the network of {member!r} drops nothing. Leave it out.")


def _windows(
    models: Sequence[Any], cube: xr.Dataset, ancillary: tuple[str, ...], blend: int | None
) -> Windows:
    """Lay windows that suit every member: the widest margin, the coarsest grid."""
    from cubekit.nn.reach import Reach
    from cubekit.prediction.forward import pixel_bytes, reach_of

    lead = [(cube.sizes["time"], cube.sizes["band"])]
    shapes = lead + [tuple(_ancillary(cube, name).shape[:-2]) for name in ancillary]
    reaches = [reach_of(model, shapes) for model in models]
    halos = [reach.halo for reach in reaches]
    halo = None if None in halos else max(halo for halo in halos if halo is not None)
    multiple = int(np.lcm.reduce([reach.multiple for reach in reaches]))
    shape = cube.sizes["y"], cube.sizes["x"]
    taken = None if len(shapes) > 1 else pixel_bytes(models, lead[0], cube[MAIN].dtype.itemsize, multiple)
    return plan_windows(Reach(halo=halo, multiple=multiple), blend=blend, shape=shape, pixel_bytes=taken)


def _ancillary(cube: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable that a model takes beside the main one."""
    if name not in cube or cube[name].dims[-2:] != ("y", "x"):
        known = [str(key) for key, variable in cube.data_vars.items() if variable.dims[-2:] == ("y", "x")]
        raise CubeError(f"The model takes a variable {name!r} (…, y, x). {did_you_mean(name, known)}")
    return cube[name]
