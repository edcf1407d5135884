"""The steps of a fusion job: pairs, their parts, trained networks, predicted scenes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cubekit
from cubekit.batching.pair_splits import PairSplit, split_pairs
from cubekit.batching.pairs import Pairs, open_pairs
from cubekit.cube.contract import MAIN
from cubekit.errors import OptionError, PipelineError
from cubekit.nn.registry import describe
from cubekit.pipeline.fuse.spec import Data, FusePipeline, FuseTrain, Scenes
from cubekit.pipeline.scenes import build_cube
from cubekit.pipeline.training import train_into
from cubekit.prediction.fuse import fuse_pair
from cubekit.tasks.examples import Examples
from cubekit.tasks.fusion_recipes import PLAIN, RECIPES
from cubekit.training.bundle import Model
from cubekit.training.checks import check_network

log = logging.getLogger("cubekit")

SIDES = (256, 128, 64)
"""What the sides of SwinSTFM's images divide by; the largest that a patch holds is taken."""


def check_inputs(spec: FusePipeline) -> None:
    """Raise for what would only be missed once cubes are built.

    Parameters
    ----------
    spec : FusePipeline
        The job.

    Raises
    ------
    PipelineError
        If files are missing, or settings are of no network of the job.
    UnknownNameError
        If a network is not known.
    OptionError
        If a network is for another task.
    """
    for name in contestants(spec):
        check_network(name, spec.train.arguments.get(name, {}), task="fuse", form="image")
    if strange := sorted({*spec.train.arguments, *spec.train.epochs_of} - set(contestants(spec))):
        raise PipelineError(f"Key 'train': {', '.join(strange)} is no network of this job.")
    for key, value in (("root", spec.data.root), ("fine", spec.data.fine), ("coarse", spec.data.coarse)):
        if isinstance(value, str) and "://" not in value and not Path(value).exists():
            raise PipelineError(
                f"Key 'data.{key}': there is nothing at {value}. Relative paths start at {Path.cwd()}."
            )


def contestants(spec: FusePipeline) -> tuple[str, ...]:
    """List the networks of a comparison.

    Parameters
    ----------
    spec : FusePipeline
        The job.

    Returns
    -------
    tuple of str
        Each once; the one that a run trains comes first.
    """
    return tuple(dict.fromkeys((spec.train.network, *spec.train.networks)))


def open_parts(spec: FusePipeline, folder: Path, *, overwrite: bool) -> PairSplit:
    """Open the pairs, scale them, and part them by date.

    Parameters
    ----------
    spec : FusePipeline
        The job.
    folder : pathlib.Path
        For cubes that are made from scenes.
    overwrite : bool
        Whether to replace cubes made from other scenes.

    Returns
    -------
    PairSplit
        Lazy, in reflectance; harmonised, where asked for, by lines of the training dates.

    Raises
    ------
    CubekitError
        From any step.
    """
    data, how = spec.data, spec.protocol
    pairs = _opened(data, folder, overwrite=overwrite)
    if data.set is None:
        pairs = pairs.normalised(data.scale, coarse_scale=data.coarse_scale)
    split = split_pairs(pairs, how.name, train=how.train, valid=how.valid, test=how.test)
    if data.harmonise:
        dates = sorted({date for span in split.train.spans for date in span})
        split = split_pairs(
            pairs.harmonised(dates), how.name, train=how.train, valid=how.valid, test=how.test
        )
    log.info("%r, bands %s", split, ", ".join(pairs.bands))
    return split


def _opened(data: Data, folder: Path, *, overwrite: bool) -> Pairs:
    if data.set is not None:
        from cubekit.batching.fusion_set import open_fusion_set

        return open_fusion_set(data.set, str(data.root), tolerance=data.tolerance, steps=data.steps)
    cubes = []
    for name in ("fine", "coarse"):
        given: Any = getattr(data, name)
        if isinstance(given, Scenes):
            given = build_cube(given, folder / f"{name}.zarr", overwrite=overwrite)
        cubes.append(given)
    return open_pairs(
        cubes[0],
        cubes[1],
        tolerance=data.tolerance,
        bands=data.bands,
        steps=data.steps,
        resampling=data.resampling,
    )


