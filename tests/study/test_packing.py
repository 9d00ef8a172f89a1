"""How many trials go together: from footprints that are made up, and from real ones."""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little import QUICK, plan, results, run
from rich.console import Console

from study import packing as packing_module
from study import runner
from study.executors import ExecutorSettings, Failure, Listed
from study.executors.base import gpus_of
from study.executors.local import LocalExecutor
from study.executors.relay import Feed, Relay
from study.home import Home
from study.packing import CUDA_CONTEXT, HEAD_ROOM, Footprint, Packing, class_of, in_order
from study.probing import packed, probe_here, probe_on_ray
from trainables.config import load_trial, trial_key
from trainables.probe import Measured, measure
from trainables.session import TrialTask

GIB = 2.0**30


def task(tiny: dict[str, Any], root: Path = Path(), device: str = "cuda", **changes: Any) -> TrialTask:
    plain = copy.deepcopy(tiny)
    for path, value in changes.items():
        section, _, name = path.partition("__")
        plain.setdefault(section, {})[name] = value
    config = load_trial(plain)
    return TrialTask(trial_key(config), config.to_dict(), str(root), None, device)


class Device:
    """A device with so many bytes, on which a sample of a batch takes so many."""

    def __init__(self, memory: float = 80 * GIB, per_sample: float = 2 * GIB) -> None:
        self.memory, self.per_sample = memory, per_sample
        self.measured: list[str] = []

    def needs(self, one: TrialTask) -> float:
        return float(one.config["train"]["batch_size"]) * self.per_sample

    def __call__(self, tasks: Sequence[TrialTask]) -> list[Measured | None]:
        self.measured += [one.key for one in tasks]
        return [Measured("fake", self.needs(one), self.memory, {1: 0.5}) for one in tasks]


@settings(max_examples=200, deadline=None)
@given(memory=st.floats(0, 200 * GIB), device=st.floats(GIB, 200 * GIB))
def test_what_shares_a_gpu_fits_on_it(memory: float, device: float) -> None:
    share = Footprint(memory, device, {}).share
    together = int(1 / share + 1e-9)
    assert together >= 1
    assert share * together <= 1.0
    if together > 1:
        assert together * (memory * HEAD_ROOM + CUDA_CONTEXT) <= device


def test_kinds_are_measured_once_and_kept(tmp_path: Path, tiny: dict[str, Any]) -> None:
    home, device = Home(tmp_path), Device()
    tasks = [task(tiny), task(tiny, optim__lr=0.5), task(tiny, train__batch_size=8), task(tiny, method__name="famo")]
    packing = Packing(home, "fake", device)
    assert [packing.share(one) for one in tasks] == [1.0] * 4
    assert packing.learn(tasks) == 3
    assert device.measured == [tasks[0].key, tasks[2].key, tasks[3].key]
    # 80 GiB / (1.2 x 4 + 0.75) and 80 GiB / (1.2 x 16 + 0.75)
    assert [packing.share(one) for one in tasks] == [0.0714, 0.0714, 0.25, 0.0714]
    assert packing.on_gpus(tasks, 100, 2.0) == 28
    assert packing.on_gpus(tasks, 5, 2.0) == 5
    again = Packing(home, "fake", Device())
    assert again.learn(tasks) == 0
    assert [again.share(one) for one in tasks] == [packing.share(one) for one in tasks]
    assert Packing(home, "another", Device()).learn(tasks) == 3
    (home.path / "footprints.json").write_text("{")
    assert Packing(home, "fake", Device()).learn(tasks) == 3


def test_a_trial_without_memory_raises_its_kind_alone(tmp_path: Path, tiny: dict[str, Any]) -> None:
    home, device = Home(tmp_path), Device()
    small, large = task(tiny), task(tiny, train__batch_size=8)
    packing = Packing(home, "fake", device)
    packing.starved(small)
    packing.learn([small, large])
    before = [packing.share(small), packing.share(large)]
    packing.starved(large)
    assert packing.share(large) > before[1]
    assert packing.share(small) == before[0]
    kept = Packing(home, "fake", device).known(large)
    assert kept is not None
    assert (kept.raised, kept.share) == (1, packing.share(large))
    for _ in range(20):
        packing.starved(large)
    assert packing.share(large) == 1.0


