"""From satellite archives to maps: lazy cubes, resumable Zarr stores, torch models, tiled Dask prediction.

The names below load on first use, so that ``import cubekit`` stays fast and needs no torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import lazy_loader

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cubekit.batching.abundance import read_abundance
    from cubekit.batching.augment import Augmentation
    from cubekit.batching.balance import split_balanced
    from cubekit.batching.earth_engine import read_pixel_months
    from cubekit.batching.folds import folds
    from cubekit.batching.fusion_set import open_fusion_set
    from cubekit.batching.normalise_fit import fit_normalisation
    from cubekit.batching.pair_splits import split_pairs
    from cubekit.batching.pairs import open_pairs
    from cubekit.batching.patches import PatchPlan
    from cubekit.batching.pixels import PixelPlan
    from cubekit.batching.series import read_series
    from cubekit.batching.split import plan_split, split
    from cubekit.batching.split_record import load_split
    from cubekit.batching.tiles import read_tiles
    from cubekit.batching.torch import batches
    from cubekit.batching.torch.years import year_batches
    from cubekit.batching.years import split_years
    from cubekit.catalog import open_catalog
    from cubekit.cube.ancillary import add_ancillary
    from cubekit.cube.audit import audit_offsets
    from cubekit.cube.composite import composite
    from cubekit.cube.cost import plan
    from cubekit.cube.eager import load
    from cubekit.cube.ecology import vegetation_index
    from cubekit.cube.fill import fill_gaps
    from cubekit.cube.indices import add_indices
    from cubekit.cube.load import open_cube
    from cubekit.cube.status import read_status
    from cubekit.cube.yearly import open_yearly
    from cubekit.errors import CubekitError
    from cubekit.evaluation.fusion_baselines import predict_baseline
    from cubekit.evaluation.fusion_scores import assess_fusion
    from cubekit.exports.export import export
    from cubekit.grids import grid
    from cubekit.labels import load_fractions, load_labels
    from cubekit.look.coverage import coverage_calendar
    from cubekit.look.pictures import quicklook, time_strip
    from cubekit.look.point import point_series
    from cubekit.look.sample import valid_share
    from cubekit.pipeline.compare import compare
    from cubekit.pipeline.runner import compare_pipeline, run
    from cubekit.prediction.attention import date_attention
    from cubekit.prediction.fuse import fuse_pair, fuse_series
    from cubekit.prediction.merge import merge_maps
    from cubekit.prediction.predict import plan_prediction, predict
    from cubekit.prediction.rollout import forecast
    from cubekit.prediction.smooth import smooth
    from cubekit.prediction.table import predict_table
    from cubekit.sources.archive import open_archive
    from cubekit.sources.items import open_items
    from cubekit.sources.stac import search
    from cubekit.store.append import append
    from cubekit.store.compare import diff
    from cubekit.store.open import open_store as open
    from cubekit.store.overviews import add_overviews
    from cubekit.store.rechunk import plan_rechunk, rechunk
    from cubekit.store.repair import repair
    from cubekit.store.verify import verify
    from cubekit.store.why import why
    from cubekit.store.write import write
    from cubekit.training.bundle import load_model
    from cubekit.training.fit import fit

_load, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batching.normalise_fit": ["fit_normalisation"],
        "batching.fusion_set": ["open_fusion_set"],
        "batching.pair_splits": ["split_pairs"],
        "batching.pairs": ["open_pairs"],
        "batching.augment": ["Augmentation"],
        "batching.earth_engine": ["read_pixel_months"],
        "batching.abundance": ["read_abundance"],
        "batching.balance": ["split_balanced"],
        "batching.folds": ["folds"],
        "batching.patches": ["PatchPlan"],
        "batching.pixels": ["PixelPlan"],
        "batching.series": ["read_series"],
        "batching.split": ["plan_split", "split"],
        "batching.split_record": ["load_split"],
        "batching.tiles": ["read_tiles"],
        "batching.torch": ["batches"],
        "batching.torch.years": ["year_batches"],
        "batching.years": ["split_years"],
        "catalog": ["open_catalog"],
        "cube.ancillary": ["add_ancillary"],
        "cube.audit": ["audit_offsets"],
        "cube.composite": ["composite"],
        "cube.cost": ["plan"],
        "cube.ecology": ["vegetation_index"],
        "cube.eager": ["load"],
        "cube.fill": ["fill_gaps"],
        "cube.indices": ["add_indices"],
        "cube.load": ["open_cube"],
        "cube.status": ["read_status"],
        "cube.yearly": ["open_yearly"],
        "errors": ["CubekitError"],
        "evaluation.fusion_baselines": ["predict_baseline"],
        "evaluation.fusion_scores": ["assess_fusion"],
        "exports.export": ["export"],
        "grids": ["grid"],
        "labels": ["load_fractions", "load_labels"],
        "look.coverage": ["coverage_calendar"],
        "look.pictures": ["quicklook", "time_strip"],
        "look.point": ["point_series"],
        "look.sample": ["valid_share"],
        "pipeline.compare": ["compare"],
        "prediction.fuse": ["fuse_pair", "fuse_series"],
        "pipeline.runner": ["compare_pipeline", "run"],
        "prediction.predict": ["plan_prediction", "predict"],
        "prediction.rollout": ["forecast"],
        "prediction.merge": ["merge_maps"],
        "prediction.attention": ["date_attention"],
        "prediction.smooth": ["smooth"],
        "prediction.table": ["predict_table"],
        "sources.archive": ["open_archive"],
        "sources.items": ["open_items"],
        "sources.stac": ["search"],
        "store.append": ["append"],
        "store.compare": ["diff"],
        "store.open": ["open_store"],
        "store.repair": ["repair"],
        "store.overviews": ["add_overviews"],
        "store.rechunk": ["plan_rechunk", "rechunk"],
        "store.verify": ["verify"],
        "store.why": ["why"],
        "store.write": ["write"],
        "training.bundle": ["load_model"],
        "training.fit": ["fit"],
    },
)

__all__ = [
    "Augmentation",
    "CubekitError",
    "PatchPlan",
    "PixelPlan",
    "add_ancillary",
    "add_indices",
    "add_overviews",
    "append",
    "assess_fusion",
    "audit_offsets",
    "batches",
    "compare",
    "compare_pipeline",
    "composite",
    "coverage_calendar",
    "date_attention",
    "diff",
    "export",
    "fill_gaps",
    "fit",
    "fit_normalisation",
    "folds",
    "forecast",
    "fuse_pair",
    "fuse_series",
    "grid",
    "load",
    "load_fractions",
    "load_labels",
    "load_model",
    "load_split",
    "merge_maps",
    "open",
    "open_archive",
    "open_catalog",
    "open_cube",
    "open_fusion_set",
    "open_items",
    "open_pairs",
    "open_yearly",
    "plan",
    "plan_prediction",
    "plan_rechunk",
    "plan_split",
    "point_series",
    "predict",
    "predict_baseline",
    "predict_table",
    "quicklook",
    "read_abundance",
    "read_pixel_months",
    "read_series",
    "read_status",
    "read_tiles",
    "rechunk",
    "repair",
    "run",
    "search",
    "smooth",
    "split",
    "split_balanced",
    "split_pairs",
    "split_years",
    "time_strip",
    "valid_share",
    "vegetation_index",
    "verify",
    "why",
    "write",
    "year_batches",
]


_LEARNING = {"torch", "lightning", "torchmetrics", "safetensors", "sklearn"}


def __getattr__(name: str) -> object:
    """Load a public name on first use; ``open`` is the store's ``open_store``."""
    try:
        found = _load("open_store" if name == "open" else name)
    except ModuleNotFoundError as error:
        if error.name not in _LEARNING:
            raise
        from cubekit.errors import MissingDependencyError

        raise MissingDependencyError(
            f"cubekit.{name} needs {error.name}: pip install 'cubekit[torch]'."
        ) from error
    _register_accessor()
    return found


def _register_accessor() -> None:
    """Give datasets ``.ck`` as soon as there can be datasets; xarray alone takes longer than all of this."""
    if "xarray" in sys.modules:
        import_module("cubekit.look.accessor")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)


_register_accessor()
