"""A trained model over a whole cube: one Dask task per tile, lazy, or written shard by shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask.layers import ArrayBlockIdDep

from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of
from cubekit.errors import CubeError, OptionError, check_option, did_you_mean
from cubekit.prediction.block import predict_block
from cubekit.prediction.model import form_of, kind_of, names_of
from cubekit.prediction.outputs import Output, check_outputs, describe_layer, planes_of
from cubekit.prediction.patches import patch_tiles
from cubekit.prediction.rule import Rule
from cubekit.prediction.shipping import ShippedModel, shared_with
from cubekit.prediction.tiling import TILE, objects, tiles
from cubekit.prediction.windows import Windows, plan_windows

if TYPE_CHECKING:
    from distributed import Client

Turning = Literal["none", "flips", "rotations"]


def predict(  # noqa: PLR0913
    model: Any,
    cube: xr.Dataset,
    *,
    out: str | PathLike[str] | None = None,
    outputs: Sequence[Output] | None = None,
    tile: int | None = None,
    passes: int = 0,
    turning: Turning = "none",
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: "str | Client | None" = None,
    progress: bool | None = None,
    preview: str | PathLike[str] | None = None,
) -> xr.Dataset:
    """Predict every pixel of a cube.

    Stored integers travel to the tasks and become physical numbers there, a batch or window at a time. The
    map is the same for any chunks, tile, number of workers and scheduler.

    A model that looks around gets windows with a margin as wide as its network looks, which makes the map
    equal to that of the whole image at once; where a network looks at everything, windows overlap and are
    averaged with weights that fade towards their edges. At the edges of the scene windows are mirrored as far
    as the network needs sides that divide. Windows without any data are skipped.

    Parameters
    ----------
    model : cubekit.training.bundle.Model, or a sequence of them
        Trained model; it selects its bands by name and refuses a cube that does not fit. Several are an
        ensemble: what they give is averaged. See `cubekit.prediction.model` for what else will do.
    cube : xarray.Dataset
        Cube ``(time, band, y, x)``, lazy or not.
    out : path, optional
        Store to write, shard by shard. Run again after a kill, it goes on; a store made from another model,
        cube, options or tile is refused. Default: return lazy arrays, compute nothing.
    outputs : sequence of str, optional
        Layers: of a model of classes ``class``, ``probability``, ``entropy`` (Shannon's, divided by its
        largest value) and ``margin`` (lead of the best class); of one of fractions ``fractions``, and
        ``class``, ``entropy``, ``margin`` of them; of one of values ``value``, and ``spread`` where several
        predictions are averaged. Default: class and probability; fractions; value.
    tile : int, optional
        Pixels a side of one task's block; rounded to whole windows where the model looks around. Default: the
        cube's own chunks, joined or cut to about 256, or about 512 for windows.
    passes : int, optional
        Monte-Carlo dropout: how many networks to draw from those that dropout averages over. Each is drawn
        once for the whole scene. Default: none, the network without dropout.
    turning : {"none", "flips", "rotations"}, optional
        Test-time augmentation: average over 4 mirror images of each window, or over 8 with quarter turns.
    overwrite : bool, optional
        Whether to replace another prediction at `out`; it stays until the new one is whole.
    workers : int, optional
        Tasks at a time, with ``out`` only.
    scheduler : {"threads", "processes"}, address or distributed.Client, optional
        Who computes, with ``out`` only. Default: the active Dask cluster if there is one, else threads. The
        model is handed to a cluster's workers; `out` and the cube must lie where they can be reached.
    progress : bool, optional
        Whether to draw a bar while writing. Default: where standard error is a terminal.
    preview : path, optional
        Picture (.png) of the map, refreshed while it is written, with ``out`` only.

    Returns
    -------
    xarray.Dataset
        On the cube's grid: ``class (y, x)`` uint8 class index with the class table in its attributes;
        ``probability`` and ``fractions (category, y, x)``, ``entropy (y, x)`` and ``margin (y, x)`` uint8
        with ``scale_factor`` 1/250, nodata 255; ``value`` and ``spread`` ``(y, x)``, or ``(band, y, x)`` of
        several, float32, nodata NaN. Nodata are pixels without any observation, and those of which the model
        gives nothing finite. Lazy without ``out``, else the opened store.

    Raises
    ------
    ModelMismatchError
        If the cube does not fit the model; lists every difference.
    CubeError
        If the dataset is no cube.
    OptionError
        For an unknown output, a bad tile, or options that do not fit the model or each other.
    StoreError
        If ``out`` cannot be written, or holds something else.
    PredictionError
        While computing, if a block fails; names the block.
    """
    _check_options(out, tile=tile, passes=passes, turning=turning, workers=workers, scheduler=scheduler)
    if out is None and preview is not None:
        raise OptionError(f"preview={str(preview)!r} is drawn while a map is written: give out=.")
    check_cube(cube)
    job = _job(model, cube, outputs, passes=passes, turning=turning)
    side = job.side(tile)
    prediction = _lazy(job, side)
    if out is None:
        return prediction
    from cubekit.prediction.follow import Follower
    from cubekit.store.write import write

    with shared_with(scheduler, job.rule.models):
        return write(
            prediction,
            out,
            layout=_layout(job, side),
            overwrite=overwrite,
            scheduler=scheduler,
            workers=workers,
            progress=False,
            watch=Follower(prediction, tile=side or TILE, progress=progress, preview=preview),
        )


def _check_options(
    out: str | PathLike[str] | None,
    *,
    tile: int | None,
    passes: int,
    turning: str,
    workers: int | None,
    scheduler: "str | Client | None",
) -> None:
    """Raise for options that cannot be meant."""
    if tile is not None and tile < 1:
        raise OptionError(f"tile={tile!r}: a tile has at least one pixel a side.")
    if passes < 0:
        raise OptionError(f"passes={passes!r}: give a number of networks to draw, or 0.")
    check_option("turning", turning, get_args(Turning))
    if out is None and (workers is not None or scheduler is not None):
        raise OptionError(
            f"workers={workers!r}, scheduler={scheduler!r} apply while writing: give out=, "
            "or pass them to .compute() of the lazy result."
        )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A cube that fits, and what is to be done with it."""

    cube: xr.Dataset
    rule: Rule
    names: tuple[str, ...]
    table: Any
    units: str | None
    ancillary: tuple[str, ...]

    def side(self, tile: int | None) -> int | None:
        """Return the side of a tile; None where the cube's own chunks decide."""
        windows = self.rule.windows
        if windows is None:
            return tile
        wanted = tile or (windows.step if not windows.blended else 2 * TILE)
        return windows.step * max(1, round(wanted / windows.step))


