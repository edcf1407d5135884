"""Landsat and MODIS pairs that the studies of fusion share: the same numbers for networks and baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from cubekit.batching.fusion_set import open_fusion_set
from cubekit.batching.pairs import Pairs
from cubekit.cube.contract import MAIN, to_physical
from cubekit.cube.stack import open_stack
from cubekit.sources.fusion_sets import FusionSet

LANDSAT_MODIS_2016 = FusionSet(
    name="fusion_landsat_modis_2016",
    fine="L_{date:%Y_%j}.tif",
    coarse="M_{date:%Y_%j}-bilinear.tif",
    fine_folder="",
    coarse_folder="",
    bands=("b1", "b2", "nir", "b4"),
    scale=50_000.0,  # as the USGS codes Landsat 8 at Level 1: reflectance = 2e-5 * number - 0.1
    offset=-0.1,
    coarse_scale=10_000.0,
)
KRANJ_2020 = FusionSet(
    name="fusion_landsat_modis_kranj_2020",
    fine="landsat_filled_{date:%Y%j}_*.tif",
    coarse="modis_filled_{date:%Y%j}_*.tif",
    fine_folder="",
    coarse_folder="",
    bands=("blue", "green", "red", "nir", "swir16", "swir22"),
    coarse_scale=1.0,
)


@dataclass(frozen=True, kw_only=True)
class RealSet:
    """A set of real pairs, and how its sensors come together."""

    layout: FusionSet
    harmonised: bool = False
    """Whether the coarse images are put on their line to the fine sensor, band by band."""

    def open(self, root: Path) -> Pairs:
        """Open all pairs as the files have them, reflectance."""
        return open_fusion_set(self.layout, root / self.layout.name)

    def cubes(self, root: Path) -> tuple[xr.Dataset, xr.Dataset]:
        """Open the fine and the coarse cube with all dates, also those without a partner; reflectance."""
        layout = self.layout
        files = layout.files(root / layout.name)
        fine = open_stack(files.fine, layout.bands, scale=layout.scale, offset=layout.offset)
        scale = layout.scale if layout.coarse_scale is None else layout.coarse_scale
        coarse = open_stack(files.coarse, layout.bands, scale=scale, grid=fine[MAIN])
        return fine.assign({MAIN: to_physical(fine[MAIN])}), coarse.assign({MAIN: to_physical(coarse[MAIN])})

    def ready(self, root: Path, known: np.datetime64 | None = None) -> Pairs:
        """Open all pairs as they are learned from, with lines of the dates up to the last known one."""
        pairs = self.open(root)
        if self.harmonised:
            last = pairs.spans[-1][0] if known is None else known
            pairs = pairs.harmonised(pairs.dates[pairs.dates <= last])
        return pairs.normalised(1)


SETS: Mapping[str, RealSet] = {
    "2016": RealSet(layout=LANDSAT_MODIS_2016, harmonised=True),
    "kranj": RealSet(layout=KRANJ_2020),
}
"""Short name to set."""
