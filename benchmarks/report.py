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

from benchmarks.measure import Row
from benchmarks.rows import ROWS

PACKAGES = (
    "cubekit",
    "odc-stac",
    "stackstac",
    "xbatcher",
    "xarray",
    "dask",
    "zarr",
    "rasterio",
    "numpy",
    "torch",
)
Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Row to case to medians."""


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
        "packages": {name: _version(name) for name in PACKAGES},
        "load before": os.getloadavg()[0],
    }


def write_report(folder: Path, facts: Mapping[str, Any], rows: Rows, runs: Mapping[str, Any]) -> str:
    """Write ``results.json``, ``results.md`` and ``results.png``; return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    bars = {name: judged(ROWS[name], row) for name, row in rows.items()}
    record = {"machine": facts, "medians": rows, "bars": bars, "runs": runs}
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = "\n".join([*_heading(facts), *_table(rows), "", *_bars(bars)]) + "\n"
    (folder / "results.md").write_text(text, encoding="utf-8")
    draw(rows, folder / "results.png")
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


def _heading(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{key}: {value}" for key, value in facts.items() if key != "packages"]
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    return [*[f"- {line}" for line in lines], f"- packages: {packages}", ""]


def _table(rows: Rows) -> list[str]:
    """Return one table; ratios are the case's over cubekit's, so above 1 means that cubekit is ahead."""
    lines = [
        "| work | case | wall s (min to max) | CPU s | wall x | CPU x | peak MB | more |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        own = row.get("cubekit", {})
        for case, medians in row.items():
            title = ROWS[name].title if case == next(iter(row)) else ""
            lines.append(f"| {title} | {case} | {_cells(ROWS[name], medians, own)} |")
    return lines


def _cells(row: Row, medians: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    if "failed" in medians:
        return f"not measured: {medians['failed'].replace('|', '/')} | | | | | "
    wall = f"{medians['wall']:.2f} ({medians['wall_min']:.2f} to {medians['wall_max']:.2f})"
    ratios = [f"{medians[key] / own[key]:.2f}" if own.get(key) else "" for key in ("wall", "cpu")]
    more = [f"{key} {medians[key]:.4g}" for key in row.shown if key in medians]
    theirs, ours = medians.get("check"), own.get("check")
    if theirs is not None and ours is not None and abs(theirs - ours) > row.tolerance * abs(ours):
        more.append(f"**other result** ({theirs:.6g}, cubekit {ours:.6g})")
    figures = [wall, f"{medians['cpu']:.2f}", *ratios, f"{medians['peak_mb']:.0f}", ", ".join(more)]
    return " | ".join(figures)


def _bars(bars: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    lines = ["| row | bar | asked | reached | |", "|---|---|---|---|---|"]
    words = {True: "met", False: "**missed**", None: "not measured"}
    for name, judgements in bars.items():
        for bar in judgements:
            value = "" if bar["value"] is None else f"{bar['value']:.2f}"
            lines.append(f"| {name} | {bar['text']} | {bar['wanted']} | {value} | {words[bar['met']]} |")
    return lines


def draw(rows: Rows, path: Path) -> None:
    """Draw wall times over cubekit's, a group of bars for each row."""
    from matplotlib.figure import Figure

    shown = [
        (name, case, medians["wall"] / row["cubekit"]["wall"])
        for name, row in rows.items()
        if "wall" in row.get("cubekit", {})
        for case, medians in row.items()
        if "wall" in medians
    ]
    figure = Figure(figsize=(9, 1 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colours = ["#1b6e53" if case.startswith("cubekit") else "#9aa5b1" for _, case, _ in shown]
    drawn = axes.barh([f"{name}: {case}" for name, case, _ in shown], [ratio for *_, ratio in shown])
    for bar, colour in zip(drawn, colours, strict=True):
        bar.set_color(colour)
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set(xscale="log", xlabel="wall time over cubekit's (longer: cubekit is ahead)")
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    figure.savefig(path, dpi=120)


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
