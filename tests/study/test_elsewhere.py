"""A home whose checkpoints are behind a URL, and nodes with data of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import schema
from study.cli import run
from study.home import Home
from study.plan import Plan, make_plan
from study.runner import task_of
from study.spec import parse_spec
from study.store import open_client, search
from trainables.remote import RemoteFile
from trainables.session import Session

SPEC = """
id: little
title: Two methods
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, reshading]}
  train: {batch_size: 2, budget: {amount: 6}}
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
  - {id: famo, label: FAMO, set: {method: famo}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "little.yaml"
    file.write_text(SPEC)
    return file


def plan(spec: Path) -> Plan:
    return make_plan(parse_spec(spec.read_text(), str(spec)), None, 1, {})


def finals(home: Path) -> dict[str, dict[str, float]]:
    """Cell to what counts in the end."""
    runs = [each for each in search(open_client(Home(home)), "") if each.data.tags[schema.KIND] == schema.TRIAL_RUN]
    assert {each.info.status for each in runs} == {"FINISHED"}
    found = {each.data.tags[schema.CELL]: each.data.metrics for each in runs}
    return {cell: {n: v for n, v in all_.items() if n.startswith(("val/", "test/"))} for cell, all_ in found.items()}


def trains(spec: Path, home: Path, *options: str) -> None:
    words = ["run", str(spec), "--seeds", "1", "--home", str(home), "--executor", "local", "--workers", "2", "--quiet"]
    assert run([*words, *options]) == 0


@pytest.mark.slow
def test_a_run_goes_on_from_there_and_ends_as_one_at_home(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trains(spec, tmp_path / "plain")
    monkeypatch.setenv("NODES_DISK", str(tmp_path / "node"))
    shelf, data = f"local://{tmp_path}/shelf", "$NODES_DISK/data"
    home = Home(tmp_path / "home", checkpoint_root=shelf, node_data=data)
    trial = plan(spec).trials[0]
    # Driver and worker ended in the middle of a trial.
    begun = Session(task_of(trial, home, "cpu"), checkpoint_seconds=0.0)
    begun.advance(0.0)
    left = home.checkpoint(trial.key)
    assert isinstance(left, RemoteFile)
    assert left.exists()
    assert not home.data.exists(), "the node built its own where the home has none"

    trains(spec, home.path, "--checkpoints", shelf, "--node-data", data)
    assert finals(home.path) == finals(tmp_path / "plain")
    assert not list(home.checkpoints.rglob("*"))
    assert not (home.path / "checkpoints").exists()

    Session(task_of(trial, home, "cpu"), checkpoint_seconds=0.0).advance(0.0)
    capsys.readouterr()
    options = ["--home", str(home.path), "--checkpoints", shelf]
    run(["doctor", *options, "--repair"])
    assert "0 of unfinished trials, 1 of finished ones" in capsys.readouterr().out
    assert not list(home.checkpoints.rglob("*"))


def test_what_is_elsewhere_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_STUDY_CHECKPOINTS", "s3://bucket/mtl/")
    monkeypatch.setenv("MTL_STUDY_NODE_DATA", "/local/mtl")
    home = Home.locate(tmp_path)
    assert str(home.checkpoint("ab" * 32)) == f"s3://bucket/mtl/ab/{'ab' * 32}.ckpt"
    assert home.node_data == "/local/mtl"
    monkeypatch.setenv("MTL_STUDY_CHECKPOINTS", "/mnt/fast")
    assert Home.locate(tmp_path).checkpoint("ab" * 32) == Path(f"/mnt/fast/ab/{'ab' * 32}.ckpt")


def test_a_password_is_refused_on_the_command_line(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(spec), "--checkpoints", "s3://me:secret@host/b"]) == 2
    said = capsys.readouterr().err
    assert "a URL with a password in it belongs into $MTL_STUDY_CHECKPOINTS" in said
    assert "secret" not in said
