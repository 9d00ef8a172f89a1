from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.cli import main, run
from study.home import Home
from study.ui import free_port
from trainables import checkpoint
from trainables.errors import ConfigError
from trainables.kernels import fastest

SMALL = [
    "--profile",
    "smoke",
    "--set",
    "tasks.include=[depth_euclidean, edge_texture, normal, reshading, keypoints2d, depth_zbuffer]",
]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The shipped ablation at profile smoke on six tasks, through the command, without Ray."""
    home = tmp_path_factory.mktemp("cli") / "home"
    command = [sys.executable, "-m", "study", "run", "table4_d5", *SMALL, "--executor", "local", "--home", str(home)]
    return home, subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_run_prints_the_table_and_where_to_look(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, done = ran
    assert done.returncode == 0, done.stderr
    assert "Random (M=6)" in done.stdout
    assert re.search(r"Joint \(GD\) .* -8\.65 ± 0\.23", done.stdout)
    assert "18 trials, 0 found finished, 18 trained" in done.stderr
    assert f"open {Home(home).report('table4_d5', 'smoke')}" in done.stderr
    assert f"mtl-study ui --home {home}" in done.stderr
    assert "Traceback" not in done.stderr
    page = Home(home).report("table4_d5", "smoke").read_text()
    assert "Selective, random order" in page
    assert not re.search(r"\bsrc=|<link|@import|url\(", page)  # it loads nothing; links to runs are for following
    assert "http://127.0.0.1:5000/#/experiments/" in page


def test_run_again_finds_everything(
    ran: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "run", "table4_d5", *SMALL, "--executor", "local", "--home", str(ran[0]))
    assert code == 0
    assert "18 trials, 18 found finished, 0 trained" in err
    assert out == ran[1].stdout


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "json"])
def test_the_table_comes_in_every_format(
    form: str, ran: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "table", "table4_d5", "--format", form, "--home", str(ran[0]))
    assert code == 0
    assert "Heterogeneous" in out
    if form == "json":
        json.loads(out)
    if form == "latex":
        assert r"\toprule" in out


def test_plan_and_status_as_json(
    ran: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "plan", "table4_d5", *SMALL, "--seeds", "2", "--json", "--home", str(ran[0]))
    overview = json.loads(out)
    assert code == 0
    assert (overview["distinct"], overview["finished"], overview["left"]) == (36, 18, 18)
    assert overview["measured"]
    code, out, _ = call(capsys, "status", "table4_d5", "--json", "--home", str(ran[0]))
    assert code == 0
    assert json.loads(out)["counts"] == {"complete": 18}
    code, out, _ = call(capsys, "status", "table4_d5", "--home", str(ran[0]))
    assert (out.count(" 6 complete"), out.count(" 1 complete")) == (1, 12)


def test_plan_without_records_trains_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "plan", "table4_d5", "--home", str(tmp_path / "none"))
    assert code == 0
    assert "46 trials named, 46 distinct, 0 finished, 46 left" in out
    assert not (tmp_path / "none").exists()


def test_list_names_everything_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list", "--json")
    assert code == 0
    entries = json.loads(out)
    assert "table4_d5" in entries["studies"]
    assert {"gd", "single_task", "selective"} <= set(entries["methods"])
    assert {"scenes", "nyud", "pascal_context", "taskonomy", "qm9"} <= set(entries["data sets"])
    assert {"tuned", "tune_selective"} <= set(entries["searches"])
    assert {"vit_pico", "vit_tiny", "vit_small", "vit_base", "vit_large"} <= set(entries["backbones"])
    assert {"taskonomy", "nyud", "pascal_context", "qm9"} <= set(entries["task sets"])
    assert entries["task sets"]["nyud"] == "semseg, depth, normals, edge"
    assert all(about for kind in entries.values() for about in kind.values())
    code, out, _ = call(capsys, "list")
    assert "table4_d5" in out


def trial_file(folder: Path, tiny: dict[str, Any], **over: Any) -> Path:
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump({**tiny, **over}))
    return path


def test_a_trial_runs_in_the_foreground(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = trial_file(tmp_path, tiny, method={"name": "selective"})
    code, out, err = call(capsys, "trial", str(path), "--set", "method.beta=1e-2", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert {"val/normal/l1", "test/normal/l1"} <= set(result["metrics"])
    assert result["costs"]["iterations"] == 6
    assert "train/loss/normal" in err
    again = json.loads(call(capsys, "trial", str(path), "--set", "method.beta=1e-2", "--json")[1])
    assert again["metrics"] == result["metrics"]
    code, out, _ = call(capsys, "trial", str(path))
    assert "6 iterations in" in out


def test_a_trial_that_diverges_exits_with_1(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "trial", str(trial_file(tmp_path, tiny)), "--set", "optim.lr=1e30")
    assert code == 1
    assert "error: diverged by iteration" in err


def test_data_show_writes_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--set", "image_size=32", "--set", "train=4", "--set", "val=1", "--set", "test=1"]
    out_file = tmp_path / "sheet.png"
    code, out, err = call(capsys, "data", "show", "scenes", *sizes, "--count", "2", "--out", str(out_file))
    assert code == 0, err
    assert out.strip() == str(out_file)
    assert out_file.read_bytes().startswith(b"\x89PNG")
    code, _, err = call(capsys, "data", "show", "scenes", "--set", "image_sice=32")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'image_size'" in err


def test_doctor_looks_at_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor", "--json", "--home", str(tmp_path / "home"))
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert {"python", "torch", "cpu", "ray tune", "home", "records", "data: scenes", "weights: vit_base"} <= set(
        findings
    )
    assert findings["torch"]["level"] == "ok"
    assert ("cpu kernels" in findings) == (fastest() != "torch")
    assert findings["data: scenes"] == {"name": "data: scenes", "level": "ok", "found": "built on first use", "fix": ""}
    assert findings["data: nyud"]["level"] == "note"
    assert "data.root" in findings["data: nyud"]["found"]
    assert "gt_sets" in findings["data: nyud"]["fix"]
    assert findings["weights: vit_base"]["level"] == "note"
    assert "vit_base_patch16_384" in findings["weights: vit_base"]["fix"]
    assert code == (1 if any(f["level"] == "missing" for f in findings.values()) else 0)
    (tmp_path / "file").write_text("")
    code, out, _ = call(capsys, "doctor", "--home", str(tmp_path / "file" / "home"))
    assert code == 1
    assert "MISSING" in out


BAD: dict[str, tuple[list[str], str]] = {
    "unknown command": (["rum"], "unknown command 'rum'; did you mean 'run'?"),
    "unknown option": (["run", "table4_d5", "--sedes", "2"], "No such option '--sedes'"),
    "missing argument": (["run"], "Missing argument 'STUDY'"),
    "unknown study": (["run", "table4_d55"], "unknown study 'table4_d55'; did you mean 'table4_d5'?"),
    "unknown study to plan": (["plan", "table"], "unknown study 'table'"),
    "unknown profile": (["plan", "table4_d5", "--profile", "cup"], "unknown profile 'cup'; did you mean 'cpu'?"),
    "unknown field": (
        ["plan", "table4_d5", "--set", "optim.lrr=1"],
        "optim.lrr: unknown field 'lrr'; did you mean 'lr'",
    ),
    "wrong type": (["plan", "table4_d5", "--set", "optim.lr=fast"], "optim.lr: should be a valid number, got 'fast'"),
    "out of range": (["plan", "table4_d5", "--set", "train.batch_size=0"], "train.batch_size: should be greater than"),
    "unknown method": (
        ["run", "table4_d5", "--set", "method=gdd"],
        "method.name: unknown method 'gdd'; did you mean 'gd'?",
    ),
    "unknown backbone": (["plan", "table4_d5", "--set", "model.backbone=vit_pco"], "did you mean 'vit_pico'?"),
    "unknown task": (
        ["plan", "table4_d5", "--set", "tasks.include=[norml]"],
        "tasks.include: unknown taskonomy task 'norml'",
    ),
    "absent weights": (["plan", "table4_d5", "--set", "model.pretrained=/no/such.pth"], "/no/such.pth"),
    "no value": (["plan", "table4_d5", "--set", "optim.lr"], "--set optim.lr: PATH=VALUE is wanted"),
    "bad yaml value": (["plan", "table4_d5", "--set", "optim.lr=[1"], "--set optim.lr, line 1: not valid YAML"),
    "zero seeds": (["plan", "table4_d5", "--seeds", "0"], "Invalid value for '--seeds'"),
    "unknown executor": (["run", "table4_d5", "--executor", "rayy"], "unknown executor 'rayy'; did you mean 'ray'?"),
    "no records": (["table", "table4_d5"], "no records"),
    "no records for status": (["status", "table4_d5"], "no records"),
    "no records for ui": (["ui"], "no records"),
    "no file": (["trial", "/no/such.yaml"], "/no/such.yaml: cannot be read: No such file or directory"),
    "unknown data set": (["data", "show", "scene"], "unknown data set 'scene'; did you mean 'scenes'?"),
    "unwritable home": (["run", "table4_d5", "--home", "/dev/null/home"], "home /dev/null/home: cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments, message = BAD[case]
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "home" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: [gd", "trial.yaml, line 1: not valid YAML"),
        ("- 1\n- 2", "trial.yaml: a mapping of trial-config fields is wanted"),
        ("methd: gd", "trial.yaml: methd: unknown field 'methd'; did you mean 'method'?"),
        ("optim: {lr: 1, lr: 2}", "trial.yaml, line 1: not valid YAML: key 'lr' is given twice"),
        ("", "trial.yaml: a mapping of trial-config fields is wanted"),
    ],
)
def test_a_bad_config_file_is_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(text)
    code, _, err = call(capsys, "trial", str(path))
    assert code == 2
    assert err.count("\n") == 1
    assert message in err


SPEC = """
id: own
title: My own
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
  - {id: beta, label: B, set: {method: selective}, axes: {method.beta: [1e-3]}}
