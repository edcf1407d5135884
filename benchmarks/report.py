"""Results as JSON, as one Markdown table and as a chart of bars, with the machine they were taken on."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.geo_samplers import torchgeo_version
from benchmarks.measure import Row
from benchmarks.rows import ROWS

PACKAGES = (
    "cubekit",
    "odc-stac",
    "stackstac",
    "rioxarray",
    "xbatcher",
    "zarrs",
    "tensorstore",
    "xarray",
    "dask",
    "zarr",
    "rasterio",
    "numpy",
    "numba",
    "torch",
)
LIMITS = frozenset(
    {
        "bare decode",
        "bare loop",
        "bare CRC-32",
        "zarr, whole",
        "from memory",
        "fused forward in RAM",
        "the same, input channels last",
    }
)
"""Cases that do less than the work, to show how much of it cannot be avoided."""

Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Row to case to medians."""

Record = Mapping[str, Any]
"""What a run of the suite leaves: ``machine``, ``medians`` and ``runs``."""


def machine() -> dict[str, Any]:
    """Say where and with what the suite runs; a peer that is missing is named as such."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES}
        | {"torchgeo": torchgeo_version() or "not installed"},
        "load before": round(os.getloadavg()[0], 2),
    }


def write_report(folder: Path, record: Record) -> str:
    """Write ``results.json``, ``results.md`` and ``results.svg``; return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    bars = {name: judged(ROWS[name], row) for name, row in record["medians"].items()}
    told = {**record, "bars": bars}
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    text = "\n".join([*heading(record), "", *table(record["medians"]), "", *judgements(bars)]) + "\n"
    (folder / "results.md").write_text(text, encoding="utf-8")
    draw(record["medians"], folder / "results.svg")
    return text


def judged(row: Row, medians: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each bar of a row with its value and whether it is met (None where it could not be measured)."""
    found = []
    for bar in row.bars:
        value = bar.value(medians)
        wanted = bar.at_least if bar.at_least is not None else bar.at_most
        met = None if value is None else bar.met(value)
        sign = ">=" if bar.at_least is not None else "<="
        found.append({"text": bar.text, "wanted": f"{sign} {wanted:.3g}", "value": value, "met": met})
    return found


def heading(record: Record) -> list[str]:
    """Return the facts of the machine as a list."""
    facts = record["machine"]
    lines = [f"- {key}: {value}" for key, value in facts.items() if key != "packages"]
    return [
        *lines,
        "- packages: " + ", ".join(f"{name} {number}" for name, number in facts["packages"].items()),
    ]


def table(rows: Rows) -> list[str]:
    """Return one table; ratios are the case's over cubekit's, so above 1 means that cubekit is ahead."""
    lines = [
        "| work | case | wall s (min to max) | CPU s | wall x | CPU x | peak MB | more |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        own = row.get("cubekit", {})
        for case, medians in row.items():
            title = f"**{name}** {ROWS[name].title}" if case == next(iter(row)) else ""
            lines.append(f"| {title} | {case} | {_cells(ROWS[name], medians, own)} |")
    return lines


def _cells(row: Row, medians: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    if "failed" in medians:
        return f"not measured: {medians['failed'].replace('|', '/')} | | | | | "
    wall = f"{medians['wall']:.2f} ({medians['wall_min']:.2f} to {medians['wall_max']:.2f})"
    ratios = [f"{medians[key] / own[key]:.2f}" if own.get(key) else "" for key in (row.unit, row.unit_cpu)]
    more = [f"{key} {medians[key]:.4g}" for key in row.shown if key in medians]
    theirs, ours = medians.get("check"), own.get("check")
    if theirs is not None and ours is not None and abs(theirs - ours) > row.tolerance * abs(ours):
        more.append(f"**other result** ({theirs:.6g}, cubekit {ours:.6g})")
    figures = [wall, f"{medians['cpu']:.2f}", *ratios, f"{medians['peak_mb']:.0f}", ", ".join(more)]
    return " | ".join(figures)


def judgements(bars: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return the table of what was asked and reached."""
    lines = ["| row | bar | asked | reached | |", "|---|---|---|---|---|"]
    words = {True: "met", False: "**missed**", None: "not measured"}
    for name, found in bars.items():
        for bar in found:
            value = "" if bar["value"] is None else f"{bar['value']:.3g}"
            lines.append(f"| {name} | {bar['text']} | {bar['wanted']} | {value} | {words[bar['met']]} |")
    return lines


def draw(rows: Rows, path: Path) -> None:
    """Draw, for each row, the time of each other case over cubekit's; grey cases are limits, not peers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown: list[tuple[str, str, float]] = []
    for name, row in rows.items():
        unit = ROWS[name].unit
        own = row.get("cubekit", {}).get(unit)
        others = [(case, found[unit] / own) for case, found in row.items() if own and unit in found]
        shown += [(name, case, ratio) for case, ratio in others if not case.startswith("cubekit")]
    figure = Figure(figsize=(8, 0.8 + 0.19 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colours = [
        "#9aa5b1" if case in LIMITS else "#1b6e53" if ratio >= 1 else "#b5483a" for _, case, ratio in shown
    ]
    axes.barh(range(len(shown)), [ratio - 1 for *_, ratio in shown], left=1, color=colours)
    for number, (_, _, ratio) in enumerate(shown):
        left = ratio < 1
        shown_as = f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.2g}"
        axes.annotate(
            shown_as, (ratio, number), (-3 if left else 3, 0), textcoords="offset points", fontsize=7,
            va="center", ha="right" if left else "left",
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [f"{name}: {case}" for name, case, _ in shown], fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(
        xscale="log",
        xlabel="time over cubekit's (green: a slower peer, red: a faster one, grey: a limit)",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.12, y=0.01)
    axes.invert_yaxis()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cubekit"}):
        figure.savefig(path, metadata={"Date": None})


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _first(path: str, key: str) -> str:
    """Return the first value of a key in one of Linux's files of facts."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
