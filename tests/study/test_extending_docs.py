"""The worked example of docs/extending.md, followed as it is written."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from other_packages import ROOT, install, python

from study import testing
from study.cli import run
from study.cli.making import PACKAGES
from study.spec import STUDIES
from study.testing import Scripted
from trainables.data import DATA_SETS
from trainables.methods import METHODS
from trainables.methods.selective import CLUSTERERS, GROUPINGS
from trainables.models import BACKBONES
from trainables.registry import Registry
from trainables.task_sets import TASK_SETS

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE, flags=re.M | re.S))
MODULE = "mtl_study_gradvac/__init__.py"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the page says, done: where the package is installed, and its folder."""
    base = tmp_path_factory.mktemp("page")
    (command,) = re.findall(r"^\$ mtl-study (new .*)$", PAGE, flags=re.M)
    assert run([*command.split(), "--out", str(base)]) == 0
    project = base / "mtl-study-gradvac"
    for path, text in BLOCKS.items():
        assert (project / path).is_file()  # what is replaced
        (project / path).write_text(text, encoding="utf-8")
    install(base / "site", project)
    return base / "site", project


def test_the_method_takes_under_60_lines() -> None:
    assert set(BLOCKS) == {MODULE, "tests/test_gradvac.py", "trial.yaml"}
    assert len([line for line in BLOCKS[MODULE].splitlines() if line.strip()]) < 60


@pytest.mark.slow
def test_its_tests_pass(followed: tuple[Path, Path]) -> None:
    done = python(followed[0], followed[1], "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_it_trains(followed: tuple[Path, Path]) -> None:
    done = python(followed[0], followed[1], "-m", "study", "trial", "trial.yaml", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["costs"]["iterations"] == 20
    assert "test/normal/l1" in printed["metrics"]


@pytest.fixture
def gradvac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's module, registered in this process for one test."""
    path = tmp_path / "gradvac.py"
    path.write_text(BLOCKS[MODULE], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("gradvac_of_the_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS._entries, "gradvac", module.GradvacMethod)
    return module


@pytest.mark.parametrize("beta", [0.01, 0.5, 0.9])
def test_it_agrees_with_torchjd(gradvac: ModuleType, beta: float) -> None:
    from torchjd.aggregation import GradVac

    generator = torch.Generator().manual_seed(0)
    reference = GradVac(beta=beta, eps=0.0)
    bench = Scripted({"name": "gradvac", "beta": beta}, torch.zeros(2, 4))
    for _ in range(30):  # two tasks: there is one order only
        bench.rows = torch.randn(2, 4, dtype=torch.float64, generator=generator)
        bench.iterate([1.0, 1.0])
        torch.testing.assert_close(bench.trunk.grad, reference(bench.rows))


def test_the_page_names_every_group_and_contract() -> None:
    registries: tuple[Registry[object], ...] = (
        METHODS,
        DATA_SETS,
        TASK_SETS,
        BACKBONES,
        GROUPINGS,
        CLUSTERERS,
        STUDIES,
    )
    assert set(re.findall(r"`(mtl_study\.\w+)`", PAGE)) == {registry.group for registry in registries}
    named = set(re.findall(r"`(\w+Contract)`", PAGE))
    assert named == {name for name in testing.__all__ if name.endswith("Contract")} - {"GradientContract"}
    for kind in PACKAGES:
        assert f"`mtl-study new {kind} NAME`" in PAGE
