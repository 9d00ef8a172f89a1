"""What a reader sees in the MLflow UI: `mtl-study ui` in a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from headless import Page, find_browser
from little import QUICK, files, plan, run, trials
from PIL import Image

from study import schema
from study.cli.options import show_report
from study.home import Home
from study.store import open_client, search

BROWSER = find_browser()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH"),
]

TRIALS = {f"{label} | seed 0" for label in ("GD", "Selective")} | {
    f"Single | {task} | seed 0" for task in ("normal", "reshading", "depth_zbuffer")
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("screens") / "home")
    run(home, plan(), replace(QUICK, save_models=True))
    show_report(home, plan().spec.id, plan().profile)
    return home


@pytest.fixture(scope="module")
def addresses(home: Home) -> Iterator[dict[str, str]]:
    """What `mtl-study ui` says is to be opened, by name, while it runs."""
    command = [sys.executable, "-m", "study", "ui", "--home", str(home.path), "--port", "5700"]
    here = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=here, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stderr is not None
    found: dict[str, str] = {}
    for line in process.stderr:
        if match := re.fullmatch(r"(?:  (.+)|MLflow UI): (http://127\.0\.0\.1:\d+\S*).*\n", line):
            found[match[1] or "base"] = match[2]
        if "Application startup complete" in line:
            break
    yield found
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(str(BROWSER), tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def shows(*texts: str) -> str:
    seen = " && ".join(f"document.body.innerText.includes({json.dumps(text)})" for text in texts)
    return f"document.body !== null && {seen}"


def test_the_links_it_prints_and_what_they_show(
    home: Home, addresses: dict[str, str], page: Page, tmp_path: Path
) -> None:
    pictures = Path(os.environ.get("MTL_STUDY_SCREENS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    assert set(addresses) == {"base", "little", "all"}
    base, runs = addresses["base"], trials(home)
    assert set(runs) == TRIALS
    training = "workflowType=machine_learning"
    (parent,) = search(open_client(home), f"tags.{schema.KIND} = '{schema.STUDY_RUN}'")
    here = f"{base}/#/experiments/{parent.info.experiment_id}"

    page.visit(addresses["all"], shows("little", "A little study"))
    page.screenshot(pictures / "experiments.png")

    page.visit(addresses["little"], shows(*TRIALS, "5 matching runs", "A little study"))
    assert page.run(shows("Model training"))
    assert not page.run(shows("Sessions")), "the other half of the UI"
    names = page.run("[...document.querySelectorAll('a')].map(a => a.innerText)")
    listed = [name for name in names if name in TRIALS]
    gains = {name: run.data.metrics.get(schema.DELTA_M, float("-inf")) for name, run in runs.items()}
    assert listed[:2] == sorted(listed[:2], key=lambda name: -gains[name])
    assert set(listed[:2]) == {"GD | seed 0", "Selective | seed 0"}, "the best first, the baseline last"
    page.screenshot(pictures / "runs.png")

    pair = [runs[name].info.run_id for name in ("GD | seed 0", "Selective | seed 0")]
    chosen = f"runs={json.dumps(pair)}&experiments={json.dumps([parent.info.experiment_id])}"
    wanted = ("GD | seed 0", "Selective | seed 0", "Parameters", "Metrics")
    page.visit(f"{base}/#/compare-runs?{chosen}&{training}", shows("Comparing 2 Runs from 1 Experiment", *wanted))
    page.wait("document.body.textContent.includes('method.')")
    page.screenshot(pictures / "compare.png")

    own = f"{here}/runs/{runs['Selective | seed 0'].info.run_id}"
    page.visit(
        f"{own}?{training}", shows("Selective | seed 0", "little | smoke", "scenes", "selective", "test/delta_m")
    )
    page.screenshot(pictures / "run.png")
    page.visit(f"{own}/model-metrics?{training}", shows("backward_passes", "cost"))
    page.screenshot(pictures / "charts.png")
    page.visit(f"{own}/system-metrics?{training}", shows("process_memory_megabytes"))
    page.screenshot(pictures / "system.png")
    page.visit(f"{own}/artifacts/{schema.MODEL_FOLDER}?{training}", shows("MLflow Model", "Inputs (1)", "Outputs (3)"))
    page.screenshot(pictures / "model.png")
    image = next(name for name in files(home, runs["Selective | seed 0"], schema.IMAGES_FOLDER) if ".png" in name)
    page.visit(f"{own}/artifacts/{image}?{training}", shows("affinity+step"))
    page.screenshot(pictures / "affinity.png")

    page.visit(f"{here}/runs/{parent.info.run_id}/artifacts/{schema.REPORT_FILE}?{training}", shows("report.html"))
    page.wait("document.querySelector('iframe') !== null")
    page.screenshot(pictures / "report.png")

    note = open_client(home).get_experiment(parent.info.experiment_id).tags["mlflow.note.content"]
    assert note.startswith("A little study\n\nWhat is asked.\n\nReports: [smoke](#/experiments/")
    for picture in pictures.glob("*.png"):
        with Image.open(picture) as seen:
            assert len(seen.convert("RGB").getcolors(1 << 24)) > 100, f"{picture.name} is empty"
    ours = [each for each in page.refused if re.search("/(runs|experiments|metrics|artifacts|get-artifact)", each)]
    assert ours == []
    assert [error for error in page.errors if "Uncaught" in error] == []
