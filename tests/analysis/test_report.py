from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

from analysis.chart import delta_m_chart
from analysis.records import Records
from analysis.report import report_html, write_report
from analysis.tables import rows_table
from trainables.errors import StoreError

EVIL = "<script>alert('x')</script>&\"{0}{title}"
VOID = {"meta", "br", "rect", "line", "path"}


class Nesting(HTMLParser):
    """Fails on tags that do not nest; keeps every tag and attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def evil(store: SyntheticStore) -> Records:
    published = {"table": "D.5", "row": "Random (M=2)"}
    rows = [baseline_row(), row("a", [cell("a-0", 0), cell("a-1", 1)], EVIL, published), row("b", [cell("b-0", 0)])]
    store.study(plan(rows, title=EVIL, profile=EVIL, task_set="taskonomy"))
    store.baseline()
    tags = dict.fromkeys(("device", "git_commit", "versions", "data_fingerprint", "data"), EVIL)
    store.trial("a-0", {"depth/rmse": 1.89, "semseg/miou": 42.0}, tags=tags, metrics=costs(1000, 12.5))
    store.trial("a-1", {"depth/rmse": 2.31, "semseg/miou": 46.2}, metrics=costs(1000, 12.5))
    store.trial("b-0", {}, status="failed", mlflow_status="FAILED", tags={"status_reason": EVIL})
    return Records.load(store.home, "toy")


def test_the_page_is_well_formed_and_nothing_in_it_is_code(evil):
    page = report_html(evil)
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in {tag for tag, _ in parser.seen}
    assert "&lt;script&gt;" in page
    assert "{0}{title}" in page


def test_the_page_loads_nothing(evil):
    parser = Nesting()
    parser.feed(report_html(evil))
    names = {name for _, attributes in parser.seen for name in attributes}
    assert not names & {"src", "href", "srcset", "onload", "onclick", "action"}
    assert "default-src 'none'" in report_html(evil)
    assert not re.search(r"url\(|@import|https?://", report_html(evil))


def test_what_the_page_holds(mixed_home: Path):
    page = report_html(Records.load(mixed_home, "toy"))
    assert "12 of 18 trials complete" in page
    assert "<td>gd</td><td>2.100</td>" in page
    assert "+2.50 ± 3.54" in page
    assert "diverged (seed 1): losses not finite at iteration 7" in page
    assert "mtl-study run toy --profile cpu" in page
    assert "torch 2.13.0" in page
    assert "prefers-color-scheme: dark" in page


def test_the_chart(evil):
    table = rows_table(evil)
    root = ElementTree.fromstring(delta_m_chart(table))
    bars = [rect for rect in root.iter("rect") if rect.get("height") == "16"]
    assert len(bars) == 1  # the baseline has none by definition, row b has no value
    tips = [title.text for title in root.iter("title")]
    assert "measured +2.50 ± 3.54" in tips
    assert "published: -4.24" in tips
    texts = [text.text for text in root.iter("text")]
    assert "no value" in texts
    # The bar starts at zero and ends at 2.5 of an axis whose ticks say where they are.
    ticks = {float(t.text): float(t.get("x")) for t in root.iter("text") if t.get("text-anchor") == "middle"}
    unit = (ticks[2.0] - ticks[0.0]) / 2
    assert float(bars[0].get("x")) == pytest.approx(ticks[0.0], abs=0.1)
    assert float(bars[0].get("width")) == pytest.approx(2.5 * unit, abs=0.2)
    low, high = min(ticks.values()), max(ticks.values())
    assert all(low <= float(bar.get("x")) <= high for bar in bars)


def test_no_chart_without_values(store: SyntheticStore):
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0)])]))
    records = Records.load(store.home, "toy")
    assert delta_m_chart(rows_table(records)) == ""
    assert "<svg" not in report_html(records)


def test_written_whole_into_a_new_folder(mixed_home, tmp_path):
    records = Records.load(mixed_home, "toy")
    path = tmp_path / "new" / "toy-cpu.html"
    assert write_report(records, path) == path
    assert path.read_text(encoding="utf-8") == report_html(records)
    assert [entry.name for entry in path.parent.iterdir()] == ["toy-cpu.html"]


def test_a_failed_write_leaves_the_old_page_and_no_rest(mixed_home, tmp_path, monkeypatch):
    path = tmp_path / "toy.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(StoreError, match=r"toy\.html: cannot be written: No space left on device"):
        write_report(Records.load(mixed_home, "toy"), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_is_a_folder_is_one_line(mixed_home, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(Records.load(mixed_home, "toy"), tmp_path)
