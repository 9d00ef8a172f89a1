"""Trials with shares of their own on a real Ray cluster with one GPU that is only counted."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from study.executors import ExecutorSettings, Listed
from study.executors.tune import TuneExecutor
from study.home import Home
from trainables.session import Report, TrialTask

pytestmark = [pytest.mark.slow, pytest.mark.ray]


class Pretended:
    """Trains nothing; writes down who is there at the same time."""

    def __init__(self, task: TrialTask, checkpoint_seconds: float) -> None:
        self.task, self.folder, self.steps = task, Path(task.data_root), 0
        self.here = self.folder / f"{task.key}.here"

    def advance(self, seconds: float) -> Report:
        """A step; some trials wait for company in their first."""
        if not self.steps:
            # Not when it is made: Tune may begin an actor for a trial and then give the trial to one that is free.
            self.here.write_text(self.task.key)
        until = time.monotonic() + (90.0 if self.task.label == "waits" and not self.steps else 0.2)
        while True:
            # A folder read once may show one that is just leaving and one that is just coming.
            looks = [{path.name.partition(".")[0] for path in self.folder.glob("*.here")} for _ in range(2)]
            beside = sorted(looks[0] & looks[1])
            if time.monotonic() > until or (self.task.label == "waits" and len(beside) > 1):
                break
            time.sleep(0.05)
        self.steps += 1
        said = {"beside": beside, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "pid": os.getpid()}
        (self.folder / f"{self.task.key}-{self.steps}.json").write_text(json.dumps(said))
        done = self.steps == 3
        if done:
            self.here.unlink()
        return Report(self.task.key, self.steps, self.steps / 3, [], {}, first=self.steps == 1, done=done)

    def close(self) -> None:
        """It has nobody beside it."""


def test_shares_are_kept_and_actors_stay_warm(tmp_path: Path) -> None:
    import ray

    shares = {"large": 1.0, "half0": 0.5, "half1": 0.5, **{f"third{n}": 0.3333 for n in range(12)}, "none": 0.0}
    config = {"train": {"threads": 1}}
    tasks = [
        TrialTask(
            key, config, str(tmp_path), None, "cpu" if key == "none" else "cuda", "waits" if "half" in key else ""
        )
        for key in shares
    ]
    over: list[str] = []
    how = ExecutorSettings(workers=4, chunk_seconds=0.1, gpus=lambda task: shares[task.key], session=Pretended)  # type: ignore[arg-type]
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init("local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        TuneExecutor(how, Home(tmp_path / "home")).run(
            Listed(tasks), lambda event: over.append(event.key) if isinstance(event, Report) and event.over else None
        )
    finally:
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert sorted(over) == sorted(shares)
    said = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*-*.json")}
    assert len(said) == 3 * len(shares)
    for who, each in said.items():
        assert sum(shares[key] for key in each["beside"]) <= 1.0, who
        assert each["gpus"] == ("" if who.startswith("none") else "0")
    assert any(len([key for key in each["beside"] if shares[key]]) > 1 for each in said.values())
    # Fewer processes than trials: those with the same share follow one another.
    assert len({each["pid"] for each in said.values()}) < len(shares)
