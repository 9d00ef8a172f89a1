"""`mtl-study search --json`: what a program reads while a search goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contests import SPEC

from study import schema
from study.cli import run
from study.home import Home
from study.store import open_client

pytestmark = pytest.mark.slow


def events(home: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    code = run(["search", str(spec), "--executor", "local", "--workers", "1", "--home", str(home), "--json"])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_line_is_an_event_and_they_tell_the_whole_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, home = tmp_path / "little.yaml", tmp_path / "home"
    spec.write_text(SPEC.replace("trials: 12", "trials: 3"))
    code, found = events(home, spec, capsys)
    assert code == 0
    kinds = [event["event"] for event in found]
    assert kinds[0] == "start", "of the baseline and the defaults"
    assert kinds[-2:] == ["table", "end"]
    trials = [event for event in found if event["event"] == "trial"]
    assert [event["number"] for event in trials] == [0, 1, 2]
    for event in trials:
        assert event["contender"] == "gd"
        assert set(event["point"]) == {"optim.lr", "train.batch_size"}
        assert event["status"] == schema.VALIDATED
        assert event["best"]["delta_m"] >= event["delta_m"] - 1e-9
        own = open_client(Home(home)).get_run(event["run"])
        assert own.data.tags[schema.TRIAL_KEY] == event["key"]
    assert trials[-1]["share_spent"] == 1.0
    own = {event["key"] for event in trials}
    assert {event["key"] for event in found if event["event"] == "progress" and "contender" in event} <= own
    (contender,) = (event for event in found if event["event"] == "contender")
    assert (contender["trials"], contender["best"]) == (3, trials[-1]["best"])
    end = found[-1]
    assert (end["complete"], end["interrupted"], end["failures"]) == (True, False, [])
    winner = next(event for event in trials if event["number"] == contender["best"]["number"])
    assert end["winners"] == {"gd": winner["point"]}
    assert Path(found[-2]["report"]).is_file()
    code, again = events(home, spec, capsys)
    assert code == 0
    assert not [event for event in again if event["event"] in ("trial", "progress", "done")], "nothing is done twice"
    assert again[-1] == end
