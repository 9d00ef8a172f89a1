"""The report in a real browser: rendered, sorted, filtered, scrubbed, with nothing in the console."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from headless import Page, find_browser
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

from analysis.records import Records
from analysis.report import write_report

BROWSER = find_browser()

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")

LABEL = 'Groups <b> & "more"'
ORDER = "[...document.querySelectorAll('#main-table tbody tr')].map(r => r.cells[0].textContent)"
HEADS = "[...document.querySelectorAll('#main-table thead th')]"


def history(seed: int) -> dict[str, np.ndarray]:
    affinity = np.array([[[0.5, 0.1 * (seed + 1)], [-0.2, 0.5]], [[0.5, 0.4], [-0.1, 0.5]], [[0.5, -0.3], [0.0, 0.5]]])
    together = np.array([np.eye(2), np.ones((2, 2)), np.eye(2)])
    return {
        "iteration": np.array([4, 8, 12]),
        "affinity": affinity,
        "group": np.array([[0, 1], [0, 0], [1, 0]]),
        "count": np.array([2.0, 1.0, 2.0]),
        "together": together,
        "tasks": np.array(["depth", "semseg"]),
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    home = tmp_path_factory.mktemp("browser")
    store = SyntheticStore(home, empty_store)
    rows = [baseline_row(), *(row(f"r{n}", [cell(f"r{n}-0", 0), cell(f"r{n}-1", 1)]) for n in range(2))]
    rows.append(row("selective", [cell("s-0", 0), cell("s-1", 1)], LABEL))
    rows.append(row("empty", [cell("empty-0", 0)]))
    store.study(plan(rows))
    store.baseline()
    for n, (depth, semseg) in enumerate(((1.0, 41.0), (10.0, 42.0))):
        for seed in (0, 1):
            store.trial(f"r{n}-{seed}", {"depth/rmse": depth, "semseg/miou": semseg}, metrics=costs(10 + n, 2.0))
    for seed in (0, 1):
        curves = {"train/loss/depth": [(4, 1.0), (8, 0.5 + 0.1 * seed)], "groups/count": [(4, 2.0), (8, 1.0)]}
        run = store.trial(f"s-{seed}", {"depth/rmse": 3.0, "semseg/miou": 43.0}, metrics={**costs(30, 4.0), **curves})
        store.history(run, history(seed))
    return write_report(Records.load(home, "toy"), home / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    page = Page(str(BROWSER), tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture
def page(browser: Page, report: Path):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(report)
    yield browser
    assert browser.errors == []
    assert {url for url in browser.requests if not url.startswith(("file:", "data:"))} == set()


def test_rendered(page: Page):
    assert page.run("document.querySelectorAll('main > section').length") == 8
    assert page.run("document.documentElement.classList.contains('js')")
    assert page.run("document.querySelector('h1').getBoundingClientRect().height") > 0
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run(f"{ORDER}[3]") == LABEL
    unnamed = "[...document.querySelectorAll('svg[role=img]')].filter(s => !s.getAttribute('aria-label')).length"
    assert page.run(unnamed) == 0


def test_sorted_by_number_and_by_keyboard_with_missing_values_last(page: Page):
    before = page.run(ORDER)
    place = page.run(f"{HEADS}.findIndex(h => h.textContent.startsWith('De '))")
    button = f"{HEADS}[{place}].querySelector('button')"
    page.run(f"{button}.focus()")
    page.press("Enter")
    assert page.run(f"{HEADS}[{place}].getAttribute('aria-sort')") == "ascending"
    assert page.run(ORDER) == ["r0", "Single task", LABEL, "r1", before[4]]
    page.press("Enter")
    assert page.run(f"{HEADS}[{place}].getAttribute('aria-sort')") == "descending"
    assert page.run(ORDER) == ["r1", LABEL, "Single task", "r0", before[4]]
    page.run(f"{HEADS}[0].querySelector('button').click()")
    assert page.run(ORDER) == [before[4], LABEL, "r0", "r1", "Single task"]
    assert page.run(f"{HEADS}.filter(h => h.hasAttribute('aria-sort')).length") == 1


def test_filtered_and_counted(page: Page):
    page.run("""(() => { const box = document.querySelector('input.filter[data-table=main-table]');
        box.value = 'MORE groups'; box.dispatchEvent(new Event('input')); })()""")
    shown = "[...document.querySelectorAll('#main-table tbody tr')].filter(r => r.offsetHeight > 0).length"
    assert page.run(shown) == 1
    assert page.run("document.querySelector('#results .count').textContent") == "1 of 5 rows"


def test_spreads_of_tasks_are_shown_when_asked_for(page: Page):
    wide = "document.querySelector('#main-table .sd').getBoundingClientRect().width"
    assert page.run(wide) == 0
    page.run("document.querySelector('input.spreads').click()")
    assert page.run(wide) > 0


def test_scrubbed_by_keyboard(page: Page):
    tip = "document.querySelectorAll('#map-affinity rect')[1].firstElementChild.textContent"
    together = "document.querySelectorAll('#map-together rect')[1].getAttribute('fill-opacity')"
    cursor = "document.querySelector('#film-cursor').getAttribute('d')"
    assert page.run(tip) == "De → Se: −0.3"
    assert float(page.run(together)) == 0.0
    last = page.run(cursor)
    page.run("document.querySelector('#film-frame').focus()")
    page.press("ArrowLeft")
    assert page.run("document.querySelector('#film-at').textContent") == "8"
    assert page.run(tip) == "De → Se: 0.4"
    assert float(page.run(together)) == 1.0
    assert page.run("document.querySelector('#film-groups p').innerText").split() == ["seed", "0", "De,", "Se"]
    assert page.run(cursor) != last
    page.press("ArrowLeft")
    assert page.run(tip) == "De → Se: 0.15"  # mean of 0.1 and 0.2


def test_played_to_the_end(page: Page):
    page.run("document.querySelector('#film-play').click()")
    assert page.run("document.querySelector('#film-play').getAttribute('aria-pressed')") == "true"
    page.wait("document.querySelector('#film-play').getAttribute('aria-pressed') === 'false'")
    assert page.run("document.querySelector('#film-frame').value") == "2"


def test_rows_of_curves_hide_and_come_back(page: Page):
    box = "document.querySelector('fieldset[data-for=curve-panels] input')"
    hidden = "document.querySelectorAll('#curve-panels .series.off').length"
    page.run(f"{box}.click()")
    assert page.run(hidden) == 1
    page.run(f"{box}.click()")
    assert page.run(hidden) == 0


def test_links_follow_the_address_of_the_ui(page: Page):
    page.run("""(() => { const box = document.querySelector('#mlflow');
        box.value = 'http://127.0.0.1:5999/'; box.dispatchEvent(new Event('change'));
        box.value = 'javascript:alert(1)'; box.dispatchEvent(new Event('change')); })()""")
    starts = "new Set([...document.querySelectorAll('a.run')].map(a => a.getAttribute('href').split('#')[0]))"
    assert page.run(f"[...{starts}]") == ["http://127.0.0.1:5999/"]


def test_dark_where_the_reader_wants_it(browser: Page, report: Path):
    colour = "getComputedStyle(document.body).backgroundColor"
    browser.open(report, prefers_color_scheme="light")
    light = browser.run(colour)
    browser.open(report, prefers_color_scheme="dark")
    assert (light, browser.run(colour)) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")


def test_a_narrow_screen_does_not_scroll_sideways(page: Page):
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    try:
        assert page.run("document.documentElement.scrollWidth") <= 390
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_printed_without_what_only_a_screen_can_use(page: Page, tmp_path: Path):
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        shown = "[...document.querySelectorAll('{}')].filter(e => e.offsetHeight > 0).length"
        for part in ("nav", "input.filter", "#film-play", "#mlflow"):
            assert page.run(f"document.querySelector('{part}') !== null")
            assert page.run(shown.format(part)) == 0, part
        assert page.run(shown.format("#main-table tbody tr")) == 5
        assert page.run("getComputedStyle(document.body).backgroundColor") in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
        paper = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
        assert paper.startswith(b"%PDF")
        assert paper.count(b"/Type /Page\n") >= 2
    finally:
        page.call("Emulation.setEmulatedMedia", media="")
