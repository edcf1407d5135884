"""Commands from scenes to a cube: search, plan, build, append."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cubekit
from cubekit.cli.app import app
from cubekit.cli.options import (
    AuditOption,
    BandsOption,
    BBoxOption,
    CollectionOption,
    CrsOption,
    EveryOption,
    Fill,
    FillOption,
    How,
    HowOption,
    IndexOption,
    Layout,
    MaskOption,
    OnChange,
    OutOption,
    PatternOption,
    ResolutionOption,
    SourceArgument,
    numbers,
    words,
)
from cubekit.errors import (
    OptionError,
)

if TYPE_CHECKING:
    import xarray as xr

    from cubekit.sources.items import Items


@app.command()
def search(
    collection: Annotated[str, typer.Argument(help="Collection, such as sentinel-2-l2a.")],
    *,
    bbox: BBoxOption = None,
    datetime: Annotated[str | None, typer.Option(help="Day, month, year or range: 2023-05/2023-09.")] = None,
    provider: Annotated[str, typer.Option(help="Provider of the catalog.")] = "earth-search",
    url: Annotated[str | None, typer.Option(help="Address of another STAC API.")] = None,
    max_items: Annotated[int | None, typer.Option(help="Stop after so many items.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Save the items here (JSON).")] = None,
) -> None:
    """Find scenes in a STAC API and list them, or save them for *build*."""
    area: Any = numbers(bbox, 4, "--bbox")
    items = cubekit.search(
        collection, bbox=area, datetime=datetime, provider=provider, url=url, max_items=max_items
    )
    print(items)
    if out is not None:
        items.save(out)
        print(f"saved to {out}")


@app.command()
def plan(  # noqa: PLR0913
    source: SourceArgument,
    *,
    pattern: PatternOption = None,
    collection: CollectionOption = None,
    bands: BandsOption = None,
    mask: MaskOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    bbox: BBoxOption = None,
    every: EveryOption = None,
    how: HowOption = How.MEDIAN,
    index: IndexOption = "NDVI",
    fill: FillOption = None,
    memory: Annotated[str | None, typer.Option(help="Budget, such as 8GB; suggests block sizes.")] = None,
    workers: Annotated[int | None, typer.Option(help="How many blocks at a time.")] = None,
    audit: AuditOption = False,
) -> None:
    """Say what *build* with the same options will take, before a pixel is read."""
    items = _open_scenes(source, pattern, collection)
    cube = _open_cube(items, crs=crs, resolution=resolution, bbox=bbox, bands=bands, mask=mask)
    print(cubekit.plan(_reduce(cube, every, how, index, fill), memory=memory, workers=workers))
    if audit:
        print(cubekit.audit_offsets(items))


@app.command()
def build(  # noqa: PLR0913
    source: SourceArgument,
    *,
    out: OutOption,
    pattern: PatternOption = None,
    collection: CollectionOption = None,
    bands: BandsOption = None,
    mask: MaskOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    bbox: BBoxOption = None,
    every: EveryOption = None,
    how: HowOption = How.MEDIAN,
    index: IndexOption = "NDVI",
    fill: FillOption = None,
    layout: Annotated[Layout, typer.Option(help="What the store will be read for.")] = Layout.SERIES,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a finished store once the new one is whole.")
    ] = False,
    audit: AuditOption = False,
    append: Annotated[
        bool, typer.Option("--append", help="Put the dates into the store at --out, if it is finished.")
    ] = False,
) -> None:
    """Build a cube and write it to Zarr; running it again finishes an interrupted one."""
    items = _open_scenes(source, pattern, collection)
    cube = _open_cube(items, crs=crs, resolution=resolution, bbox=bbox, bands=bands, mask=mask)
    if audit:
        from cubekit.cube.audit import record_offsets

        cube = record_offsets(cube, cubekit.audit_offsets(items))
    cube = _reduce(cube, every, how, index, fill)
    if append and _is_finished(out):
        print(cubekit.append(cube, out))
    else:
        print(cubekit.write(cube, out, layout=layout.value, overwrite=overwrite))


@app.command(name="append")
def append_dates(
    source: SourceArgument,
    store: Annotated[Path, typer.Argument(help="A finished store.")],
    *,
    pattern: PatternOption = None,
    collection: CollectionOption = None,
    on_change: Annotated[
        OnChange, typer.Option(help="What to do with dates that the store has from other scenes.")
    ] = OnChange.UPDATE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Put new and reprocessed dates into a store, opened with the options of the store."""
    from cubekit.store.append import plan_append

    items = _open_scenes(source, pattern, collection)
    if dry_run:
        print(plan_append(items, store, on_change=on_change.value))
    else:
        print(cubekit.append(items, store, on_change=on_change.value))


def _is_finished(path: Path) -> bool:
    """Tell whether a finished store lies at a path."""
    from cubekit.store.place import look, place_of

    return look(place_of(path)).state == "complete"


def _open_cube(
    items: "Items",
    *,
    crs: str | None,
    resolution: float | None,
    bbox: str | None,
    bands: str | None,
    mask: str | None,
) -> "xr.Dataset":
    """Open items on the grid that the options describe."""
    area: Any = numbers(bbox, 4, "--bbox")
    target = None
    if crs is not None or resolution is not None or area is not None:
        target = cubekit.grid(crs=crs, resolution=resolution, bbox=area or items.bbox)
    return cubekit.open_cube(items, target, bands=words(bands), mask=mask)


def _reduce(cube: "xr.Dataset", every: str | None, how: How, index: str, fill: Fill | None) -> "xr.Dataset":
    """Make composites and fill gaps where that is asked for."""
    if every is not None:
        cube = cubekit.composite(cube, every=every, how=how.value, index=index)
    return cube if fill is None else cubekit.fill_gaps(cube, how=fill.value)


def _open_scenes(source: Path, pattern: list[str] | None, collection: str | None) -> "Items":
    """Open saved items, or index a folder."""
    if not source.is_dir():
        if pattern:
            raise OptionError(f"--pattern is for a folder of scenes, and {source} is none.")
        return cubekit.open_items(source, collection=collection)
    if not pattern:
        raise OptionError(f"{source} is a folder: say how its files are named with --pattern.")
    return cubekit.open_archive(source, pattern, collection=collection)
