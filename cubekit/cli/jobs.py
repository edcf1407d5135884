"""Commands that run whole jobs."""

from pathlib import Path
from typing import Annotated

import typer

import cubekit
from cubekit.cli.app import app
from cubekit.cli.options import OutOption, SetOption, settings_of


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="A pipeline file, or the name of one that ships.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default runs/NAME.")] = None,
    settings: SetOption = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a cube made from other scenes or settings.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Make sample data and run on them; results in --out, default demo.")
    ] = False,
) -> None:
    """Run a whole job from scenes to a map and its report; run it again to finish an interrupted one."""
    if demo:
        from cubekit.demo import run_demo

        run_demo(out or Path("demo"), pipeline, settings=settings_of(settings or []))
        return
    result = cubekit.run(pipeline, out=out, settings=settings_of(settings or []), overwrite=overwrite)
    print(result.summary())


@app.command()
def demo(
    *,
    out: OutOption = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the sample landscape.")] = 0,
) -> None:
    """Make a sample archive, serve it as a STAC API, and turn it into a land-cover map."""
    from cubekit.demo import run_demo

    run_demo(out, seed=seed)
