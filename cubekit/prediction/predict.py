"""A trained model over a whole cube: one Dask task per tile, lazy, or written shard by shard."""

import logging
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.layers import ArrayBlockIdDep

from cubekit.cube.contract import DIMS, MAIN, check_cube
from cubekit.errors import OptionError, check_option
from cubekit.prediction.block import predict_block
from cubekit.prediction.cost import PredictionCost, cost_of
from cubekit.prediction.job import Job, Turning, job_of
from cubekit.prediction.outputs import Output, describe_layer, planes_of
from cubekit.prediction.patches import patch_tiles
from cubekit.prediction.rule import Rule
from cubekit.prediction.shipping import shared_with
from cubekit.prediction.tiling import TILE, objects, tiles
from cubekit.store.view import stored_view

if TYPE_CHECKING:
    from distributed import Client

_LOG = logging.getLogger("cubekit")


def predict(  # noqa: PLR0913
    model: Any,
    cube: xr.Dataset,
    *,
    out: str | PathLike[str] | None = None,
    outputs: Sequence[Output] | None = None,
    tile: int | None = None,
    passes: int = 0,
    turning: Turning = "none",
    blend: int | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: "str | Client | None" = None,
    progress: bool | None = None,
    preview: str | PathLike[str] | None = None,
) -> xr.Dataset:
    """Predict every pixel of a cube.

    Stored integers travel to the tasks and become physical numbers there, a batch or window at a time. The
    map is the same for any chunks, tile, number of workers and scheduler, up to the rounding of floats: a
    scene of few windows is computed by several threads each.

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
        cube's own chunks, joined or cut to about 256, or one window.
    passes : int, optional
        Monte-Carlo dropout: how many networks to draw from those that dropout averages over. Each is drawn
        once for the whole scene. Default: none, the network without dropout.
    turning : {"none", "flips", "rotations"}, optional
        Test-time augmentation: average over 4 mirror images of each window, or over 8 with quarter turns.
    blend : int, optional
        Pixels a side of windows that overlap by half and are averaged with cosine weights, for a model that
        looks around. Default: margins, which are exact, where it is known how far it looks.
    overwrite : bool, optional
        Whether to replace another prediction at `out`; it stays until the new one is whole.
    workers : int, optional
        Tasks at a time, with ``out`` only; threads of one task where there are fewer windows.
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
    job = job_of(model, cube, outputs, passes=passes, turning=turning, blend=blend)
    side = job.side(tile)
    prediction = _lazy(job, side, workers)
    if out is None:
        return prediction
    from cubekit.prediction.follow import Follower
    from cubekit.store.write import write

    chunks = prediction[job.rule.outputs[0]].chunks or ()
    cost = cost_of(job.cube, chunks[-2:], job.rule, workers=workers)
    _LOG.info("predict: %s", cost)
    with shared_with(scheduler, job.rule.models) as who:
        return write(
            prediction,
            out,
            layout=_layout(job, side),
            overwrite=overwrite,
            scheduler=who,
            workers=workers,
            progress=False,
            watch=Follower(prediction, tile=max(cost.side), progress=progress, preview=preview),
        )


def plan_prediction(
    model: Any,
    cube: xr.Dataset,
    *,
    outputs: Sequence[Output] | None = None,
    tile: int | None = None,
    passes: int = 0,
    turning: Turning = "none",
    workers: int | None = None,
) -> PredictionCost:
    """Count what a prediction takes, before it begins.

    Parameters
    ----------
    model : cubekit.training.bundle.Model, or a sequence of them
        As for `predict`.
    cube : xarray.Dataset
        As for `predict`.
    outputs : sequence of str, optional
        As for `predict`.
    tile : int, optional
        As for `predict`.
    passes : int, optional
        As for `predict`.
    turning : {"none", "flips", "rotations"}, optional
        As for `predict`.
    workers : int, optional
        Tasks at a time on this machine. Default: one for each core.

    Returns
    -------
    PredictionCost
        Tiles, margin, how much more the network computes because of it, and peak memory, which does not
        depend on the size of the scene; ``print`` shows them.

    Raises
    ------
    ModelMismatchError
        If the cube does not fit the model.
    CubeError
        If the dataset is no cube.
    OptionError
        For options that do not fit.
    """
    _check_options(None, tile=tile, passes=passes, turning=turning, workers=None, scheduler=None)
    check_cube(cube)
    job = job_of(model, cube, outputs, passes=passes, turning=turning)
    chunks = next(iter(_lazy(job, job.side(tile)).data_vars.values())).chunks or ()
    return cost_of(job.cube, chunks[-2:], job.rule, workers=workers)


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


def _lazy(job: Job, side: int | None, workers: int | None = None) -> xr.Dataset:
    """Build the lazy prediction."""
    cube, rule = job.cube, job.rule
    packed = _packed(job, side) if rule.windows is None else _tiled(job, side or TILE, workers)
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


def _tiled(job: Job, side: int, workers: int | None) -> da.Array:
    """Return all layers of a model that looks around."""
    sources = []
    for variable in (job.cube[MAIN].transpose(*DIMS), *(job.cube[name] for name in job.ancillary)):
        lazy = variable if variable.chunks else variable.chunk({"y": side, "x": side})
        sources.append(lazy.data)
    return patch_tiles(sources, side, job.rule, workers=workers)


def _packed(job: Job, tile: int | None) -> da.Array:
    """Return all outputs as one lazy array ``(plane, y, x)``: one task per spatial block.

    All outputs of a block come from one task, because the forward pass is what costs. Time and band are
    joined inside the task, whatever their chunks.
    """
    array, rule = job.cube[MAIN].transpose(*DIMS), job.rule
    y, x = (tiles(_own_chunks(array, dim), tile) for dim in ("y", "x"))
    data = _cut_up(array, y, x)
    layers = [_cut_up(job.cube[name], y, x) for name in job.ancillary]
    blocks: da.Array = da.blockwise(  # type: ignore[no-untyped-call]
        predict_block,
        "pyx",
        data,
        "tbyx",
        ArrayBlockIdDep((y, x)),
        "yx",
        rule,
        None,
        *(part for layer in layers for part in (layer, "yx")),
        new_axes={"p": rule.planes},
        concatenate=True,
        align_arrays=False,
        dtype=rule.dtype,
        meta=np.empty((0, 0, 0), dtype=rule.dtype),
        token="predict",  # noqa: S106  (how the layer is called, no secret)
    )
    return blocks


def _cut_up(stored: xr.DataArray, y: tuple[int, ...], x: tuple[int, ...]) -> da.Array:
    """Return blocks of a variable: read from its store by the task that needs them, where it lies in one."""
    view = stored_view(stored.data) if stored.chunks else None
    if view is None:
        data: da.Array = stored.chunk({"y": y, "x": x}).data
        return data
    blocks: da.Array = da.from_array(  # type: ignore[no-untyped-call]
        view,
        (*stored.shape[:-2], y, x),
        name="read-" + tokenize(stored.data.name, y, x),
        inline_array=True,
        fancy=False,
        meta=np.empty((0,) * stored.ndim, stored.dtype),
    )
    return blocks


def _own_chunks(stored: xr.DataArray, dim: str) -> tuple[int, ...]:
    """Return the chunks of a spatial dimension; numbers in memory may be cut anywhere."""
    size = stored.sizes[dim]
    return stored.chunksizes.get(dim) or tuple(min(TILE, size - start) for start in range(0, size, TILE))


def _layout(job: Job, side: int | None) -> dict[str, int | tuple[int, int]]:
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
