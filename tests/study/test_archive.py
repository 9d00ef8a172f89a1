"""Records carried from home to home: the same tables there, nothing twice, nothing from an unsound archive."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, mixed_study, plan, row

from analysis.records import Records
from analysis.render import render
from analysis.tables import make_table
from study import schema
from study.archive import export
from study.cli import run
from study.home import Home
from study.merge import import_archive
from study.parcel import Limits, check_name, opened, written
from study.portable import ExperimentRecord, encode, load_record
from trainables.errors import StoreError


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("empty")
    SyntheticStore(home)
    return home / "mlflow.db"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Path:
    """A home with a study in every state, curves that are not finite, a history, and a run still going on."""
    home = tmp_path_factory.mktemp("source") / "home"
    store = SyntheticStore(home, empty)
    mixed_study(store)
    rows = [baseline_row(), row("gd", [cell("gd-0", 0), cell("own-1", 1)])]
    store.study(plan(rows, study="second"))
    curve = [(1, float("nan")), (2, float("inf")), (3, 0.1)]
    own = store.trial(
        "own-1", {"depth/rmse": 0.1 + 0.2, "semseg/miou": 40.0}, study="second", metrics={"groups/count": curve}
    )
    store.history(own, {"iteration": np.arange(3), "tasks": np.array(["depth", "semseg"])})
    store.client.log_param(own, "optim.lr", "0.001")
    return home


@pytest.fixture(scope="module")
def archive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "all.zip"
    export(Home(source), path)
    return path


def shown(home: Path, study: str) -> tuple[str, list[dict[str, object]], list[dict[str, object]]]:
    records = Records.load(home, study)
    places = ["run_id", "experiment_id"]
    return (
        render(make_table(records), "json"),
        records.trials.drop(columns=places).astype(str).to_dict("records"),
        records.metrics.drop(columns="run_id").to_dict("records"),
    )


def dump(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return list(connection.iterdump())


def test_tables_are_the_same_in_an_empty_home_and_a_second_import_changes_nothing(
    source: Path, archive: Path, tmp_path: Path
) -> None:
    home = tmp_path / "new"
    done = import_archive(Home(home), archive)
    assert (done.studies, done.present, done.conflicts) == (2, 0, [])
    for study in ("toy", "second"):
        there, here = shown(source, study), shown(home, study)
        # A run that is going on is left out.
        assert here[0] == there[0].replace("running (seed 0)", "missing (seed 0)")
        assert here[2] == there[2]
        same = [(a, b) for a, b in zip(there[1], here[1], strict=True) if a["status"] != "running"]
        assert all(a == b for a, b in same)
        assert len(same) >= len(there[1]) - 1
    ours, theirs = Records.load(home, "second"), Records.load(source, "second")
    columns = ["row", "seed", "step", "value"]
    assert ours.curves("groups/count")[columns].equals(theirs.curves("groups/count")[columns])
    assert ours.history("own-1")["tasks"].tolist() == ["depth", "semseg"]
    before = dump(home)
    again = import_archive(Home(home), archive)
    assert (again.studies, again.trials, again.others, again.conflicts) == (0, 0, 0, [])
    assert again.present == done.studies + done.trials + done.others
    assert dump(home) == before


def test_an_archive_of_one_study_has_the_trials_that_others_trained_for_it(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "second.zip"
    done = export(Home(source), path, ["second"])
    assert (done.studies, done.trials) == (("second",), 6)  # four of the baseline, gd-0, own-1
    import_archive(Home(tmp_path / "new"), path)
    assert shown(tmp_path / "new", "second") == shown(source, "second")
    with pytest.raises(StoreError, match="unknown study in the records 'secnd'; did you mean 'second'"):
        export(Home(source), tmp_path / "no.zip", ["secnd"])


def test_equal_records_give_equal_archives_and_none_is_overwritten(source: Path, archive: Path, tmp_path: Path) -> None:
    export(Home(source), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    with pytest.raises(StoreError, match="is there already"):
        export(Home(source), tmp_path / "again.zip")


def test_a_home_that_was_moved_is_exported_whole(source: Path, archive: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(source, moved)
    shutil.move(source / "artifacts", source / "hidden")
    try:
        export(Home(moved), tmp_path / "moved.zip")
    finally:
        shutil.move(source / "hidden", source / "artifacts")
    assert (tmp_path / "moved.zip").read_bytes() == archive.read_bytes()


@pytest.fixture
def colleague(tmp_path: Path, empty: Path) -> Callable[..., Path]:
    def make(name: str, **results: float) -> Path:
        store = SyntheticStore(tmp_path / name, empty)
        store.study(plan([baseline_row(), row("gd", [cell("gd-0", 0), cell("gd-1", 1)])]))
        store.baseline()
        for key, value in results.items():
            store.trial(key.replace("_", "-"), {"depth/rmse": value, "semseg/miou": 42.0})
        return store.home

    return make


def test_colleagues_results_merge_by_key_and_what_differs_is_not_taken(
    colleague: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = colleague("ours", gd_0=2.0), colleague("theirs", gd_0=2.5, gd_1=3.0)
    export(Home(theirs), tmp_path / "theirs.zip")
    before = dump(ours)
    assert run(["import", str(tmp_path / "theirs.zip"), "--check", "--home", str(ours)]) == 1
    assert dump(ours) == before
    assert run(["import", str(tmp_path / "theirs.zip"), "--home", str(ours)]) == 1
    out, err = capsys.readouterr()
    assert "1 finished trials, 0 other runs, 1 plans of studies; 4 were here already" in out
    assert "(gd-0): test/depth/rmse is 2 here and 2.5 there" in err
    records = Records.load(ours, "toy")
    values = records.metrics.query("row == 'gd' and metric == 'rmse'").set_index("seed")["value"]
    assert values.to_dict() == {0: 2.0, 1: 3.0}


def test_last_digits_of_another_processor_are_no_conflict(colleague: Callable[..., Path], tmp_path: Path) -> None:
    ours, theirs = colleague("ours", gd_0=2.0), colleague("theirs", gd_0=2.0 + 1e-9)
    export(Home(theirs), tmp_path / "theirs.zip")
    assert import_archive(Home(ours), tmp_path / "theirs.zip").conflicts == []


def test_diverged_there_and_complete_here_is_a_conflict(colleague: Callable[..., Path], tmp_path: Path) -> None:
    ours, theirs = colleague("ours", gd_0=2.0), colleague("theirs")
    lost = {"status": "diverged", "mlflow_status": "FAILED"}
    SyntheticStore(theirs).trial("gd-0", {}, **lost)
    export(Home(theirs), tmp_path / "theirs.zip")
    (found,) = import_archive(Home(ours), tmp_path / "theirs.zip").conflicts
    assert (found.key, found.what, found.here, found.there) == ("gd-0", "outcome", "complete", "diverged")
    export(Home(ours), tmp_path / "ours.zip")
    (found,) = import_archive(Home(theirs), tmp_path / "ours.zip").conflicts
    assert (found.here, found.there) == ("diverged", "complete")


@pytest.mark.parametrize("cut_at", [1, 4, 6])
def test_an_import_that_was_cut_counts_for_nothing_and_the_next_is_whole(
    cut_at: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    # One study's archive: its plan and six trials, so that every run that may be cut is one that its table needs.
    export(Home(source), tmp_path / "second.zip", ["second"])
    home, ended = tmp_path / "new", []
    real = MlflowClient.set_terminated

    def cut(self: MlflowClient, run_id: str, *rest: object) -> None:
        if len(ended) == cut_at:
            raise KeyboardInterrupt
        ended.append(run_id)
        real(self, run_id, *rest)

    monkeypatch.setattr(MlflowClient, "set_terminated", cut)
    with pytest.raises(KeyboardInterrupt):
        import_archive(Home(home), tmp_path / "second.zip")
    monkeypatch.undo()
    done = import_archive(Home(home), tmp_path / "second.zip")
    assert (done.studies + done.trials, done.present, done.conflicts) == (7 - cut_at, cut_at, [])
    assert shown(home, "second") == shown(source, "second")


# ---- archives that are not sound -----------------------------------------------------------------


def rebuilt(archive: Path, path: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes | None]) -> Path:
    """The archive with some files changed or left out, its manifest as it was."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = change(entry, old.read(entry.filename))
            if content is not None:
                new.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def broken(archive: Path, path: Path, how: str) -> Path:
    content = archive.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("no archive\n")
    elif how == "flipped":
        # Inside the largest entry's data: a flipped byte of a time stamp would change nothing that is read.
        with zipfile.ZipFile(archive) as file:
            largest = max(file.infolist(), key=lambda entry: entry.compress_size)
        middle = largest.header_offset + 30 + len(largest.filename.encode()) + largest.compress_size // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif how == "changed":
        rebuilt(archive, path, lambda e, c: c.replace(b"0.3", b"0.4") if e.filename.endswith("run.json") else c)
    elif how == "missing":
        rebuilt(archive, path, lambda e, c: None if e.filename.endswith("plan.json") else c)
    elif how == "manifest":
        rebuilt(archive, path, lambda e, c: c.replace(b'"toy"', b'"top"') if e.filename == "manifest.json" else c)
    elif how == "newer":
        with written(path, {}) as writer:
            writer.add("x", b"")
        rebuilt(path, path.with_suffix(".2"), lambda e, c: c.replace(b'"format": 1', b'"format": 9'))
        path.with_suffix(".2").rename(path)
    elif how == "more":
        shutil.copy(archive, path)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("../../outside", b"x")
    elif how == "link":
        shutil.copy(archive, path)
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(entry, b"/etc/passwd")
    return path