def test_a_trial_that_needs_no_gpu_holds_none(tmp_path: Path, tiny: dict[str, Any]) -> None:
    packing = Packing(Home(tmp_path), "fake", Device())
    on_cpu, on_gpu = task(tiny, device="cpu"), task(tiny, train__batch_size=8)
    packing.learn([on_gpu])
    how = ExecutorSettings(gpus=packing.share)
    feed = Feed(Listed([on_cpu, on_gpu]), Relay(lambda event: None), 2, {}, None, lambda one: gpus_of(how, one))
    given = [feed.suggest(str(number)) for number in range(2)]
    assert [each["gpus"] for each in given if isinstance(each, dict)] == [0.0, 0.25]
    assert gpus_of(ExecutorSettings(gpus_per_trial=0.5), on_cpu) == 0.0
    assert gpus_of(ExecutorSettings(gpus_per_trial=0.5), on_gpu) == 0.5


def test_kinds_of_trials(tiny: dict[str, Any]) -> None:
    def kind(**changes: Any) -> str:
        return class_of(load_trial(task(tiny, **changes).config))

    assert kind() == kind(optim__lr=0.5) == kind(train__threads=2)
    others = [
        kind(train__batch_size=4),
        kind(method__name="famo"),
        kind(data__image_size=64),
        kind(tasks__include=["normal"]),
        kind(train__precision="bf16"),
        kind(model__backbone="vit_tiny"),
    ]
    assert len({kind(), *others}) == 7


def test_the_longest_go_first_and_like_goes_to_like(tiny: dict[str, Any]) -> None:
    alternating = [task(tiny, data__image_size=32 + 32 * (n % 2), optim__lr=0.1 + n) for n in range(8)]
    tasks = {one.key: one for one in alternating}
    expected = {one.key: 10.0 + 0.001 * n for n, one in enumerate(alternating)}
    longest = alternating[5].key
    expected[longest] = 20.0
    order = in_order(tasks, expected)
    assert sorted(order) == sorted(tasks)
    assert order[0] == longest
    sizes = [tasks[key].config["data"]["image_size"] for key in order[1:]]
    assert sum(a != b for a, b in itertools.pairwise(sizes)) == 1


def test_trials_on_a_cpu_have_a_core_for_each_thread_and_memory(tmp_path: Path, tiny: dict[str, Any]) -> None:
    def footprint(tasks: Sequence[TrialTask]) -> list[Measured | None]:
        return [Measured("cpu", 4 * GIB, 64 * GIB, {1: 1.0, 2: 0.4, 4: 0.3}) for _ in tasks]

    one, wide = task(tiny, device="cpu"), task(tiny, device="cpu", train__threads=3)
    packing = Packing(Home(tmp_path), "cpu", footprint)
    assert packing.on_cores([one], 8) == 8
    assert packing.on_cores([wide], 8) == 2
    assert packing.learn([one], {one.key: 1.0}) == 0  # would take longer to measure than to train
    assert packing.learn([one], {one.key: 3600.0}) == 1
    assert packing.on_cores([one], 8, available=64 * GIB) == 8
    assert packing.on_cores([one], 8, available=20 * GIB) == 3
    assert packing.on_cores([one], 8, available=GIB) == 1
    # 8 trials of a second, 4 of 0.4 s, 2 of 0.3 s
    assert packing.wider(one, 8).startswith("2 threads for each trial would be 1.2 times as fast as 1 here")
    assert packing.wider(wide, 8) == ""  # Nothing was timed with three.
    assert one.config["train"]["threads"] == 1