def _job(
    model: Any, cube: xr.Dataset, outputs: Sequence[str] | None, *, passes: int, turning: Turning
) -> _Job:
    """Find out what the models give and take, and whether the cube and the options fit."""
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
    windows = _windows(models, selected[0], ancillary) if form == "patches" else None
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
    return _Job(cube=selected[0], rule=rule, names=names, table=table, units=units, ancillary=ancillary)


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


def _windows(models: Sequence[Any], cube: xr.Dataset, ancillary: tuple[str, ...]) -> Windows:
    """Lay windows that suit every member: the widest margin, the coarsest grid."""
    from cubekit.nn.reach import Reach
    from cubekit.prediction.forward import reach_of

    lead = [(cube.sizes["time"], cube.sizes["band"])]
    shapes = lead + [tuple(_ancillary(cube, name).shape[:-2]) for name in ancillary]
    reaches = [reach_of(model, shapes) for model in models]
    halos = [reach.halo for reach in reaches]
    halo = None if None in halos else max(halo for halo in halos if halo is not None)
    multiple = int(np.lcm.reduce([reach.multiple for reach in reaches]))
    return plan_windows(Reach(halo=halo, multiple=multiple))


def _ancillary(cube: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable that a model takes beside the main one."""
    if name not in cube or cube[name].dims[-2:] != ("y", "x"):
        known = [str(key) for key, variable in cube.data_vars.items() if variable.dims[-2:] == ("y", "x")]
        raise CubeError(f"The model takes a variable {name!r} (…, y, x). {did_you_mean(name, known)}")
    return cube[name]


def _lazy(job: _Job, side: int | None) -> xr.Dataset:
    """Build the lazy prediction."""
    cube, rule = job.cube, job.rule
    packed = _packed(cube[MAIN], rule, side) if rule.windows is None else _tiled(job, side or TILE)
    variables: dict[str, xr.Variable] = {}
    plane = 0
    for output in rule.outputs:
        count = planes_of(output, rule.count)
        variables[output] = describe_layer(output, packed[plane : plane + count], job.table, job.units)
        plane += count
    coords: dict[str, Any] = {name: cube.coords[name] for name in ("y", "x") if name in cube.coords}
    grid_mapping = cube[MAIN].attrs.get(
        "grid_mapping", cube[MAIN].encoding.get("grid_mapping", "spatial_ref")
    )
    coords |= {name: cube.coords[name] for name in (grid_mapping,) if name in cube.coords}
    for dim in {"category", "band"} & {dim for variable in variables.values() for dim in variable.dims}:
        coords[dim] = xr.Variable(dim, np.array(job.names, dtype=object))
    prediction = xr.Dataset(variables, coords, attrs=_provenance(cube, rule))
    for name in rule.outputs:
        prediction[name].encoding["grid_mapping"] = grid_mapping
    return prediction


def _tiled(job: _Job, side: int) -> da.Array:
    """Return all layers of a model that looks around."""
    sources = []
    for variable in (job.cube[MAIN].transpose(*DIMS), *(job.cube[name] for name in job.ancillary)):
        lazy = variable if variable.chunks else variable.chunk({"y": side, "x": side})
        sources.append(lazy.data)
    return patch_tiles(sources, side, job.rule)


def _packed(stored: xr.DataArray, rule: Rule, tile: int | None) -> da.Array:
    """Return all outputs as one lazy array ``(plane, y, x)``: one task per spatial block.

    All outputs of a block come from one task, because the forward pass is what costs. Time and band are
    joined inside the task, whatever their chunks.
    """
    array = stored.transpose(*DIMS)
    y, x = (tiles(_own_chunks(array, dim), tile) for dim in ("y", "x"))
    data = array.chunk({"y": y, "x": x}).data
    blocks: da.Array = da.blockwise(  # type: ignore[no-untyped-call]
        predict_block,
        "pyx",
        data,
        "tbyx",
        ArrayBlockIdDep((y, x)),
        "yx",
        rule,
        None,
        new_axes={"p": rule.planes},
        concatenate=True,
        align_arrays=False,
        dtype=rule.dtype,
        meta=np.empty((0, 0, 0), dtype=rule.dtype),
        token="predict",  # noqa: S106  (how the layer is called, no secret)
    )
    return blocks


def _own_chunks(stored: xr.DataArray, dim: str) -> tuple[int, ...]:
    """Return the chunks of a spatial dimension; numbers in memory may be cut anywhere."""
    size = stored.sizes[dim]
    return stored.chunksizes.get(dim) or tuple(min(TILE, size - start) for start in range(0, size, TILE))


def _layout(job: _Job, side: int | None) -> dict[str, int | tuple[int, int]]:
    """Return chunks and shards of the store: a shard is the unit of work, of sharing and of resuming."""
    stored = job.cube[MAIN]
    if side is not None and job.rule.windows is not None:
        y, x = (objects(_cut(stored.sizes[dim], side), side) for dim in ("y", "x"))
    else:
        y, x = (objects(_own_chunks(stored, dim), side) for dim in ("y", "x"))
    return {"category": (1, -1), "band": (1, -1), "y": y, "x": x}


def _cut(size: int, side: int) -> tuple[int, ...]:
    return tuple(min(side, size - start) for start in range(0, size, side))


def _provenance(cube: xr.Dataset, rule: Rule) -> dict[str, Any]:
    """Say what the map was made from."""
    from cubekit import __version__

    kept = {key: cube.attrs[key] for key in ("title", "collection") if key in cube.attrs}
    time = cube.indexes["time"]
    averaged = {"passes": rule.passes, "turning": rule.turning, "ensemble": len(rule.models)}
    plain = {"passes": 0, "turning": "none", "ensemble": 1}
    return (
        kept
        | {"model": rule.token}
        | {key: value for key, value in averaged.items() if value != plain[key]}
        | {
            "time_coverage_start": str(time[0].date()),
            "time_coverage_end": str(time[-1].date()),
            "software": f"cubekit {__version__}",
        }
    )
