"""A trained model over a whole cube: one Dask task per spatial block, lazy, or written block by block."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask.layers import ArrayBlockIdDep

from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of
from cubekit.errors import OptionError, check_option
from cubekit.prediction.block import NODATA, STEPS, BlockRule, Output, planes_of, predict_block
from cubekit.prediction.shipping import ShippedModel
from cubekit.prediction.tiling import TILE, objects, tiles

if TYPE_CHECKING:
    from distributed import Client


def predict(  # noqa: PLR0913
    model: Any,
    cube: xr.Dataset,
    *,
    out: str | PathLike[str] | None = None,
    outputs: Sequence[Output] = ("class", "probability"),
    tile: int | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: "str | Client | None" = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Predict every pixel of a cube with a model of pixel series.

    Stored integers travel to the tasks and become physical numbers there, a batch at a time. The map is the
    same for any chunks, tile, number of workers and scheduler.

    Parameters
    ----------
    model : cubekit.training.bundle.Model
        Trained model; it selects its bands by name and refuses a cube that does not fit.
    cube : xarray.Dataset
        Cube ``(time, band, y, x)``, lazy or not.
    out : path, optional
        Store to write, block by block. Run again after a kill, it goes on; a store made from another model,
        cube, outputs or tile is refused. Default: return lazy arrays, compute nothing.
    outputs : sequence of {"class", "probability", "entropy", "margin"}, optional
        What to return. ``entropy`` is Shannon's, divided by its largest value; ``margin`` is the lead of the
        best class over the second.
    tile : int, optional
        Pixels a side of one task's block. Default: the cube's own chunks, joined or cut to about 256.
    overwrite : bool, optional
        Whether to replace another prediction at `out`; it stays until the new one is whole.
    workers : int, optional
        Tasks at a time, with ``out`` only.
    scheduler : {"threads", "processes"}, address or distributed.Client, optional
        Who computes, with ``out`` only. Default: the active Dask cluster if there is one, else threads.
        Workers on other machines must see this machine's temporary folder, where they find the model.
    progress : bool, optional
        Whether to draw a bar while writing. Default: where standard error is a terminal.

    Returns
    -------
    xarray.Dataset
        On the cube's grid: ``class (y, x)`` uint8 class index with the class table in its attributes,
        ``probability (category, y, x)``, ``entropy (y, x)`` and ``margin (y, x)`` uint8 with ``scale_factor``
        1/250. 255 is nodata: pixels without any observation. Lazy without ``out``, else the opened store.

    Raises
    ------
    ModelMismatchError
        If the cube does not fit the model; lists every difference.
    CubeError
        If the dataset is no cube.
    OptionError
        For an unknown output, a bad tile, or writing options without ``out``.
    StoreError
        If ``out`` cannot be written, or holds something else.
    PredictionError
        While computing, if a block fails; names the block.
    """
    _check_options(outputs, out=out, tile=tile, workers=workers, scheduler=scheduler)
    check_cube(cube)
    if not hasattr(model, "select"):
        raise OptionError(f"model is {model!r}, expected a Model: load it with cubekit.load_model.")
    selected = model.select(cube)
    prediction = _lazy(model, selected, tuple(outputs), tile)
    if out is None:
        return prediction
    from cubekit.store.write import write

    layout = _layout(selected[MAIN], tile)
    return write(
        prediction,
        out,
        layout=layout,
        overwrite=overwrite,
        scheduler=scheduler,
        workers=workers,
        progress=progress,
    )


def _check_options(
    outputs: Sequence[str],
    *,
    out: str | PathLike[str] | None,
    tile: int | None,
    workers: int | None,
    scheduler: "str | Client | None",
) -> None:
    """Raise for options that cannot be meant."""
    if isinstance(outputs, str) or not outputs or len(set(outputs)) != len(outputs):
        raise OptionError(f"outputs={outputs!r}: give a sequence of different names, such as ('class',).")
    for output in outputs:
        check_option("outputs", output, get_args(Output))
    if tile is not None and tile < 1:
        raise OptionError(f"tile={tile!r}: a tile has at least one pixel a side.")
    if out is None and (workers is not None or scheduler is not None):
        raise OptionError(
            f"workers={workers!r}, scheduler={scheduler!r} apply while writing: give out=, "
            "or pass them to .compute() of the lazy result."
        )


