"""Commands about stores: what is in them, whether it is whole, where it is from."""

from pathlib import Path
from typing import Annotated, Any

import typer

import cubekit
from cubekit.cli.app import app
from cubekit.cli.options import Layout, OutOption, numbers
from cubekit.errors import (
    IncompleteStoreError,
    SourceError,
)


@app.command()
def info(path: Annotated[Path, typer.Argument(help="A store, a saved model, or saved items.")]) -> None:
    """Say what a store, model or item file holds."""
    if (path / "model.json").is_file():
        from cubekit.training.card import describe_card

        print(describe_card(cubekit.load_model(path).card))
    elif path.is_dir():
        try:
            print(cubekit.open(path))
        except IncompleteStoreError as error:
            print(cubekit.open(path, allow_incomplete=True))
            print(f"\nNot a finished store of cubekit: {error}")
    elif not path.exists():
        raise SourceError(f"There is nothing at {path}.")
    else:
        print(cubekit.open_items(path))


@app.command()
def look(
    store: Annotated[Path, typer.Argument(help="A store made by *build*.")],
    *,
    out: OutOption,
    point: Annotated[
        str | None, typer.Option(help="Pixel whose series is drawn; default the middle.", metavar="LON,LAT")
    ] = None,
) -> None:
    """Draw a cube: one date, many dates, what was observed when, and the series of one pixel."""
    from cubekit.look.folder import look as draw

    place: Any = numbers(point, 2, "--point")
    for path in draw(cubekit.open(store), out, point=place, crs="EPSG:4326"):
        print(f"wrote {path}")


@app.command()
def rechunk(
    source: Annotated[str, typer.Argument(help="A Zarr store, its address, or a NetCDF file.")],
    *,
    out: Annotated[str, typer.Option(help="Folder or address of the new store.")],
    layout: Annotated[Layout, typer.Option(help="What the new store will be read for.")] = Layout.SERIES,
    memory: Annotated[str, typer.Option(help="What all workers together may hold.")] = "2GB",
    overwrite: Annotated[
        bool, typer.Option(help="Replace a finished store once the new one is whole.")
    ] = False,
) -> None:
    """Copy a store into another layout in bounded memory; running it again finishes an interrupted one."""
    print(cubekit.plan_rechunk(source, layout.value, memory=memory))
    print(cubekit.rechunk(source, out, layout=layout.value, memory=memory, overwrite=overwrite))


@app.command()
def verify(store: Annotated[Path, typer.Argument(help="A Zarr store.")]) -> None:
    """Read every chunk of a store and name the missing and damaged ones."""
    report = cubekit.verify(store)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def repair(
    store: Annotated[Path, typer.Argument(help="A Zarr store.")],
    *,
    accept_changed: Annotated[
        bool, typer.Option(help="Where scenes give other pixels than before, take those.")
    ] = False,
) -> None:
    """Read again, from its scenes, what is missing or damaged in a store; the rest is left alone."""
    report = cubekit.repair(store, accept_changed=accept_changed)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def why(
    store: Annotated[Path, typer.Argument(help="A Zarr store.")],
    *,
    x: Annotated[float, typer.Option(help="Place, in the CRS of the store.")],
    y: Annotated[float, typer.Option(help="Place, in the CRS of the store.")],
    time: Annotated[str | None, typer.Option(help="Date, such as 2023-07-14 or 2023-07.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of --x and --y, such as EPSG:4326.")] = None,
) -> None:
    """Say where a pixel is from: which scene, which mask, which offset."""
    print(cubekit.why(store, x=x, y=y, time=time, crs=crs))


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A Zarr store.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Compare two stores: grid, bands, dates, options, pixels; exit code 1 where they differ."""
    report = cubekit.diff(a, b)
    print(report)
    if not report.equal:
        raise typer.Exit(1)
