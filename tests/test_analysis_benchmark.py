"""The benchmark of what reads records runs and names what it measured; how long anything takes is not asserted."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.analysis import main


def test_it_times_what_was_asked_for(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    done = CliRunner().invoke(
        main, ["--runs", "60", "--points", "2", "--only", "audit,table tuned,claims", "--raw", str(raw)]
    )
    assert done.exit_code == 0, done.output
    written = json.loads(raw.read_text(encoding="utf-8"))
    assert written["runs"] == 60
    measured = [name for name in written["seconds"] if not name.startswith("load")]
    assert measured == ["audit", "claims", "table tuned"]
    assert all(name in done.output for name in measured)
