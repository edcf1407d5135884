"""The command line: each command is a few lines over the public functions.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from cubekit.cli.app import app
from cubekit.errors import CubekitError, GridError, OptionError, PipelineError, UnknownNameError
from cubekit.progress import silence

_COMMANDS = ("scenes", "stores", "models", "fractions", "veg", "jobs")

for _commands in _COMMANDS:  # loading them registers theirs, in this order
    import_module(f"cubekit.cli.{_commands}")

USAGE_ERRORS = (GridError, OptionError, PipelineError, UnknownNameError)
"""What the user typed was wrong: exit code 2."""

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after ``cubekit``; default those of the process.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if debug:  # accepted anywhere, though it belongs to the program
        words = ["--debug", *(word for word in words if word != "--debug")]
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            code = app(args=words, standalone_mode=False, prog_name="cubekit")
        except (typer.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except Exception as error:  # noqa: BLE001  (the last stop before the user)
            return _failed(error, debug=debug)
        finally:
            silence(False)  # whoever calls main() from Python hears progress again
    if code == INTERRUPTED:  # typer turns Ctrl-C into a return value
        return _say("Interrupted. The same command again goes on with an unfinished store or training.", 130)
    return code if isinstance(code, int) else 0


def _failed(error: Exception, *, debug: bool) -> int:
    """Tell an error, with its traceback where asked for, and return the exit code."""
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's, of which typer may carry a copy
        error.show()
        return int(error.exit_code)
    if debug:
        traceback.print_exception(error)
    if not isinstance(error, CubekitError):
        return _say(f"Unexpected {type(error).__name__}: {error}. Add --debug to see where.", 1)
    message = str(error).replace("overwrite=True", "--overwrite")
    return _say(f"{type(error).__name__}: {message}", 2 if isinstance(error, USAGE_ERRORS) else 1)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as a paragraph, without the line of code that it comes from."""
    _say(f"Warning: {message}", 0)


def _say(message: str, code: int) -> int:
    """Print a paragraph to standard error, lists line by line, and return an exit code."""
    lines = [
        textwrap.fill(line, width=100, break_long_words=False, break_on_hyphens=False)
        for line in message.splitlines()
    ]
    print("\n".join(lines), file=sys.stderr)
    return code


def run_process() -> None:
    """Entry point of the ``cubekit`` program."""
    raise SystemExit(main())
