from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables import checkpoint
from trainables.config import load_trial, trial_key
from trainables.errors import CheckpointError, DataError
from trainables.presets import merge
from trainables.remote import RemoteFile, place
from trainables.session import Session, TrialTask


def task(tiny: dict[str, Any], data_root: Path, file: Path | None = None, **over: Any) -> TrialTask:
    config = load_trial(merge(tiny, over))
    return TrialTask(trial_key(config), config.to_dict(), str(data_root), str(file) if file else None)


def finish(session: Session) -> list[Any]:
    reports = [session.advance(0.0)]
    while not reports[-1].over:
        reports.append(session.advance(0.0))
    return reports


def test_reports_add_up_to_the_whole_history(tiny: dict[str, Any], data_root: Path) -> None:
    session = Session(task(tiny, data_root))
    reports = finish(session)
    assert len(reports) == 6  # a chunk of no seconds is one iteration
    assert [r.first for r in reports] == [True] + [False] * 5
    assert [r.iteration for r in reports] == [1, 2, 3, 4, 5, 6]
    assert [p for r in reports for p in r.points] == session.trainer.history.points
    assert reports[-1].done
    assert reports[-1].history is None
    assert reports[-1].costs["iterations"] == 6


def test_a_method_with_groups_hands_over_its_history_at_the_end(tiny: dict[str, Any], data_root: Path) -> None:
    reports = finish(Session(task(tiny, data_root, method="selective")))
    assert all(r.history is None for r in reports[:-1])
    history = reports[-1].history
    assert history["affinity"].shape == (3, 3, 3)
    assert history["group"].shape == (3, 3)
    assert list(history["iteration"]) == [2, 4, 6]
    assert list(history["tasks"]) == ["depth_zbuffer", "normal", "principal_curvature"]
    for together, count in zip(history["together"], history["count"], strict=True):
        assert (together.diagonal() == 1).all()
        assert 1 <= count <= 3
    assert [r.costs.get("mean_groups") for r in reports[-2:]] == [None, pytest.approx(history["count"].mean())]


