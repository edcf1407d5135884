"""A year of coarse pixels over the sample landscape, with the fine map of what they hold, and its relief."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cubekit.demo.landscape import sentinel_2_year

ELEVATION = "elevation.tif"


@contextmanager
def coarse_year(
    folder: Path, *, seed: int = 0, size: int = 500, dates: int = 24
) -> Iterator[Mapping[str, object]]:
    """Make the sample archive and an elevation model of its land, and serve the scenes on this machine.

    Parameters
    ----------
    folder : pathlib.Path
        Where it goes; what lies there finished is not made again.
    seed : int, optional
        Seed of landscape and clouds.
    size : int, optional
        Side of a scene in pixels of 10 m.
    dates : int, optional
        Dates in the year.

    Yields
    ------
    mapping
        ``api``, ``bbox``, ``crs``, ``truth``, ``classes``, ``colours``, ``elevation``.
    """
    with sentinel_2_year(folder, seed=seed, size=size, dates=dates) as found:
        path = folder / ELEVATION
        if not path.exists():
            _write_elevation(path, seed=seed, size=size)
        kept = {name: value for name, value in found.items() if name != "labels"}
        yield {**kept, "elevation": str(path)}


def _write_elevation(path: Path, *, seed: int, size: int) -> None:
    """Write the relief that the landscape was invented from, in metres at 10 m."""
    import rasterio

    from cubekit.testing.landscape import build_landscape
    from cubekit.testing.scene import CRS, area_shape, transform

    relief = build_landscape(seed, area_shape(size)).relief
    rows, columns = relief.shape
    part = path.with_name(f".part-{path.name}")
    with rasterio.open(
        part,
        "w",
        driver="GTiff",
        height=rows,
        width=columns,
        count=1,
        dtype="float32",
        crs=CRS,
        transform=transform(10),
        compress="deflate",
    ) as file:
        file.write(relief, 1)
    part.replace(path)
