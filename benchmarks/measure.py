"""What a row of the suite is made of, and the clock around one run of one case."""

import os
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.inputs import Inputs

Facts = Mapping[str, float]
"""What a case says of its run beside time and memory; ``check`` must agree between the cases of a row."""


class Clock:
    """Wall and CPU seconds and peak memory of a block; what a case does outside of it is not counted."""

    def __init__(self) -> None:
        self.facts: dict[str, float] = {}

    def __enter__(self) -> Self:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        self._memory = _status("VmRSS")
        self._cpu = _cpu()
        self._wall = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.facts["wall"] = time.perf_counter() - self._wall
        self.facts["cpu"] = _cpu() - self._cpu
        self.facts["peak_mb"] = (_status("VmHWM") - self._memory) / 1e6


Case = Callable[[Inputs, Clock], Facts]
"""Sets itself up, does the work inside ``with clock:``, and says what came out."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What cubekit is asked to reach: a ratio to the best of some cases, or a figure of its own."""

    text: str
    measure: str = "wall"
    case: str = "cubekit"
    against: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    def value(self, medians: Mapping[str, Mapping[str, Any]]) -> float | None:
        """Return the ratio best / own, or the own figure; None where a case is missing."""
        own = medians.get(self.case, {}).get(self.measure)
        others = [medians.get(name, {}).get(self.measure) for name in self.against]
        found = [other for other in others if other is not None]
        if own is None or len(found) < len(self.against):
            return None
        return float(min(found) / own) if found else float(own)

    def met(self, value: float) -> bool:
        """Tell whether a value reaches the bar."""
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work, done by several cases in turn."""

    title: str
    cases: Mapping[str, Case]
    bars: tuple[Bar, ...] = ()
    tolerance: float = 1e-3
    """Relative difference up to which the ``check`` of two cases counts as equal."""
    shown: tuple[str, ...] = field(default=())
    """Facts that the table shows beside time and memory."""
    unit: str = "wall"
    """What is compared: the wall time of a run, or the fact that holds it for one piece of work."""
    unit_cpu: str = "cpu"
    """The same for CPU time."""


def workers() -> int:
    """Return how many threads every case may use: two, as on the smallest machine the suite is run on."""
    return min(2, os.cpu_count() or 1)


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _status(key: str) -> float:
    """Return a size in bytes that Linux keeps of this process; 0 on other systems."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(key + ":"):
                return float(line.split()[1]) * 1024
    return 0.0
