"""The inputs of all rows, made once: a sample archive, a store made from it, and a model trained on that."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cubekit.typing import Array

if TYPE_CHECKING:
    import pystac
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from cubekit.sources.items import Items
    from cubekit.training.bundle import Model

FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
BANDS = (*FINE, *COARSE)
CLOUDS = (3, 8, 9, 10)
"""Scene classes that the catalog's masks "clouds" and "shadows" name, for the peers."""

_TILE = "T33UIA"  # one of the two tiles, so that peers without mosaicking do the same work


@dataclass(frozen=True)
class Inputs:
    """Where the inputs lie."""

    folder: Path

    def make(self, *, size: int, dates: int) -> None:
        """Make what is not there yet."""
        wanted, made = {"size": size, "dates": dates}, self.folder / "made.json"
        if made.exists() and json.loads(made.read_text("utf-8")) == wanted:
            return
        import cubekit as ck
        from cubekit.batching.extract import extract
        from cubekit.testing.archive import write_sample_archive

        print(f"making inputs in {self.folder} (once)", file=sys.stderr)
        archive = write_sample_archive(self.folder / "archive", size=size, dates=dates)
        cube = ck.open_cube(self.items(), self.grid(), bands=BANDS, resampling="bilinear")
        ck.write(cube, self.folder / "cube.zarr", overwrite=True)
        labels = ck.load_labels(archive.labels, self.store(), column="class", inward=20)
        samples = extract(self.store(), labels, limit_per_class=100)
        train, valid, _ = ck.split(samples, by="groups", seed=0)
        ck.fit("tempcnn", train, valid, epochs=1, progress=False).save(self.folder / "model")
        made.write_text(json.dumps(wanted), encoding="utf-8")

    def records(self, count: int | None = None, base: str | None = None) -> list[dict[str, Any]]:
        """Return items of one tile as STAC says them; without those of old baselines, which need a shift."""
        root = base or str(self.folder / "archive")
        features = json.loads((self.folder / "archive" / "items.json").read_text("utf-8"))["features"]
        wanted = [
            item
            for item in features
            if _TILE in item["id"] and item["properties"]["s2:processing_baseline"] >= "04"
        ]
        for item in wanted:
            for asset in item["assets"].values():
                asset["href"] = f"{root}/{asset['href']}"
        return wanted[:count]

    def items(self, count: int | None = None, base: str | None = None) -> "Items":
        """Return the same items as cubekit opens them."""
        import cubekit as ck

        return ck.open_items(self.records(count, base), root=None if base else self.folder / "archive")

    def stac(self, count: int | None = None, base: str | None = None) -> "list[pystac.Item]":
        """Return the same items as peers take them."""
        import pystac

        return [pystac.Item.from_dict(item) for item in self.records(count, base)]

    def grid(self) -> "GeoBox":
        """Return the 10 m grid of the tile."""
        from affine import Affine
        from odc.geo.geobox import GeoBox

        asset = self.records(1)[0]["assets"]["B02"]
        return GeoBox(asset["proj:shape"], Affine(*asset["proj:transform"][:6]), asset["proj:code"])

    def store(self) -> "xr.Dataset":
        """Return the store, lazy: all dates, ten bands, in the layout for series."""
        import cubekit as ck

        return ck.open(self.folder / "cube.zarr")

    def model(self) -> "Model":
        """Return the model: one epoch of training, as the speed does not depend on its quality."""
        import cubekit as ck

        return ck.load_model(self.folder / "model")


def check(values: Array) -> float:
    """Return a number that cases of the same work share: the mean of a sparse sample."""
    return float(values[..., ::7, ::11].astype("float64").mean())