def _lazy(model: Any, cube: xr.Dataset, outputs: tuple[Output, ...], tile: int | None) -> xr.Dataset:
    """Build the lazy prediction of a cube whose bands are the model's."""
    table = model.card.classes
    if len(table.names) not in range(2, NODATA):
        raise OptionError(f"The model has {len(table.names)} classes; 2 to {NODATA - 1} fit into a byte.")
    rule = BlockRule(ShippedModel(model), encoding_of(cube[MAIN]), outputs, len(table.names))
    packed = _packed(cube[MAIN], rule, tile)
    variables: dict[str, xr.Variable] = {}
    plane = 0
    for output in outputs:
        count = planes_of(output, rule.classes)
        variables[output] = _variable(output, packed[plane : plane + count], table)
        plane += count
    coords: dict[str, Any] = {name: cube.coords[name] for name in ("y", "x") if name in cube.coords}
    grid_mapping = cube[MAIN].attrs.get(
        "grid_mapping", cube[MAIN].encoding.get("grid_mapping", "spatial_ref")
    )
    coords |= {name: cube.coords[name] for name in (grid_mapping,) if name in cube.coords}
    if "probability" in outputs:
        coords["category"] = xr.Variable("category", np.array(table.names, dtype=object))
    prediction = xr.Dataset(variables, coords, attrs=_provenance(cube, rule.model.token))
    for name in outputs:
        prediction[name].encoding["grid_mapping"] = grid_mapping
    return prediction


def _packed(stored: xr.DataArray, rule: BlockRule, tile: int | None) -> da.Array:
    """Return all outputs as one lazy uint8 array ``(plane, y, x)``: one task per spatial block.

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
        dtype="uint8",
        meta=np.empty((0, 0, 0), dtype="uint8"),
        token="predict",  # noqa: S106  (how the layer is called, no secret)
    )
    return blocks


def _own_chunks(stored: xr.DataArray, dim: str) -> tuple[int, ...]:
    """Return the chunks of a spatial dimension; numbers in memory may be cut anywhere."""
    size = stored.sizes[dim]
    return stored.chunksizes.get(dim) or tuple(min(TILE, size - start) for start in range(0, size, TILE))


def _layout(stored: xr.DataArray, tile: int | None) -> dict[str, int | tuple[int, int]]:
    """Return chunks and shards of the store: a shard is the unit of work, of sharing and of resuming."""
    y, x = (objects(_own_chunks(stored, dim), tile) for dim in ("y", "x"))
    return {"category": (1, -1), "y": y, "x": x}


def _variable(output: Output, planes: da.Array, table: Any) -> xr.Variable:
    """Name and describe one output."""
    nodata = {"_FillValue": np.uint8(NODATA)}
    if output == "class":
        meanings = " ".join(name.replace(" ", "_") for name in table.names)
        attrs = nodata | {
            "long_name": "predicted class",
            "classes": list(table.names),
            "colours": list(table.colours),
            "codes": list(table.codes),
            "flag_values": list(range(len(table.names))),
            "flag_meanings": meanings,
        }
        return xr.Variable(("y", "x"), planes[0], attrs)
    scaled = nodata | {"scale_factor": 1 / STEPS, "add_offset": 0.0, "long_name": _LONG_NAMES[output]}
    if output == "probability":
        return xr.Variable(("category", "y", "x"), planes, scaled)
    return xr.Variable(("y", "x"), planes[0], scaled)


_LONG_NAMES = {
    "probability": "probability of each class",
    "entropy": "Shannon entropy over its maximum (0 sure, 1 undecided)",
    "margin": "probability of the best class minus that of the second",
}


def _provenance(cube: xr.Dataset, digest: str) -> dict[str, Any]:
    """Say what the map was made from."""
    from cubekit import __version__

    kept = {key: cube.attrs[key] for key in ("title", "collection") if key in cube.attrs}
    time = cube.indexes["time"]
    return kept | {
        "model": digest,
        "time_coverage_start": str(time[0].date()),
        "time_coverage_end": str(time[-1].date()),
        "software": f"cubekit {__version__}",
    }
