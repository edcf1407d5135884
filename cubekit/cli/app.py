"""The program itself: its name, its version, and where messages go."""

import logging
import sys
from typing import Annotated, Any

import typer

import cubekit
from cubekit.progress import silence

app = typer.Typer(
    name="cubekit",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From satellite archives to maps: cubes, training, prediction, exports.\n\n"
    "Start with **cubekit demo**; then look at the pipeline file it ran.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _ToStandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is now, not to what it was when the handler was made."""

    @property
    def stream(self) -> Any:
        """Return standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        """Leave things as they are; the base class sets what it was given."""


def _version(wanted: bool) -> None:  # noqa: FBT001
    """Print the version and stop."""
    if wanted:
        print(f"cubekit {cubekit.__version__}")
        raise typer.Exit


@app.callback()
def common(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; only results, and what went wrong.")
    ] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up messages before any command runs."""
    logger = logging.getLogger("cubekit")
    handler = _ToStandardError()
    handler.setFormatter(logging.Formatter("==> %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if debug else logging.INFO)
    silence(quiet)
