"""Studies on folders of real data, from the command to the table; and what is said where there is no such folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mtan_files
import pytest
import taskonomy_files

from analysis.records import Records
from study.cli import run
from study.spec import load_spec

FEW = """
id: few
title: Three methods
profile: smoke
base:
  tasks: {set: SET}
baseline: single_task
rows:
  - {id: single_task, label: Single Task, set: {method: single_task}, per_task: true}
  - {id: gd, label: GD, set: {method: gd}}
  - {id: selective, label: Selective, set: {method: selective}}
"""


def trained(capsys: pytest.CaptureFixture[str], home: Path, study: str, *fields: str) -> dict[str, dict[str, Any]]:
    """The rows of a study's table at profile smoke, by id, once it is trained."""
    chosen = [part for field in fields for part in ("--set", field)]
    own = ["--profile", "smoke", "--home", str(home)]
    assert run(["run", study, *own, *chosen, "--executor", "local", "--workers", "1", "--quiet"]) == 0
    capsys.readouterr()
    assert run(["table", Path(study).stem, *own, "--format", "json"]) == 0
    return {row["id"]: row for row in json.loads(capsys.readouterr().out)["rows"]}


@pytest.mark.slow
def test_every_method_and_metric_on_a_folder_of_taskonomy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = taskonomy_files.write(tmp_path / "taskonomy")
    fields = ("data.root=" + str(folder), "data.name=taskonomy", "data.image_size=32", "data.mask=holes")
    rows = trained(capsys, tmp_path / "home", "d1", *fields)
    assert list(rows) == [row.id for row in load_spec("d1").rows]
    tasks = ["DE", "DZ", "EO", "ET", "K2", "K3", "N", "C", "R", "S2", "S2.5"]
    assert all(math.isfinite(row[task]) and row[task] > 0 for row in rows.values() for task in tasks)
    assert all(math.isfinite(row["delta_m"]) for row in rows.values())
    # A pixel of a hole that were counted would be off by about 255.
    assert all(row[task] < 5 for row in rows.values() for task in tasks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_set", "data", "size", "classes", "tasks"),
    [
        ("cityscapes", "cityscapes_mtan", (128, 256), 7, ["Semseg", "Depth"]),
        ("nyuv2", "nyuv2_mtan", (288, 384), 13, ["Semseg", "Depth", "Normal"]),
    ],
)
def test_a_folder_of_mtans_data(
    task_set: str,
    data: str,
    size: tuple[int, int],
    classes: int,
    tasks: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = mtan_files.write_npy(tmp_path / data, size, classes, normals=task_set == "nyuv2")
    (tmp_path / "few.yaml").write_text(FEW.replace("SET", task_set))
    fields = (f"data.name={data}", f"data.root={folder}", "data.augment=true", "train.batch_size=1")
    rows = trained(capsys, tmp_path / "home", str(tmp_path / "few.yaml"), *fields, "train.budget.amount=1")
    assert list(rows) == ["single_task", "gd", "selective"]
    assert all(math.isfinite(row[task]) for row in rows.values() for task in [*tasks, "delta_m"])
    assert_main_metrics_fill_the_table(tmp_path / "home", rows)


def assert_main_metrics_fill_the_table(home: Path, rows: dict[str, dict[str, Any]]) -> None:
    """What is measured beside a task's metric is recorded for both splits and changes no table."""
    records = Records.load(home, "few", "smoke")
    found = records.metrics.groupby(["task", "split"])["metric"].agg(set)
    assert found["semseg", "test"] == found["semseg", "val"] == {"miou", "pixel_accuracy"}
    assert found["depth", "test"] == {"abs_err", "rel_err"}
    if "normal" in found:
        assert {"median_angular_error", "within_11.25", "within_30"} < found["normal", "val"]
    test = records.metrics[records.metrics["split"] == "test"].set_index(["row", "task", "metric"])["value"]
    for name, row in rows.items():
        assert row["Semseg"] == pytest.approx(test[name, "semseg", "miou"])
        assert row["Depth"] == pytest.approx(test[name, "depth", "abs_err"])


@pytest.mark.parametrize(
    ("study", "wanted"),
    [
        ("d3", "rgb/[taskonomy/]BUILDING/point_P_view_V_domain_rgb.png"),
        ("nyuv2", "{train,val}/{image,label,depth,normal}/0.npy"),
    ],
)
def test_profile_paper_says_in_one_line_which_folder_it_wants(
    study: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--profile", "paper", "--home", str(tmp_path / "home")]
    assert run(["run", study, *own, "--executor", "local"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: data.root: data set '")
    assert wanted in said[-1]
    assert not [line for line in said if "Traceback" in line]


def test_weights_that_are_not_here_are_said_before_anything_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = taskonomy_files.write(tmp_path / "taskonomy")
    own = ["--profile", "paper", "--home", str(tmp_path / "home"), "--executor", "local"]
    fields = ["--set", f"data.root={folder}", "--set", "train.batch_size=4"]
    assert run(["run", "d3", *own, *fields]) == 2
    assert "error: model.pretrained: timm/vit_tiny_patch16_384" in capsys.readouterr().err
