"""Progress bars for long work: one look for every part, silent where nobody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called as work gets done."""

    def __call__(self, amount: float = 1) -> None:
        """Advance the bar by an amount, in the bar's unit."""


@contextmanager
def progress(title: str, total: float, *, unit: str = "", enabled: bool | None = None) -> Iterator[Advance]:
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
        Whether to draw. Default: only where standard error is a terminal. Elsewhere (logs, batch jobs) one
        line is printed at each tenth of the work.

    Yields
    ------
    Advance
        Call it with the amount done since the last call.
    """
    drawn = sys.stderr.isatty() if enabled is None else enabled
    if not drawn:
        yield _milestones(title, total, unit) if enabled is None else _silent
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
            bars.update(task, rate=f"{speed:.3g}/s" if speed else "")

        yield advance


def _silent(amount: float = 1) -> None:
    """Do nothing."""


def _milestones(title: str, total: float, unit: str) -> Advance:
    """Print one line to standard error at each tenth of the work."""
    from time import monotonic

    start, done, shown = monotonic(), 0.0, 0

    def advance(amount: float = 1) -> None:
        nonlocal done, shown
        done += amount
        tenth = int(10 * done / total) if total else 10
        if tenth > shown:
            shown = tenth
            spent = monotonic() - start
            left = spent * (total - done) / done if done else 0.0
            print(  # noqa: T201
                f"{title}: {done:.6g}/{total:.6g} {unit}, {spent:.0f} s, {left:.0f} s left".replace(
                    " ,", ","
                ),
                file=sys.stderr,
                flush=True,
            )

    return advance
