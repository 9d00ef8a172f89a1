"""The benchmark of step costs runs and says what it should; how long anything takes is not asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert by_name["mgda"]["to plain"]
    # The copies of the pattern's flat Jacobian show.
    assert float(by_name["mgda (plain)"]["peak MB"]) > float(by_name["mgda"]["peak MB"])


def test_every_target_has_a_verdict(output: tuple[str, object]) -> None:
    verdicts = [line for line in output[0].splitlines() if line.startswith("- ")]
    assert len(verdicts) == 10
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
    share = re.search(r"one row pass takes \d+ ms, (\d+) % of it in products", done.stdout)
    assert share
    assert 0 < int(share[1]) <= 100