def test_a_second_attempt_replays_what_the_first_reported_and_ends_the_same(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    undisturbed = finish(Session(task(tiny, data_root)))
    file = tmp_path / "trial.ckpt"
    first = Session(task(tiny, data_root, file), checkpoint_seconds=0.0)
    for _ in range(4):
        first.advance(0.0)
    second = Session(task(tiny, data_root, file), checkpoint_seconds=0.0)
    assert second.trainer.iteration == 4
    again = finish(second)
    assert again[0].first
    assert [p for r in again for p in r.points] == [p for r in undisturbed for p in r.points]


def test_a_trial_that_is_judged_says_where_it_stands_before_it_goes_on(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    judged = replace(task(tiny, data_root, tmp_path / "trial.ckpt", record={"eval_every": 2}), report_evaluations=True)
    first = Session(judged, checkpoint_seconds=0.0)
    told = first.advance(1e9)
    assert (told.iteration, told.saved) == (2, True)
    again = Session(judged).advance(1e9)
    assert (again.iteration, again.first) == (2, True)
    assert again.points == told.points


def test_divergence_is_a_report_and_not_an_error(tiny: dict[str, Any], data_root: Path) -> None:
    session = Session(task(tiny, data_root, optim={"lr": 1e38}))
    reports = finish(session)
    assert not reports[-1].done
    assert reports[-1].diverged is not None
    assert reports[-1].diverged.startswith("diverged by iteration")


def test_a_damaged_checkpoint_is_said_and_the_trial_starts_over(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trial.ckpt"
    session = Session(task(tiny, data_root, file))
    session.advance(0.0)
    session.save()
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        again = Session(task(tiny, data_root, file))
    assert again.trainer.iteration == 0
    assert "damaged (its checksum does not fit)" in caplog.text


def test_a_checkpoint_of_another_trial_is_an_error(tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "trial.ckpt"
    session = Session(task(tiny, data_root, file))
    session.save()
    with pytest.raises(CheckpointError, match="is of trial"):
        Session(task(tiny, data_root, file, seed=1))


def test_a_worker_with_other_code_is_told_apart(tiny: dict[str, Any], data_root: Path) -> None:
    right = task(tiny, data_root)
    with pytest.raises(CheckpointError, match="driver and worker run different code"):
        Session(TrialTask("0" * 64, right.config, right.data_root))


def test_missing_data_is_named(tiny: dict[str, Any], tmp_path: Path) -> None:
    session = Session(task(tiny, tmp_path))
    with pytest.raises(DataError):
        session.advance(0.0)


def test_a_checkpoint_round_trips_and_leaves_no_part_behind(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.ckpt"
    state = {"tensor": torch.arange(5), "nested": {"list": [1, 2.5, "x", None, True]}}
    checkpoint.save(file, state, key="k", iteration=7)
    checkpoint.save(file, state, key="k", iteration=8)
    loaded = checkpoint.load(file, key="k")
    assert torch.equal(loaded["tensor"], state["tensor"])
    assert loaded["nested"] == state["nested"]
    assert checkpoint.read_header(file).iteration == 8
    assert sorted(p.name for p in file.parent.iterdir()) == ["a.ckpt", "a.ckpt.previous"]


def test_a_checkpoint_is_not_replaced_by_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.ckpt"
    checkpoint.save(file, {"x": 1}, key="k", iteration=1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(file, {"x": 2}, key="k", iteration=2)
    assert checkpoint.load(file, key="k") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


@given(cut=st.integers(0, 400), flip=st.booleans(), data=st.data())
def test_a_damaged_checkpoint_never_loads(cut: int, flip: bool, data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.ckpt"
        checkpoint.save(file, {"x": torch.arange(3)}, key="k", iteration=1)
        whole = bytearray(file.read_bytes())
        if flip:
            whole[data.draw(st.integers(len(whole) - 200, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        else:
            del whole[len(whole) - 1 - cut :]
        file.write_bytes(bytes(whole))
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(file, key="k")
        assert str(file) in str(caught.value)


def test_a_pickle_in_a_checkpoints_clothes_is_not_run(tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "pwned"), "w"))

    buffer = io.BytesIO()
    torch.save({"x": Evil()}, buffer, pickle_module=pickle)
    payload = buffer.getvalue()
    header = {
        "format": checkpoint.FORMAT,
        "key": "k",
        "iteration": 1,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "size": len(payload),
    }
    file = tmp_path / "evil.ckpt"
    file.write_bytes(json.dumps(header).encode() + b"\n" + payload)
    with pytest.raises(CheckpointError, match="more than tensors and plain data") as caught:
        checkpoint.load(file, key="k")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_behind_a_url_is_gone_on_from(tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    whole = Session(task(tiny, data_root))
    finish(whole)
    given = replace(task(tiny, data_root), checkpoint=f"local://{tmp_path}/shelf/a.ckpt")
    first = Session(given, checkpoint_seconds=0.0)
    assert [first.advance(0.0).saved for _ in range(3)] == [True] * 3
    second = Session(given)
    assert second.trainer.iteration == 3
    finish(second)
    network = whole.trainer.network.state_dict()
    assert all(torch.equal(value, network[name]) for name, value in second.trainer.network.state_dict().items())
    assert second.trainer.history.points == whole.trainer.history.points


def test_training_goes_on_while_the_store_of_checkpoints_is_away(
    tiny: dict[str, Any],
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = replace(task(tiny, data_root), checkpoint=f"local://{tmp_path}/shelf/a.ckpt")
    session = Session(given, checkpoint_seconds=0.0)
    assert session.advance(0.0).saved

    def away(self: RemoteFile, *parts: bytes) -> None:
        raise OSError(5, "no route to the store")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(RemoteFile, "write", away)
        assert not session.advance(0.0).saved
        assert "no checkpoint at iteration 2" in caplog.text
    assert checkpoint.read_header(place(given.checkpoint or "")).iteration == 1
    assert session.advance(0.0).saved
    assert checkpoint.read_header(place(given.checkpoint or "")).iteration == 3
    # One that cannot be asked for its checkpoint does not begin: it would start over.
    monkeypatch.setattr(RemoteFile, "exists", away)
    with pytest.raises(OSError, match="no route"):
        Session(given)


def test_a_node_reads_its_own_copy_of_the_data(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODES_DISK", str(tmp_path))
    given = replace(task(tiny, data_root), node_data="$NODES_DISK/data")
    there, here = Session(task(tiny, data_root)), Session(given)
    finish(there)
    finish(here)
    assert here.trainer.history.points == there.trainer.history.points
    built = sorted(path.name for path in data_root.iterdir() if not path.name.startswith("."))
    copied = [path.name for path in (tmp_path / "data").iterdir() if not path.name.startswith(".")]
    assert len(copied) == 1
    assert set(copied) <= set(built)


def test_a_worker_that_was_given_up_writes_over_nobody(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = task(tiny, data_root, tmp_path / "a.ckpt")
    cut_off, other = (Session(given, checkpoint_seconds=0.0) for _ in range(2))
    assert cut_off.advance(0.0).saved
    for _ in range(3):
        assert other.advance(0.0).saved
    with caplog.at_level(logging.WARNING):
        assert not cut_off.advance(0.0).saved
    assert "another worker's is further along" in caplog.text
    assert checkpoint.read_header(tmp_path / "a.ckpt").iteration == 3
    # One that is damaged is nobody's: it is not trusted to be further along.
    data = bytearray((tmp_path / "a.ckpt").read_bytes())
    data[-20] ^= 1
    (tmp_path / "a.ckpt").write_bytes(bytes(data))
    assert cut_off.save()
    assert checkpoint.read_header(tmp_path / "a.ckpt").iteration == 2
