"""Progress bars for long work: one look for every part, silent where nobody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

QUIET_SECONDS = 3.0
"""Least time between two lines of progress where no bar is drawn."""


class _Default:
    """What happens where a caller leaves open whether to draw."""

    silent = False


def silence(wanted: bool) -> None:  # noqa: FBT001  (what it is all about)
    """Say whether this process shows no progress where it is not asked for, as ``cubekit --quiet`` does.

    Parameters
    ----------
    wanted : bool
        Whether to be silent.
    """
    _Default.silent = wanted


def shown_as(enabled: bool | None) -> Literal["bar", "lines", "nothing"]:  # noqa: FBT001  (as callers have it)
    """Say in what form progress is shown.

    Parameters
    ----------
    enabled : bool or None
        What a caller asked for.

    Returns
    -------
    {"bar", "lines", "nothing"}
        By default a bar on a terminal and lines elsewhere.
    """
    if enabled is None and not _Default.silent:
        return "bar" if sys.stderr.isatty() else "lines"
    return "bar" if enabled else "nothing"


class Advance(Protocol):
    """Called as work gets done."""

    def __call__(self, amount: float = 1) -> None:
        """Advance the bar by an amount, in the bar's unit."""


@contextmanager
def progress(
    title: str,
    total: float,
    *,
    unit: str = "",
    enabled: bool | None = None,
    rate: tuple[float, str] | None = None,
) -> Iterator[Advance]:
    """Show a bar with share done, rate and time left while the block runs.

    Parameters
    ----------
    title : str
        What is going on, such as ``"write"``.
    total : float
        Amount of work.
    unit : str, optional
        What the amount counts, such as ``"blocks"``; shown after the rate.
    enabled : bool, optional
        Whether to draw. Default: only where standard error is a terminal. Elsewhere (logs, batch jobs) a
        line is printed at each tenth of the work, and none for work that is done in seconds.
    rate : tuple, optional
        What the rate counts, where it is not the unit: how much of it one unit is, and its name, such as
        ``(0.26, "Mpx")``.

    Yields
    ------
    Advance
        Call it with the amount done since the last call.
    """
    shown = shown_as(enabled)
    if shown != "bar":
        yield _milestones(title, total, unit, rate) if shown == "lines" else _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, unit=unit, rate="")

        def advance(amount: float = 1) -> None:
            bars.advance(task, amount)
            speed = bars.tasks[task].speed
            bars.update(task, rate=_per_second(speed, rate) if speed else "")

        yield advance


def _silent(amount: float = 1) -> None:
    """Do nothing."""


def _per_second(speed: float, rate: tuple[float, str] | None) -> str:
    """Write a speed, in units a second, as it is to be read."""
    share, name = rate or (1.0, "")
    return f"{speed * share:.3g} {name}/s".replace(" /", "/")


def _milestones(title: str, total: float, unit: str, rate: tuple[float, str] | None) -> Advance:
    """Print a line to standard error at each tenth of the work, but no more than one every few seconds."""
    from time import monotonic

    start = told = monotonic()
    done, shown = 0.0, 0

    def advance(amount: float = 1) -> None:
        nonlocal done, shown, told
        done += amount
        tenth, now = int(10 * done / total) if total else 10, monotonic()
        if tenth > shown and now - told > QUIET_SECONDS:
            shown, told = tenth, now
            left = (now - start) * (total - done) / done
            message = f"{title}: {done:.6g}/{total:.6g} {unit}".rstrip()
            if rate is not None:
                message += f", {_per_second(done / (now - start), rate)}"
            print(f"{message}, {now - start:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)  # noqa: T201

    return advance
