"""A home with one of everything that can be wrong: found, mended where nothing is lost, and sound after that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from little import plan

from study import schema
from study.cli import run
from study.home import Home
from study.inspection import Observation, inspect
from study.lease import gone
from study.migrate import FORMAT, migrate, read_format
from study.sink import MlflowSink
from study.tracking import Tracker, finished_keys, open_client
from trainables import checkpoint
from trainables.errors import StoreError
from trainables.history import Point
from trainables.session import Report


def whole(trial: Any) -> Report:
    """A last report with all the final metrics of a trial."""
    points = [Point(f"train/loss/{task}", 6, 0.5) for task in trial.tasks]
    points += [Point(f"{split}/{task}/l1", 6, 0.25) for task in trial.tasks for split in ("val", "test")]
    return Report(trial.key, 6, 1.0, points, {"iterations": 6.0, "seconds": 1.0}, first=True, done=True)


def record(home: Home, count: int = 2) -> Tracker:
    """The tracker of a study whose first trials are recorded as finished."""
    planned = plan()
    tracker = Tracker(home, planned.parent_run(), "test")
    for trial in planned.trials[:count]:
        tracker.log(trial, whole(trial))
    return tracker


def levels(home: Home, *, repair: bool = False) -> dict[str, Observation]:
    return {seen.name: seen for seen in inspect(home, repair=repair)}


def test_a_sound_home_is_called_so(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    record(home).close(schema.COMPLETE)
    seen = levels(home)
    assert {name: each for name, each in seen.items() if each.level != "ok"} == {}
    assert seen["trial runs"].found == "2 complete"
    assert seen["results"].found == "2 trials finished once, 0 more than once"
    assert json.loads(home.format_file.read_text()) == {"name": "mtl-study home", "format": FORMAT}


def end_without_a_word(tracker: Tracker) -> None:
    """What the kernel leaves of a driver that was killed."""
    tracker.custody.spool.stop()
    tracker.custody.leases._stop.set()
    tracker.custody.leases.presence._file.close()
    assert gone(tracker.home.drivers, tracker.custody.leases.owner)


def test_each_fault_is_found_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, trials = Home(tmp_path / "home"), plan().trials
    tracker = record(home)
    # A run, a lease and records that wait, of a driver that was killed.
    tracker.claim(trials[2].key)
    tracker.log(trials[2], Report(trials[2].key, 1, 0.2, [], {"iterations": 1.0}, first=True))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowSink, "apply", lambda *args: (_ for _ in ()).throw(ConnectionError("gone")))
        tracker.log(trials[3], whole(trials[3]))
    end_without_a_word(tracker)
    # A result without its final metrics.
    client = tracker.client
    short = client.create_run(tracker._experiment, tags={schema.KIND: schema.TRIAL_RUN, schema.SCHEMA: "1"})
    client.set_tag(short.info.run_id, schema.STATUS, schema.COMPLETE)
    client.set_tag(short.info.run_id, schema.TRIAL_KEY, trials[4].key)
    client.set_terminated(short.info.run_id, "FINISHED")
    # A checkpoint of a finished trial, a damaged one before which there is a good one, half a one.
    checkpoint.save(home.checkpoint(trials[0].key), {}, key=trials[0].key, iteration=1)
    for iteration in (1, 2):
        checkpoint.save(home.checkpoint(trials[2].key), {"x": 1}, key=trials[2].key, iteration=iteration)
    damaged = bytearray(home.checkpoint(trials[2].key).read_bytes())
    damaged[-20] ^= 1
    home.checkpoint(trials[2].key).write_bytes(bytes(damaged))
    part = home.checkpoint(trials[2].key).with_name(f"{trials[2].key}.ckptxyz.part")
    part.write_bytes(b"half")
    # An older home.
    home.format_file.unlink()
    database = home.database.read_bytes()

    seen = levels(home)
    assert {name for name, each in seen.items() if each.level == "wrong"} == {
        "final metrics",
        "artifacts",
        "checkpoint sums",
    }
    assert {name for name, each in seen.items() if each.level == "note"} == {
        *("format", "spool", "leases", "drivers", "orphans", "checkpoints", "unfinished writes"),
    }
    assert home.database.read_bytes() == database
    assert part.exists()

    mended = levels(home, repair=True)
    assert {name for name, each in mended.items() if each.level == "mended"} == {
        *("format", "spool", "leases", "drivers", "orphans", "checkpoints", "unfinished writes"),
        *("final metrics", "checkpoint sums"),
    }
    after = levels(home)
    assert {name: each for name, each in after.items() if each.level != "ok"} == {}
    assert finished_keys(open_client(home)) == {trial.key for trial in (*trials[:2], trials[3])}
    assert checkpoint.check(home.checkpoint(trials[2].key)).iteration == 1
    assert not home.checkpoint(trials[0].key).exists()


def test_a_live_drivers_trials_are_left_alone(tmp_path: Path) -> None:
    home, trials = Home(tmp_path / "home"), plan().trials
    tracker = record(home)
    tracker.log(trials[2], Report(trials[2].key, 1, 0.2, [], {"iterations": 1.0}, first=True))
    checkpoint.save(home.checkpoint(trials[2].key), {}, key=trials[2].key, iteration=1)
    assert {each.level for each in inspect(home, repair=True)} == {"ok"}
    assert checkpoint.check(home.checkpoint(trials[2].key)).key == trials[2].key
    tracker.log(trials[2], whole(trials[2]))
    tracker.close(schema.COMPLETE)
    assert trials[2].key in finished_keys(open_client(home))


def test_a_missing_artifact_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path / "home")
    record(home).close(schema.COMPLETE)
    next(home.artifacts.rglob(schema.CONFIG_FILE)).unlink()
    assert levels(home)["artifacts"].level == "wrong"
    code = run(["doctor", "--home", str(home.path)])
    out, _ = capsys.readouterr()
    assert code == 1
    assert "WRONG" in out
    assert "1 runs lack one" in out


def test_a_home_of_a_newer_version_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path / "home")
    record(home).close(schema.COMPLETE)
    home.format_file.write_text(json.dumps({"name": "mtl-study home", "format": FORMAT + 1}))
    before = home.database.read_bytes()
    for command in (
        ["status", "little"],
        ["verify"],
        ["doctor", "--repair"],
        ["run", "table4_d5", "--executor", "local"],
    ):
        assert run([*command, "--home", str(home.path)]) == 2
        _, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert f"is of format {FORMAT + 1}, made by a newer mtl-study" in err
    assert home.database.read_bytes() == before


def test_an_older_home_is_raised_and_keeps_its_records(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert read_format(home) == 0
    record(home).close(schema.COMPLETE)
    home.format_file.unlink()
    assert read_format(home) == 1
    with home.lock(), pytest.raises(StoreError, match="another run"):
        migrate(home)
    assert migrate(home) == 1
    assert read_format(home) == FORMAT
    assert len(finished_keys(open_client(home))) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "mtl-study home"}', '{"name": "x", "format": 2}', "\x00", "1"]
)
def test_a_damaged_format_file_is_named(text: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.format_file.write_text(text)
    with pytest.raises(StoreError, match=r"format\.json: not the format file of a home") as caught:
        read_format(home)
    assert "\n" not in str(caught.value)


def test_there_must_be_a_home_to_look_through(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="none: there is none"):
        inspect(Home(tmp_path / "none"))
