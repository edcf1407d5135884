"""Make the page of the documentation from results: ``python -m benchmarks.page [RESULTS.JSON]``.

What a person has written lives in ``page.md`` and ``notes.yaml`` and survives; figures are put in.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import draw, heading, judged, judgements, table
from benchmarks.rows import ROWS

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def main(results: str = "") -> None:
    """Write ``docs/benchmarks.md`` and its chart."""
    record = json.loads(Path(results or HERE / "results" / "results.json").read_text("utf-8"))
    bars = {name: judged(ROWS[name], row) for name, row in record["medians"].items() if name in ROWS}
    notes = yaml.safe_load((HERE / "notes.yaml").read_text("utf-8"))
    parts = {
        "machine": heading(record),
        "bars": [_count(bars), "", *judgements(bars)],
        "table": table(record["medians"]),
        "notes": list(_explained(record["medians"], bars, notes)),
    }
    text = (HERE / "page.md").read_text("utf-8")
    for name, lines in parts.items():
        text = text.replace(f"{{{{{name}}}}}", "\n".join(lines))
    (DOCS / "benchmarks.md").write_text(text, encoding="utf-8")
    draw(record["medians"], DOCS / "images" / "benchmarks.svg")


def _count(bars: Mapping[str, list[dict[str, Any]]]) -> str:
    met = [bar["met"] for found in bars.values() for bar in found]
    unknown = met.count(None)
    rest = f"; {unknown} could not be measured" if unknown else ""
    return f"{met.count(True)} of {len(met)} bars are met, {met.count(False)} missed{rest}."


def _explained(
    rows: Mapping[str, Any], bars: Mapping[str, list[dict[str, Any]]], notes: Mapping[str, str]
) -> Iterator[str]:
    """Say of each row with a missed bar or a faster case what is so, and, where it is known, why."""
    for name, row in rows.items():
        unit = ROWS[name].unit
        own = row.get("cubekit", {}).get(unit)
        faster = [
            f"{case} takes {found[unit] / own:.2f} of cubekit's time"
            for case, found in row.items()
            if own and unit in found and found[unit] < own and not case.startswith("cubekit")
        ]
        missed = [
            f"missed: {bar['text']} {bar['value']:.3g}, asked {bar['wanted']}"
            for bar in bars[name]
            if bar["met"] is False
        ]
        if faster or missed:
            why = notes.get(name, "Not looked into.").strip()
            yield f"- **{name}.** {'; '.join([*missed, *faster])}. {why}"


if __name__ == "__main__":
    main(*sys.argv[1:])
