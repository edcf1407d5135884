"""The page is parsed as a browser would, and searched for anything that leaves it."""

import re
import struct
import zlib
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.errors import ExportError
from cubekit.exports.landcover import ClassMap, class_map_report
from cubekit.exports.report import KeyFigure, Picture, Report, Section, Table, render_report, write_report
from cubekit.labels import ClassTable

VOID = {"meta", "img", "br", "link", "input"}
WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def _png() -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + part(b"IDAT", zlib.compress(bytes(4)))
        + part(b"IEND", b"")
    )


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def full_report(evil: str = "") -> Report:
    return Report(
        title=f"Title{evil}",
        summary=f"Summary{evil}",
        key_figures=[KeyFigure(label=f"Label{evil}", value=f"93 %{evil}", note=f"Note{evil}")],
        warnings=[f"Warning{evil}"],
        sections=[
            Section(
                title=f"Part{evil}",
                text=f"One{evil}\n\nTwo",
                pictures=[Picture(png=_png(), caption=f"Caption{evil}", wide=True)],
                tables=[
                    Table(
                        columns=[f"class{evil}", "n"], rows=[[f"water{evil}", "1,200"]], colours=["#0072b2"]
                    ),
                    Table.of({f"seed{evil}": f"0{evil}"}, caption=f"Settings{evil}"),
                ],
            )
        ],
        provenance={f"items{evil}": f"12{evil}"},
    )


def test_a_page_holds_all_parts_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report.html", full_report(), made=WHEN)
    html = path.read_text("utf-8")
    page = Page(html)
    for word in (
        "Title",
        "Summary",
        "93 %",
        "Note",
        "Warning",
        "Part",
        "Two",
        "Caption",
        "1,200",
        "seed",
        "items",
    ):
        assert word in page.text
    assert "2026-01-02 03:04 UTC" in page.text
    assert not re.search(r"(https?:)?//[a-z]|url\(|@import|<script|<link|<iframe", html)
    assert [image["src"][:22] for image in page.of("img")] == ["data:image/png;base64,"]
    assert page.of("html") == [{"lang": "en"}]
    assert any("width=device-width" in meta.get("content", "") for meta in page.of("meta"))
    assert "@media print" in html
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_only_columns_of_numbers_are_set_to_the_right() -> None:
    table = Table(
        columns=["1", "n", "share", "mixed"], rows=[["1", "1,200", "93.4%", "x"], ["2", "-", "-0.5 %", "1"]]
    )
    assert table.numeric == (False, True, True, False)


def test_every_text_is_escaped() -> None:
    evil = "<script>alert('x')</script>\"'><img src=x onerror=y>"
    html = render_report(full_report(evil), made=WHEN)
    page = Page(html)
    assert page.of("script") == []
    assert len(page.of("img")) == 1
    assert page.text.count(evil) == 17
    assert page.of("img")[0]["alt"] == f"Caption{evil}"


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_arrives_as_it_is(text: str) -> None:
    shown = Page(render_report(Report(title=text, summary="s"), made=WHEN)).text
    assert text.replace("\r\n", "\n").replace("\r", "\n").strip() in shown.replace("\r\n", "\n").replace(
        "\r", "\n"
    )


def test_colours_cannot_carry_style_rules() -> None:
    with pytest.raises(ExportError, match="rrggbb"):
        Table(columns=["a"], rows=[["1"]], colours=["red;background:url(//example.org)"])


def scores(confusion: Any, names: tuple[str, ...]) -> Any:
    from sklearn.metrics import f1_score

    counts = np.asarray(confusion)
    true, predicted = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    f1 = f1_score(true, predicted, average=None, labels=range(len(names)), zero_division=np.nan)
    with np.errstate(invalid="ignore"):
        return SimpleNamespace(
            classes=names,
            confusion=counts,
            support=counts.sum(axis=1),
            overall=float(np.trace(counts) / counts.sum()),
            producers=np.diag(counts) / counts.sum(axis=1),
            users=np.diag(counts) / counts.sum(axis=0),
            f1=f1,
            macro_f1=float(np.nanmean(f1)),
            kappa=0.5,
        )


def test_the_report_of_a_map_leads_with_scores_and_warns(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    names = ("water", "<script>bare</script>", "forest")
    table = ClassTable.of(names)
    values = np.zeros((40, 50), "uint8")
    values[:10] = 2
    box = GeoBox((40, 50), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    prediction = xr.Dataset(
        {"class": (("y", "x"), values, {"_FillValue": np.uint8(255)} | table.attrs())},
        attrs={"time_coverage_start": "2023-01-01", "time_coverage_end": "2023-12-31"},
    ).assign_coords(xr_coords(box))
    model = scores([[40, 0, 10], [5, 0, 5], [0, 0, 60]], names)
    forest = scores([[45, 0, 5], [0, 10, 0], [0, 0, 60]], names)
    report = class_map_report(
        ClassMap(
            title="Map",
            prediction=prediction,
            accuracy=model,
            baselines={"random forest": forest},
            reference={"map against truth": forest},
            history=[{"epoch": 1, "train_loss": 1.0, "valid_loss": 1.0}],
            settings={"seed": 0},
            warnings=["Synthetic."],
        )
    )
    assert report.key_figures[0].value == "83.3%"
    assert report.key_figures[0].note == "random forest 95.8%"
    assert report.key_figures[-1].label == "Largest class: water"
    assert report.key_figures[-1].note == "15.0 ha of 20.0 ha"
    assert report.warnings == [
        "Synthetic.",
        "The model is not better than random forest: 83.3% against 95.8% are right.",
        "Few test samples, so scores that say little: <script>bare</script> (10).",
        "Never predicted on the test samples: <script>bare</script>.",
    ]
    page = Page(write_report(tmp_path / "r.html", report).read_text("utf-8"))
    assert page.of("script") == []
    assert "<script>bare</script>" in page.text
    assert "2023-01-01 to 2023-12-31" in page.text
    assert [s.title for s in report.sections] == [
        "Map",
        "Accuracy",
        "Samples and training",
        "Data and settings",
    ]
    assert report.sections[0].tables[0].rows[0] == ["water", "1,500", "75.0%", "15.0"]
