"""What the last accepted run reached, and whether a new one falls far behind it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Bar
from benchmarks.rows import ROWS

BAND = 1.6
"""Factor by which a ratio may be worse: machines are shared, and small rows scatter."""

_TIMES = frozenset({"wall", "ms", "us", "step_ms", "wait_percent"})
"""Measures of the clock on the wall; CPU time, which scatters less, stands for them."""


def accept(record: Mapping[str, Any], path: Path) -> None:
    """Write the ratios of a run as those that later ones are compared with.

    Rows that were not run keep what was accepted before.
    """
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known |= {name: dict(_figures(name, medians)) for name, medians in record["medians"].items()}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def regressions(record: Mapping[str, Any], path: Path) -> list[str]:
    """Return a line for each figure that is worse than was accepted by more than the band.

    Each is a ratio of which more is better. What was accepted but not measured now is told as well, as
    a case of cubekit that fails would otherwise pass.
    """
    known, worse = json.loads(path.read_text("utf-8")), []
    for name, medians in record["medians"].items():
        found = dict(_figures(name, medians))
        for what, wanted in known.get(name, {}).items():
            value = found.get(what)
            if value is None and "failed" in medians.get("cubekit", {}):
                worse.append(f"{name}: cubekit failed: {medians['cubekit']['failed']}")
                break
            if value is not None and value < wanted / BAND:
                worse.append(
                    f"{name}, {what}: {value:.3g}, expected {wanted:.3g} (at least {wanted / BAND:.3g})"
                )
    return worse


def _figures(name: str, medians: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Return ratios of CPU time to every other case, and the bars that no clock decides."""
    row = ROWS[name]
    own = medians.get("cubekit", {}).get(row.unit_cpu)
    for case, found in medians.items():
        theirs = found.get(row.unit_cpu)
        if own and theirs and case != "cubekit":
            yield f"CPU over {case}", round(theirs / own, 3)
    for bar in row.bars:
        value = None if bar.measure in _TIMES else bar.value(medians)
        if value is not None:
            yield bar.text, round(_more_is_better(bar, value), 3)


def _more_is_better(bar: Bar, value: float) -> float:
    return value if bar.at_least is not None else 1 / max(value, 1e-9)