def examples_of(pairs: Pairs, train: FuseTrain) -> Examples | None:
    """Cut pairs into training examples.

    Parameters
    ----------
    pairs : Pairs
        Of one part of the split.
    train : FuseTrain
        Tells size and stride of the patches.

    Returns
    -------
    Examples or None
        In memory; None where there are no pairs.

    Raises
    ------
    OptionError
        If no patch is free of gaps.
    """
    if not len(pairs):
        return None
    found = pairs.patches(train.patch, train.stride)
    if not len(found):
        raise OptionError(
            f"No patch of {train.patch} pixels is free of gaps ({found.dropped} are not): lower train.patch."
        )
    return Examples(
        arrays=found.arrays,
        bands=found.bands,
        crs=found.crs,
        resolution=found.resolution,
        extent=found.extent,
    )


def settings_of(name: str, train: FuseTrain) -> dict[str, Any]:
    """Collect the arguments of :func:`cubekit.fit` for one network.

    Parameters
    ----------
    name : str
        Of the network.
    train : FuseTrain
        What the file says; the rest is as published.

    Returns
    -------
    dict
        Keyword arguments.
    """
    shared = train.model_dump(
        include={
            *("learning_rate", "schedule", "patience", "pretrain", "valid_every", "devices", "threads"),
            *("log", "seed", "precision"),
        }
    )
    arguments = dict(train.arguments.get(name, {}))
    if "side" in describe(name).arguments:
        arguments.setdefault("side", next((side for side in SIDES if side <= train.patch), SIDES[-1]))
    return shared | {
        "epochs": train.epochs_of.get(name, train.epochs),
        "batch": train.batch or RECIPES.get(name, PLAIN).batch,
        "arguments": arguments,
    }


def train(
    name: str, spec: FusePipeline, parts: tuple[Examples, Examples | None], folder: Path
) -> tuple[Model, float]:
    """Train one network, or reuse one made from the same samples and settings.

    Parameters
    ----------
    name : str
        Of the network.
    spec : FusePipeline
        The job.
    parts : tuple of Examples
        To train, and to validate or None.
    folder : pathlib.Path
        For model, metrics and logs.

    Returns
    -------
    tuple
        Model, and the seconds of its training.

    Raises
    ------
    CubekitError
        From training.
    """
    settings = settings_of(name, spec.train)
    settings["batch"] = min(settings["batch"], len(parts[0]))
    return train_into(folder, name, parts, settings)


def predict(model: Model, spec: FusePipeline, pairs: Pairs, path: Path) -> list[xr.DataArray]:
    """Predict whole scenes, into a store where they have a grid.

    Parameters
    ----------
    model : Model
        Trained.
    spec : FusePipeline
        The job.
    pairs : Pairs
        Whose second dates are predicted.
    path : pathlib.Path
        Of the store; replaced. Its attributes ``t1`` and ``t2`` list the dates of each pair.

    Returns
    -------
    list of xarray.DataArray
        ``(band, y, x)`` of each pair, lazy from the store, or in memory.

    Raises
    ------
    CubekitError
        From prediction or writing.
    """
    images = [
        fuse_pair(model, pair, tile=spec.predict.tile, window=spec.predict.window, seed=spec.train.seed)
        for pair in pairs
    ]
    if pairs.grid is None:
        return [image.compute() for image in images]
    when = np.array([end for _, end in pairs.spans], dtype="datetime64[ns]")
    numbers = xr.Variable("time", np.arange(len(images)))
    series = xr.concat(images, numbers if len(set(when)) < len(when) else xr.Variable("time", when))
    series.attrs["_FillValue"] = np.float32(np.nan)
    dates = {name: [str(span[end]) for span in pairs.spans] for end, name in enumerate(("t1", "t2"))}
    cube = series.to_dataset(name=MAIN).assign_attrs(dates)
    written = cubekit.write(cube, path, layout="maps", overwrite=True, progress=False)
    return [written[MAIN][number] for number in range(len(images))]
