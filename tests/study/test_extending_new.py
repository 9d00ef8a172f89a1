"""What ``mtl-study new`` writes works as it is: it installs, passes its own tests, and trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from other_packages import install, python

from study.cli import run
from study.cli.making import PACKAGES, make
from study.plan import make_plan
from study.spec import load_spec
from trainables.errors import ConfigError

NAMES = {"method": "my_mean", "dataset": "discs", "task": "rooms2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """One package of each kind, installed: the folder they are installed in and their own folders."""
    base = tmp_path_factory.mktemp("made")
    projects = {kind: make(kind, name, base / "work") for kind, name in NAMES.items()}
    install(base / "site", *projects.values())
    return base / "site", projects


@pytest.mark.slow
def test_the_tests_that_are_written_pass(made: tuple[Path, dict[str, Path]]) -> None:
    site, projects = made
    tests = [str(project / "tests") for project in projects.values()]
    how = ["-p", "no:cacheprovider", "-q", "-c", str(projects["method"] / "pyproject.toml"), "-W", "error"]
    done = python(site, site.parent, "-m", "pytest", *how, *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


COMMANDS = """
import sys
from study.cli import run

for arguments in ["list"], *(["trial", path] for path in sys.argv[1:]):
    code = run([*arguments, "--json"])
    if code:
        sys.exit(code)
"""


def test_they_are_listed_and_trained_with(
    made: tuple[Path, dict[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    site, projects = made
    # One process for all commands: each would take seconds to start.
    done = python(site, site.parent, "-c", COMMANDS, *(str(project / "trial.yaml") for project in projects.values()))
    assert done.returncode == 0, done.stderr
    listed, *trials = parts(done.stdout)
    assert listed["methods"]["my_mean"].startswith("Every loss over its own running mean: ")
    assert listed["data sets"]["discs"].startswith("Discs at random distances")
    assert listed["task sets"]["rooms2"] == "depth, normal"
    for trial, metric in zip(trials, ("normal/l1", "semseg/miou", "normal/mean_angular_error"), strict=True):
        assert trial["costs"]["iterations"] == 20
        assert f"test/{metric}" in trial["metrics"]
    assert run(["trial", str(projects["method"] / "trial.yaml")]) == 2  # not installed here
    assert "method.name: unknown method 'my_mean'" in capsys.readouterr().err


def parts(text: str) -> list[Any]:
    """JSON values one after another."""
    out, at = [], 0
    while at < len(text.rstrip()):
        value, end = json.JSONDecoder().raw_decode(text[at:].lstrip())
        at = len(text) - len(text[at:].lstrip()) + end
        out.append(value)
    return out


@pytest.mark.parametrize("kind", PACKAGES)
def test_what_is_written_is_well_formed(made: tuple[Path, dict[str, Path]], kind: str) -> None:
    _, projects = made
    name, project = NAMES[kind], projects[kind]
    module = f"mtl_study_{name}"
    files = {str(p.relative_to(project)) for p in project.rglob("*") if p.is_file()}
    wanted = {"pyproject.toml", "README.md", "trial.yaml", f"{module}/__init__.py", f"tests/test_{name}.py"}
    assert wanted <= files
    assert not [path for path in wanted if "$" in (project / path).read_text()]
    rules = ["--isolated", "--line-length", "120"]
    for check in (["check", *rules, "--select", "E,F,I,UP,B"], ["format", "--check", *rules]):
        run = [sys.executable, "-m", "ruff", *check, module, "tests"]
        done = subprocess.run(run, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_study_that_is_written_can_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "study", "mine", "--out", str(tmp_path / "studies")]) == 0
    path = tmp_path / "studies" / "mine.yaml"
    assert f"wrote {path}" in capsys.readouterr().out
    spec = load_spec(str(path))
    assert spec.id == yaml.safe_load(path.read_text())["id"] == "mine"
    plan = make_plan(spec, None, None, {})
    assert len(plan.trials) == 7


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = make("study", "mine", tmp_path)
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: exists already; nothing is overwritten$"):
        make("study", "mine", tmp_path)
    assert path.read_text(encoding="utf-8") == "precious"
    (tmp_path / "mtl-study-mine").mkdir()
    with pytest.raises(ConfigError, match="mtl-study-mine: exists already"):
        make("method", "mine", tmp_path)
    assert list((tmp_path / "mtl-study-mine").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"file/below: cannot be written: Not a directory$"):
        make("method", "mine", tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["", "Mine", "my-method", "1st", "_x", "x_", "a__b", "class", "x" * 41, "../up", "é"])
def test_names_that_are_not_allowed(tmp_path: Path, name: str) -> None:
    for kind in (*PACKAGES, "study"):
        with pytest.raises(ConfigError, match=r"^name: small letters, digits and single underscores are wanted"):
            make(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name", "word"),
    [
        ("method", "gd", "method"),
        ("dataset", "scenes", "data set"),
        ("task", "nyud", "task set"),
        ("study", "d4", "study"),
    ],
)
def test_names_that_are_taken(tmp_path: Path, kind: str, name: str, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"^name: there is a {word} '{name}' already$"):
        make(kind, name, tmp_path)


def test_a_kind_there_is_none_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "metod", "mine"]) == 2
    assert "'method', 'dataset', 'task', 'study'" in capsys.readouterr().err
