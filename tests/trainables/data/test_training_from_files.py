"""Training from files: every metric, exact resumption, and a loader that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ondisk_fixtures import write_nyud, write_pascal

from study.plan import make_plan
from study.spec import load_spec
from trainables.config import load_trial, trial_key
from trainables.data.loader import LoadingConfig
from trainables.data.ondisk import forget
from trainables.presets import merge
from trainables.session import Session, TrialTask
from trainables.trainer import Trainer

SIZES = {"nyud": [48, 64], "pascal_context": [64, 64]}
ANGLES = {"mean_angular_error", "median_angular_error", "within_11.25", "within_22.5", "within_30"}
NORMALS = {f"normals/{name}" for name in ANGLES}
SEMSEG = {"semseg/miou", "semseg/pixel_accuracy"}
METRICS = {
    "nyud": {*SEMSEG, "depth/rmse", "depth/abs_err", "depth/rel_err", *NORMALS, "edge/odsf"},
    "pascal_context": {
        *SEMSEG,
        "human_parts/miou",
        "human_parts/pixel_accuracy",
        "saliency/maxf",
        *NORMALS,
        "edge/odsf",
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    write_nyud(root / "nyud")
    write_pascal(root / "pascal_context")
    forget()
    return {name: root / name for name in SIZES}


def trainer(folders: dict[str, Path], home: Path, name: str = "nyud", **fields: Any) -> Trainer:
    base = {
        "data": {"name": name, "root": str(folders[name]), "image_size": SIZES[name], "val_fraction": 0.25},
        "tasks": {"set": name},
        "model": {"backbone": "vit_pico", "drop_path": 0.1},
        "optim": {"lr": 1e-3},
        "train": {"batch_size": 2, "budget": {"amount": 8}},
        "record": {"eval_every": 0, "points": 4},
    }
    return Trainer(load_trial(merge(base, fields)), home)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


@pytest.mark.parametrize("name", list(SIZES))
def test_every_metric_is_measured(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    one = trainer(folders, tmp_path, name)
    one.advance()
    assert one.done
    for split in ("val", "test"):
        values = one.evaluate(split)
        assert set(values) == METRICS[name]
        assert all(value == value for value in values.values()), values


@pytest.mark.parametrize("loading", [{"workers": 3, "prefetch": 4}, {"workers": 1, "cache": True}, {"cache": True}])
def test_loading_changes_no_result(folders: dict[str, Path], tmp_path: Path, loading: dict[str, Any]) -> None:
    plain = trainer(folders, tmp_path, "pascal_context", loading={"workers": 0})
    other = trainer(folders, tmp_path, "pascal_context", loading=loading)
    for each in (plain, other):
        each.advance()
    assert torch.equal(weights(plain), weights(other))
    assert [(p.name, p.value) for p in plain.history.points] == [(p.name, p.value) for p in other.history.points]


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_resumed_trial_sees_the_same_crops(folders: dict[str, Path], tmp_path: Path, at: int) -> None:
    """Mid-epoch (there are three iterations in one) and across epochs."""
    whole = trainer(folders, tmp_path)
    whole.advance()
    first = trainer(folders, tmp_path)
    first.advance(iterations=at)
    second = trainer(folders, tmp_path)
    second.load_state_dict(first.state_dict())
    second.advance()
    assert torch.equal(weights(whole), weights(second))


def test_crops_follow_the_seed_and_the_epoch(folders: dict[str, Path], tmp_path: Path) -> None:
    one, other = trainer(folders, tmp_path), trainer(folders, tmp_path, seed=1)
    orders = [one._train_order(number) for number in range(6)]
    epochs = [np.concatenate([order.indices for order in orders[at : at + 3]]) for at in (0, 3)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    seeds = {
        (int(i), int(s))
        for order in orders
        if order.seeds is not None
        for i, s in zip(order.indices, order.seeds, strict=True)
    }
    assert len(seeds) == 12  # a sample seen in two epochs has two seeds
    again = other._train_order(0)
    assert again.seeds is not None
    assert not set(again.seeds.tolist()) & {seed for _, seed in seeds}


def test_where_the_data_is_does_not_change_the_key(folders: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    write_nyud(moved)
    forget()
    here, there = (
        load_trial(
            {
                "data": {"name": "nyud", "root": str(root), "image_size": [48, 64]},
                "tasks": {"set": "nyud"},
                "train": {"batch_size": 2},
            }
        )
        for root in (folders["nyud"], moved)
    )
    elsewhere = here.model_copy(update={"data": here.data.model_copy(update={"root": None})})
    assert trial_key(here) == trial_key(there) != trial_key(elsewhere)


def test_a_plan_of_the_papers_table_needs_no_data() -> None:
    plan = make_plan(load_spec("table3_nyud"), "paper", overrides={"model.pretrained": False})
    assert {trial.config.data.name for trial in plan.trials} == {"nyud"}


def test_a_profile_of_another_data_set_takes_the_folder(folders: dict[str, Path]) -> None:
    overrides = {"data.name": "nyud", "data.root": str(folders["nyud"]), "data.image_size": [48, 64]}
    plan = make_plan(load_spec("table3_nyud"), "smoke", overrides=overrides)
    config = plan.trials[0].config
    assert config.data.to_dict()["root"] == str(folders["nyud"])
    assert len({trial.key for trial in plan.trials}) == len(plan.trials) == 17


def test_a_folder_that_moved_is_the_same_plan(folders: dict[str, Path], tmp_path: Path) -> None:
    write_nyud(tmp_path / "moved")
    forget()
    here, there = (
        make_plan(
            load_spec("table3_nyud"),
            "smoke",
            overrides={"data.name": "nyud", "data.root": str(root), "data.image_size": [48, 64]},
        ).to_dict()
        for root in (folders["nyud"], tmp_path / "moved")
    )
    assert here == there
    assert here["data"]["root"] is None
    assert here["data"]["image_size"] == [48, 64]


def test_decoding_takes_the_trials_share_of_the_cores(folders: dict[str, Path], tmp_path: Path) -> None:
    config = trainer(folders, tmp_path).config
    task = TrialTask(trial_key(config), config.to_dict(), str(tmp_path), cores=3)
    assert Session(task).trainer._workers == 3
    own = config.model_copy(update={"loading": LoadingConfig(workers=0)})
    assert trial_key(own) == task.key
    assert Session(replace(task, config=own.to_dict())).trainer._workers == 0
