"""The processes of a trial: started, led, lost and replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from test_together import CASES, make, result, same
from test_trainer import flat

from trainables.company import ChildPeers, Leader, PeerLost, make_trainer, visible_gpus
from trainables.config import load_trial, trial_key
from trainables.errors import CheckpointError, ConfigError
from trainables.presets import merge
from trainables.session import Session, TrialTask
from trainables.trainer import Trainer


def task_of(tiny: dict[str, Any], root: Path, checkpoint: Path | None = None, **over: Any) -> TrialTask:
    from test_together import SHARED

    config = load_trial(merge(merge(tiny, SHARED), over))
    file = None if checkpoint is None else str(checkpoint)
    return TrialTask(trial_key(config), config.to_dict(), str(root), file, processes=2)


def others() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "trainables.peer" in child.cmdline()]


def test_a_session_of_two_processes_reports_what_one_does(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    task = task_of(tiny, data_root, tmp_path / "trial.ckpt", **CASES["selective"])
    session = Session(task, checkpoint_seconds=0.0)
    assert len(others()) == 1
    first = session.advance(0.0)
    assert (first.iteration, first.saved, first.worker["processes"]) == (1, True, "2")
    with pytest.raises(PeerLost, match=r"^process 2 of 2 of the trial ended with exit code -9$"):
        _kill(others()[0], session)
    assert others() == []
    # The attempt after it goes on from the checkpoint.
    session = Session(task, checkpoint_seconds=0.0)
    assert isinstance(session.trainer, Leader)
    assert session.trainer.iteration == 1
    while not session.advance(0.0).over:
        pass
    assert others() == []
    assert not torch.distributed.is_initialized()
    alone = make(tiny, data_root, **CASES["selective"])
    start = flat(alone)
    alone.advance()
    same(result(session.trainer), result(alone), start)


def _kill(process: psutil.Process, session: Session) -> None:
    process.kill()
    session.advance(1e9)


def test_one_process_is_a_plain_trainer(tiny: dict[str, Any], data_root: Path) -> None:
    task = replace(task_of(tiny, data_root), processes=1)
    assert type(make_trainer(task)) is Trainer
    assert others() == []


def test_what_another_process_refuses_is_refused(
    tiny: dict[str, Any], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tiny, data_root)
    with pytest.raises(CheckpointError, match=r"process 2 of 2 computes the key .* for trial 000000000000"):
        Session(replace(task, key="0" * 64))
    with pytest.raises(ConfigError, match=r"3 processes share a batch of 2"):
        Session(replace(task_of(tiny, data_root, train={"batch_size": 2}), processes=3))
    assert others() == []


def test_a_trial_wants_as_many_gpus_as_processes(
    tiny: dict[str, Any], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert visible_gpus() == ["3", "5"]
    with pytest.raises(ConfigError, match=r"resources.gpus: 3 are wanted for a trial, this machine has 2"):
        ChildPeers(replace(task_of(tiny, data_root), device="cuda", processes=3))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_end_where_one_does(tiny: dict[str, Any], data_root: Path) -> None:
    task = replace(task_of(tiny, data_root, **CASES["selective"]), device="cuda")
    session, alone = Session(task), Session(replace(task, processes=1))
    start = flat(alone.trainer).cpu()
    assert session.advance(1e9).done
    assert alone.advance(1e9).done
    found, expected = result(session.trainer), result(alone.trainer)
    same({**found, "flat": found["flat"].cpu()}, {**expected, "flat": expected["flat"].cpu()}, start, 5e-2)