@pytest.mark.parametrize(
    "how", ["cut", "text", "flipped", "changed", "missing", "manifest", "newer", "more", "link", "absent"]
)
def test_a_damaged_archive_is_one_line_and_the_home_is_as_before(
    how: str, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broken(archive, tmp_path / "bad.zip", how)
    assert run(["import", str(path), "--home", str(tmp_path / "home")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {path}")
    assert err.count("\n") == 1
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "a//b", "a\\b", "C:/x", ".", "", "a/\x00b", "x" * 1001])
def test_names_that_could_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no plain relative path"):
        check_name(name)


def forged(path: Path, **over: object) -> Path:
    """An archive sound in itself, of one study's run with some fields changed."""
    record = {
        "run_id": "0" * 32,
        "experiment": "toy",
        "name": "x",
        "status": "FINISHED",
        "start": 1,
        "end": 2,
        "tags": {schema.KIND: schema.STUDY_RUN, schema.SCHEMA: "1", schema.STUDY: "toy"},
        "params": {},
        "metrics": {},
        "artifacts": [],
        **over,
    }
    with written(path, {}) as writer:
        writer.add("experiments.json", encode([{"name": record["experiment"], "tags": {}}]))
        writer.add("runs.json", encode([record["run_id"]]))
        writer.add(f"runs/{record['run_id']}/run.json", encode(record))
    return path


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"experiment": "../../x"}, "of a study is not allowed"),
        ({"artifacts": ["../x"]}, "no plain relative path"),
        ({"artifacts": ["not-there"]}, "does not fit the archive"),
        ({"tags": {"kind": "study", "schema": "7"}}, "have layout 7"),
        ({"metrics": {"../x": []}}, "is not allowed"),
        ({"start": -1}, "start"),
        ({"more": 1}, "more"),
    ],
)
def test_a_forged_record_is_refused_before_anything_is_written(
    over: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=message):
        import_archive(Home(tmp_path / "home"), forged(tmp_path / "forged.zip", **over))
    assert not (tmp_path / "home").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    with written(tmp_path / "big.zip", {}) as writer:
        writer.add("zeros", bytes(1 << 20))
    assert (tmp_path / "big.zip").stat().st_size < 4096
    with (
        pytest.raises(StoreError, match="more than 0 MiB"),
        opened(tmp_path / "big.zip", Limits(bytes=1 << 19)),
    ):
        pass
    with pytest.raises(StoreError, match="more than 0 files"), opened(tmp_path / "big.zip", Limits(files=0)):
        pass