@pytest.mark.slow
def test_real_steps_on_a_cpu(data_root: Path, tiny: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    # Of different sizes in one go: each is measured in a process of its own, so the order does not matter.
    batches = (64, 2)
    tasks = [task(tiny, data_root, "cpu", train__batch_size=size, data__train=64) for size in batches]
    from trainables.config import data_set_of

    for one in tasks:
        config = load_trial(one.config)
        data_set_of(config).prepare(config.data, data_root)
    nowhere = task(tiny, data_root / "nowhere", "cpu")
    large, small, missing = probe_here([*tasks, nowhere], threads=(2,))
    assert missing is None
    assert "cannot be measured" in caplog.text
    assert large is not None
    assert small is not None
    assert large.memory > small.memory > 0
    assert large.memory > 10 * 2**20
    assert sorted(small.seconds) == [1, 2]
    assert min([*large.seconds.values(), *small.seconds.values()]) > 0


@pytest.mark.slow
@pytest.mark.ray
def test_real_steps_on_a_node(data_root: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    from study.cluster.connect import connect

    with connect("local", Home(tmp_path), cpus=1):
        found, missing = probe_on_ray(
            [task(tiny, data_root, "cpu"), task(tiny, data_root / "nowhere", "cpu")], threads=1, gpus=0.0
        )
    assert missing is None
    assert found is not None
    assert found.memory > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_real_steps_on_a_gpu(data_root: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    one = task(tiny, data_root, "cuda")
    here = measure(one)
    assert 0 < here.memory < here.device_memory
    packing = Packing(Home(tmp_path), here.device, probe_here)
    assert packing.learn([one]) == 1
    known = packing.known(one)
    assert known is not None
    assert known.device_memory == here.device_memory
    assert packing.share(one) < 1.0


@pytest.mark.slow
def test_a_study_is_measured_and_keeps_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    monkeypatch.setattr(packing_module, "_WORTH_SECONDS", 0.0)
    out = Console(file=io.StringIO(), width=300)
    how = replace(QUICK, workers=2, measure_workers=True)
    outcome = runner.run_study(planned, home, executor="local", settings=how, console=out)
    assert (outcome.trained, outcome.failures) == (5, [])
    assert "measured 5 kinds of trials" in out.file.getvalue()  # type: ignore[attr-defined]
    [(device, kinds)] = json.loads((home.path / "footprints.json").read_text()).items()
    assert device.startswith("cpu ")
    assert len(kinds) == 5
    assert all(set(kind["seconds"]) == {"1", "2"} for kind in kinds.values())
    assert {key for key, *_ in results(home)} == {trial.key for trial in planned.trials}


@pytest.mark.slow
def test_a_run_tells_the_packing_of_a_trial_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    packing = Packing(home, "fake", Device(per_sample=GIB))
    monkeypatch.setattr(runner, "packed", lambda settings, tasks, *rest, **more: (settings, packing))
    original, rounds, starved = LocalExecutor.run, [], planned.trials[0].key

    def short(self: LocalExecutor, source: Any, on_event: Any) -> None:
        rounds.append(self.settings)
        tasks = []
        while (found := source.next()) is not None:
            tasks.append(found)
        if len(rounds) == 1:
            packing.learn(tasks)
            on_event(Failure(starved, "torch.OutOfMemoryError: CUDA out of memory.", "T"))
            tasks = [one for one in tasks if one.key != starved]
        original(self, Listed(tasks), on_event)

    monkeypatch.setattr(LocalExecutor, "run", short)
    outcome, _ = run(home, planned)
    assert (outcome.trained, len(rounds)) == (5, 2)
    raised = {kind: found.raised for kind, found in packing._known.items()}
    assert sorted(raised.values()) == [0, 0, 0, 0, 1]
    assert raised[class_of(planned.trials[0].config)] == 1


def test_what_is_given_is_not_measured(tmp_path: Path, tiny: dict[str, Any]) -> None:
    home, out = Home(tmp_path), Console(file=io.StringIO())
    for how, device in ((ExecutorSettings(gpus_per_trial=0.25), "cuda"), (ExecutorSettings(workers=7), "cpu")):
        one = task(tiny, device=device)
        assert packed(how, {one.key: one}, {one.key: 1e6}, home, None, out) == (how, None)
    assert not list(tmp_path.iterdir())
