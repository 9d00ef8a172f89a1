"""Every study of the paper and beyond it, at profile smoke, through the command: every table and figure comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.figures import FIGURES
from study.cli import run
from study.spec import studies_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDIES = (*studies_of("paper"), *studies_of("beyond"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "home"
    for bundle in ("paper", "beyond"):
        assert run(["run", bundle, "--profile", "smoke", "--executor", "local", "--home", str(folder), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_comes_out_whole(study: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["table", study, "--format", "json", "--home", str(home)]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table
    assert run(["status", study, "--json", "--home", str(home)]) == 0
    assert set(json.loads(capsys.readouterr().out)["counts"]) == {"complete"}
    assert run(["table", study, "--home", str(home)]) == 0
    assert capsys.readouterr().out.strip()


# The figure of a sensitivity study is drawn from one in tests/analysis/test_search_tables.py.
@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"sensitivity"}))
def test_every_figure_comes_out(name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--study", "d1"] if not FIGURES[name].studies else []
    assert run(["figure", name, *own, "--home", str(home), "--out", str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert {path.suffix for path in written} == {".png", ".svg"}
    assert all(path.stat().st_size > 2000 for path in written)


def test_the_audit_and_the_claims_come_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert run(["claims", "--json", "--home", str(home)]) == 0
    assert "smoke" in capsys.readouterr().out


def test_one_plan_names_every_cell_and_what_sharing_saves(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "paper", "--profile", "smoke", "--json", "--home", str(home)]) == 0
    overview = json.loads(capsys.readouterr().out)
    assert overview["left"] == 0
    assert overview["named"] > 2 * overview["distinct"]
    assert overview["passes_saved"] > 0