def test_a_file_larger_than_announced_is_not_unpacked_further(tmp_path: Path) -> None:
    path = tmp_path / "lies.zip"
    with written(path, {}) as writer:
        writer.add("zeros", bytes(10))
        writer.files["zeros"]["bytes"] = 3
    with pytest.raises(StoreError, match="checksum of zeros does not fit"), opened(path):
        pass


def test_links_are_not_exported(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "copy"
    shutil.copytree(source, home)
    plan_file = next(home.glob("artifacts/second/*/artifacts/plan.json"))
    recorded = next(source.glob("artifacts/second/*/artifacts/plan.json"))
    link = recorded.with_name("link.txt")
    link.symlink_to("/etc/hostname")
    try:
        with pytest.raises(StoreError, match="links are not put into an archive"):
            export(Home(source), tmp_path / "x.zip")
    finally:
        link.unlink()
    assert plan_file.is_file()
    assert not list(tmp_path.glob("*x.zip*"))


def test_numbers_that_are_not_finite_survive_json() -> None:
    content = encode([{"name": "toy", "tags": {}}])
    assert load_record(content, list[ExperimentRecord], "x")[0].name == "toy"
    assert json.loads(encode({"x": [float("nan"), float("-inf"), 0.1]})) == {"x": ["nan", "-inf", 0.1]}