"""


def test_a_study_can_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SPEC)
    code, out, _ = call(capsys, "plan", str(path), "--json")
    assert code == 0
    assert [row["row"] for row in json.loads(out)["rows"]] == ["gd", "beta_0_001"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1e-3]", "[]", "rows.1.axes.method.beta: an axis needs at least one value"),
        ("baseline: gd", "baseline: single", "own.yaml: baseline: unknown row 'single' (allowed: beta, gd)"),
        ("title: My own", "titel: My own", "own.yaml: titel: unknown field 'titel'; did you mean 'title'?"),
        ("label: B", "label: 'B", "own.yaml, line "),
    ],
)
def test_a_mistake_in_a_study_file_is_named(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SPEC.replace(old, new))
    code, _, err = call(capsys, "run", str(path))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert call(capsys, "run", str(tmp_path / "none.yaml"))[0] == 2


def test_a_checkpoint_of_another_config_is_named(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = trial_file(tmp_path, tiny), tmp_path / "a.ckpt"
    checkpoint.save(file, {}, key="other", iteration=1)
    code, _, err = call(capsys, "trial", str(path), "--checkpoint", str(file))
    assert (code, err.count("\n")) == (2, 1)
    assert "a.ckpt: is a checkpoint of another config" in err
    file.write_bytes(b"nonsense")
    code, _, err = call(capsys, "trial", str(path), "--checkpoint", str(file))
    assert code == 2
    assert "a.ckpt: not a checkpoint of mtl-study" in err


@pytest.mark.parametrize("command", [*sorted(main.commands), "data show"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, *command.split(), "--help")
    assert code == 0
    assert "Usage: mtl-study" in out
    if command != "data":
        assert "Examples:" in out
        assert f"mtl-study {command}" in out.split("Examples:")[1]


def test_the_ui_serves_the_records_on_loopback(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    port = free_port(5600)
    command = [sys.executable, "-m", "study", "ui", "--home", str(ran[0]), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            assert "table4_d5" in get_experiments(port)
        finally:
            os.killpg(server.pid, 15)


def get_experiments(port: int) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
        data=b'{"max_results": 10}',
        headers={"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def test_a_taken_port_gives_the_next_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
    with pytest.raises(ConfigError, match="--port 65536: neither"):
        free_port(65536)
