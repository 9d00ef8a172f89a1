from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

from analysis.chart import delta_m_chart
from analysis.records import Records
from analysis.report import RunLinks, report_html, write_report
from analysis.tables import rows_table
from trainables.errors import ConfigError, StoreError

EVIL = "<script>alert('x')</script>&\"{0}{title}"
VOID = {"meta", "br", "line", "path", "input", "circle"}


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

    def handle_startendtag(self, tag, attrs):  # only SVG has these
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
    # Its own script, allowed by its hash; what the records hold is text, and stays text as data.
    assert [tag for tag, _ in parser.seen].count("script") == 1
    assert page.count("alert('x')") == 0
    assert "&lt;script&gt;" in page
    assert "{0}{title}" in page


def test_the_page_loads_nothing(evil):
    parser = Nesting()
    parser.feed(report_html(evil))
    names = {name for _, attributes in parser.seen for name in attributes}
    assert not names & {"src", "srcset", "onload", "onclick", "action"}
    assert {tag for tag, attributes in parser.seen if "href" in attributes} == {"a"}
    page = report_html(evil)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", page)
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "http" not in style


def test_only_its_own_script_may_run(evil):
    page = report_html(evil)
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_what_the_page_holds(mixed_home: Path):
    page = report_html(Records.load(mixed_home, "toy"))
    assert "12 of 18 trials complete" in page
    assert re.search(r'<th scope="row" class="words">gd</th>.*>2\.100</a>', page)
    assert re.search(r">\+2\.50</a> ± 3\.54", page)
    assert "-29.27 to +34.27" in page  # 2.5 ± 12.706 * 3.5355 / sqrt(2)
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
    page = report_html(records)
    assert "<svg" not in page
    for absent in ("tasks", "curves", "grouping", "cost", "claims"):
        assert f'id="{absent}"' not in page
        assert f'href="#{absent}"' not in page


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


def test_every_number_of_a_seed_leads_to_its_run(mixed_home):
    records = Records.load(mixed_home, "toy")
    page = report_html(records, links=RunLinks("https://example.org/mlflow/"))
    trial = records.trials[records.trials["trial_key"] == "gd-1"].iloc[0]
    seeds = page.partition('id="seed-table"')[2].partition("</table>")[0]
    href = f"https://example.org/mlflow/#/experiments/{trial['experiment_id']}/runs/{trial['run_id']}?workflowType=machine_learning"
    assert f'<a class="run" href="{href}" title="MLflow run {trial["run_id"]}">2.310</a>' in seeds
    linked = set(re.findall(r"/runs/([0-9a-f]{32})", seeds))
    assert set(records.trials.loc[records.trials["status"] == "complete", "run_id"]) <= linked


def test_a_mean_leads_to_the_comparison_of_its_runs():
    links = RunLinks("http://127.0.0.1:5000")
    link = links.link([("1", "a"), ("2", "b"), ("1", "a")], "3.0")
    assert "/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&amp;experiments=%5B%221%22%2C%222%22%5D" in link
    assert links.link([("1", "")], "-") == "-"


@pytest.mark.parametrize("base", ["127.0.0.1:5000", "javascript:alert(1)", "http://", "http://a/?q=1", "ftp://a"])
def test_an_address_that_is_none_is_named(base):
    with pytest.raises(ConfigError, match=r"MLflow address .* is not allowed"):
        RunLinks(base)


def test_failures_are_listed_with_their_reason_and_run(mixed_home):
    records = Records.load(mixed_home, "toy")
    part = report_html(records).partition('id="failures"')[2].partition("</section>")[0]
    assert "losses not finite at iteration 7" in part
    assert '<tr class="diverged">' in part
    assert "3 trials were not begun yet" in part


def test_what_was_asked(store: SyntheticStore):
    rows = [baseline_row(), {**row("a", [cell("a-0", 0)]), "axes": {"method.beta": 0.1}}]
    store.study(plan(rows, about="Does <beta> matter?"))
    page = report_html(Records.load(store.home, "toy"))
    assert "<p>Does &lt;beta&gt; matter?</p>" in page
    assert "<dd>method.beta = 0.1</dd>" in page


def test_tables_have_captions_and_scopes_and_their_heads_are_buttons(mixed_home):
    page = report_html(Records.load(mixed_home, "toy"))
    tables = re.findall(r"<table.*?</table>", page, flags=re.DOTALL)
    assert len(tables) >= 4
    for table in tables:
        assert "<caption" in table
        heads = re.findall(r"<th scope=\"col\"[^>]*>(.)", table)
        assert heads
        assert set(heads) == {"<"}
        assert table.count('<button type="button" class="sort">') == len(heads)
        widths = {len(re.findall(r"<t[hd][ >]", line)) for line in re.findall(r"<tr.*?</tr>", table)}
        assert widths == {len(heads)}
