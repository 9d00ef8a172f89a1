"""The benchmark of step costs runs and says what it should; how long anything takes is not asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contestants import Contestant, contestants
from benchmarks.table import Row, verdicts
from benchmarks.workbench import Setting, Step, memory_of
from trainables.clock import PHASES
from trainables.kernels import has_onednn
from trainables.methods import Method, Update

ROOT = Path(__file__).parent.parent
METHODS = ("gd", "mgda", "famo", "selective")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, dict[str, list[dict[str, object]]]]]:
    raw = tmp_path_factory.mktemp("benchmark") / "raw.json"
    command = [sys.executable, "-m", "benchmarks.step_cost", "--tasks", "nyud", "--backbone", "vit_pico"]
    command += ["--image-size", "32", "--batch", "2", "--rounds", "1", "--methods", "mgda,famo,selective"]
    done = subprocess.run(
        [*command, "--raw", str(raw)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(raw.read_text(encoding="utf-8"))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_for_every_method_and_comparison(output: tuple[str, object]) -> None:
    lines = [line for line in output[0].splitlines() if line.startswith("|")]
    header, rows = cells(lines[0]), [dict(zip(cells(lines[0]), cells(line), strict=True)) for line in lines[2:]]
    for column in ("method", "floor", "ratio", "of floor", "manipulation", "clustering", "to plain", "peak MB"):
        assert column in header
    by_name = {row["method"]: row for row in rows}
    assert {name.partition(" ")[0].rstrip(",") for name in by_name} == set(METHODS)
    assert by_name["gd"]["ratio"] == "1.000"
    assert by_name["gd"]["rows over GD"] == "0.000"
    # (1 + 2 K) / 3 for four tasks; the number of groups; four thirds.
    assert [by_name[name]["floor"] for name in ("mgda", "selective, M=2", "famo")] == ["3.00", "2.00", "1.33"]
    assert by_name["mgda, streamed rows"]["floor"] == "3.67"
    assert by_name["mgda"]["to plain"]
    # The copies of the pattern's flat Jacobian show.
    assert float(by_name["mgda (plain)"]["peak MB"]) > float(by_name["mgda"]["peak MB"])


def test_every_target_has_a_verdict(output: tuple[str, object]) -> None:
    verdicts = [line for line in output[0].splitlines() if line.startswith("- ")]
    assert len(verdicts) == 11
    assert all("met by all" in line or "missed" in line or "not measured" in line for line in verdicts)


def test_the_phases_add_up_to_the_step(output: tuple[str, dict[str, dict[str, list[dict[str, object]]]]]) -> None:
    for steps in output[1]["nyud"].values():
        for step in steps:
            phases = step["phases"]
            assert isinstance(phases, dict)
            assert sum(phases.values()) == pytest.approx(step["seconds"])


def test_the_bound_of_a_row_pass_is_told() -> None:
    command = [sys.executable, "-m", "benchmarks.bound", "--backbone", "vit_pico", "--image-size", "32"]
    done = subprocess.run(
        [*command, "--batch", "2", "--rounds", "1"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    less = re.findall(r"^(\w+): \d+ ms, .* (-?\d+) % less$", done.stdout, re.MULTILINE)
    assert [name for name, _ in less] == (["torch", "onednn"] if has_onednn() else ["torch"])
    assert all(int(share) < 100 for _, share in less)


def test_memory_is_compared_beside_what_a_method_remembers() -> None:
    mgda, imtl = (Contestant(name, "gradient", _unmade) for name in ("mgda", "imtl"))
    step = {0: Step(1.0, dict.fromkeys(PHASES, 0.0), 1)}
    exact = Row(mgda, 4, step, step, peak=500, stacks_over_gd=1.0, peak_to_gd=5.0, stacks_beside_own=1.0)
    more = Row(imtl, 4, step, step, 600, stacks_over_gd=1.25, peak_to_gd=6.0, own_bytes=100, stacks_beside_own=1.0)
    told = next(line for line in verdicts([exact, more]).splitlines() if "stack of K rows" in line)
    assert "(imtl 100 bytes): met by all 2" in told
    # One byte more than it remembers is too much.
    told = next(
        line
        for line in verdicts([exact, replace(more, stacks_beside_own=1.0025)]).splitlines()
        if "stack of K rows" in line
    )
    assert "missed** by 1 of 2: imtl" in told


def test_a_method_is_charged_for_the_tensors_it_saves(tmp_path: Path) -> None:
    setting = Setting("nyud", "vit_pico", 32, 2, "cpu")
    kept = {
        who.label: memory_of(setting, tmp_path, who.make, steps=2)
        for who in contestants(4, ["mgda", "imtl"], comparisons=False)
        if who.label in ("mgda", "imtl")
    }
    # Four log-scales and Adam's two moments of each, in float64, and its count of steps.
    assert kept["imtl"].state - kept["mgda"].state == 3 * 4 * 8 + 4
    assert kept["imtl"].peak - kept["mgda"].peak == 3 * 4 * 8 + 4


def _unmade(update: Update) -> Method:
    raise NotImplementedError
