from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables import config as config_module
from trainables.config import TrialConfig, TrialReader, cell_key, load_trial, tasks_of, trial_key
from trainables.errors import ConfigError
from trainables.presets import PRESETS, expand_preset, merge, set_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "slective"}, "method.name: unknown method 'slective'; did you mean 'selective'?"),
        ({"method": {"name": "selective", "bta": 1}}, "method.bta: unknown field 'bta'; did you mean 'beta'?"),
        ({"method": {"name": "selective", "beta": 0}}, "method.beta: should be greater than 0, got 0"),
        ({"method": {"name": "selective", "grouping": "adaptve"}}, "method.grouping.name: unknown grouping 'adaptve'"),
        ({"method": {"name": "selective", "order": "sideways"}}, "method.order: should be"),
        ({"method": "single_task"}, "tasks.include: "),
        ({"optimizer": {}}, "optimizer: unknown field 'optimizer'; did you mean 'optim'?"),
        ({"optim": {"lr": "fast"}}, "optim.lr: should be a valid number, got 'fast'"),
        (
            {"optim": {"head_lr_scale": -1}},
            "optim.head_lr_scale: should be greater than 0 or should be 'tasks', got -1",
        ),
        ({"train": {"budget": {"amount": 0}}}, "train.budget.amount: should be greater than or equal to 1, got 0"),
        ({"train": {"budget": {"unit": "hours"}}}, "train.budget.unit: should be 'iterations', 'optimizer_steps' or"),
        ({"train": {"batch_size": 10_000}}, "train.batch_size: at most the 512 training samples"),
        (
            {"model": {"backbone": "vit_picco"}},
            "model.backbone: unknown backbone 'vit_picco'; did you mean 'vit_pico'?",
        ),
        ({"data": {"name": "scenes", "image_size": 40}, "model": {"backbone": "vit_tiny"}}, "model.backbone: vit_tiny"),
        ({"data": "scene"}, "data.name: unknown data set 'scene'; did you mean 'scenes'?"),
        ({"data": {"name": "scenes", "image_size": 8}}, "data.image_size: should be greater than or equal to 32"),
        ({"tasks": {"set": "taskonmy"}}, "tasks.set: unknown task set 'taskonmy'; did you mean 'taskonomy'?"),
        ({"tasks": {"include": []}}, "tasks.include"),
        ({"tasks": {"include": ["norml"]}}, "tasks.include"),
        ({"preset": "relesed"}, "preset: unknown preset 'relesed'; did you mean 'released'?"),
        ({"seed": -1}, "seed: should be greater than or equal to 0, got -1"),
    ],
)
def test_a_mistake_names_the_field_and_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_trial(fields)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_defaults_are_the_papers() -> None:
    config = TrialConfig()
    assert (config.optim.lr, config.optim.weight_decay, config.optim.power) == (2e-5, 1e-6, 0.9)
    assert (config.train.batch_size, config.train.budget.amount, config.train.budget.unit) == (8, 40_000, "iterations")
    assert config.model.drop_path == 0.15
    assert len(tasks_of(config)) == 11


@pytest.mark.parametrize("task_set", ["taskonomy", "nyud", "pascal_context"])
def test_every_task_set_can_be_drawn_from_scenes(task_set: str) -> None:
    config = load_trial({"tasks": {"set": task_set}})
    assert len(tasks_of(config)) == {"taskonomy": 11, "nyud": 4, "pascal_context": 5}[task_set]


def test_the_released_preset_switches_every_documented_difference() -> None:
    released = load_trial({"method": "selective", "preset": "released"}).to_dict()
    paper = load_trial({"method": "selective", "preset": "paper"}).to_dict()
    assert paper == load_trial({"method": "selective"}).to_dict()
    same = {"method.beta", "method.order", "method.group_loss", "method.grouping.name", "method.grouping.regroup_every"}
    for path, value in PRESETS["released"].items():
        assert field(released, path) == value
        assert (field(paper, path) == value) == (path in same), path


def field(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config.get(part, "absent") if isinstance(config, dict) else "absent"
    return config


def test_a_field_given_beats_the_preset() -> None:
    config = load_trial({"preset": "released", "method": {"name": "selective", "beta": 0.25, "credit": "stepped"}})
    assert (config.method.beta, config.method.credit) == (0.25, "stepped")  # type: ignore[attr-defined]
    assert config.train.data_order == "fixed"


def test_a_component_given_beats_the_presets_fields_of_another() -> None:
    config = load_trial({"preset": "released", "method": {"name": "selective", "grouping": "separate"}})
    assert config.method.to_dict()["grouping"] == {"name": "separate"}
    config = load_trial({"preset": "released", "method": {"name": "selective", "grouping": "adaptive"}})
    assert config.method.to_dict()["grouping"]["warmup"] == 101


def test_the_released_preset_leaves_other_methods_and_task_sets_alone() -> None:
    config = load_trial({"preset": "released", "method": "gd", "tasks": {"set": "nyud"}})
    assert config.method.to_dict() == {"name": "gd", "steps_per_batch": 1}
    assert config.optim.head_lr_scale == "tasks"


def test_merging_a_component_of_another_name_replaces_it_whole() -> None:
    base = {"method": {"name": "selective", "beta": 0.1}, "optim": {"lr": 1.0}}
    assert merge(base, {"method": "gd"}) == {"method": {"name": "gd"}, "optim": {"lr": 1.0}}
    assert merge(base, {"method": "selective"}) == base
    assert merge(base, {"method": {"name": "gd"}})["method"] == {"name": "gd"}
    assert merge(base, {"method": {"beta": 0.2}})["method"] == {"name": "selective", "beta": 0.2}
    assert merge({"method": "selective"}, {"method": {"beta": 0.2}})["method"] == {"name": "selective", "beta": 0.2}


def test_setting_a_path_makes_a_bare_name_a_mapping_and_changes_nothing_else() -> None:
    before = {"method": "selective"}
    assert set_path(before, "method.beta", 0.5) == {"method": {"name": "selective", "beta": 0.5}}
    assert before == {"method": "selective"}
    assert set_path({"method": {"name": "selective", "beta": 0.5}}, "method.name", "gd") == {"method": {"name": "gd"}}
    assert set_path({"method": {"name": "gd", "steps_per_batch": 2}}, "method.name", "gd") == {
        "method": {"name": "gd", "steps_per_batch": 2}
    }
    with pytest.raises(ConfigError, match="'lr' has no fields"):
        set_path({"optim": {"lr": 1.0}}, "optim.lr.base", 2)
    with pytest.raises(ConfigError, match="is not a field path"):
        set_path({}, "optim..lr", 2)


def test_expand_preset_does_not_change_its_argument() -> None:
    given_ = {"preset": "released", "method": {"name": "selective"}}
    expand_preset(given_)
    assert given_ == {"preset": "released", "method": {"name": "selective"}}


KEYED: dict[str, Any] = {
    "seed": 1,
    "data": {"name": "scenes", "seed": 5},
    "model": {"backbone": "vit_small"},
    "tasks.set": "nyud",
    "optim.lr": 1e-3,
    "train.budget.amount": 10,
    "train.threads": 2,
    "train.precision": "bf16",
    "train.kernels": "onednn",
    "train.loss_limit": 9.0,
    "method": {"name": "gd", "steps_per_batch": 2},
}
UNKEYED: dict[str, Any] = {
    "record.eval_every": 7,
    "record.points": 9,
    "record.eval_batch_size": 3,
    "loading.workers": 3,
    "loading.prefetch": 5,
    "loading.cache": True,
}


def test_the_key_covers_what_changes_a_result_and_nothing_else() -> None:
    base = load_trial({})
    keys = {trial_key(base)}
    for path, value in KEYED.items():
        keys.add(trial_key(load_trial(set_path({}, path, value))))
    assert len(keys) == 1 + len(KEYED)
    for path, value in UNKEYED.items():
        assert trial_key(load_trial(set_path({}, path, value))) == trial_key(base)


def test_a_cell_is_a_trial_without_its_seed() -> None:
    one, other = load_trial({"seed": 1}), load_trial({"seed": 2})
    assert cell_key(one) == cell_key(other)
    assert trial_key(one) != trial_key(other)


def test_keys_do_not_move() -> None:
    """Keys in people's records. A change here without a new RESULT_VERSION makes them train everything again."""
    assert config_module.RESULT_VERSION == 1
    selective = load_trial({"method": {"name": "selective", "beta": 0.01}, "seed": 3})
    assert trial_key(selective) == GOLDEN["selective"]
    assert trial_key(load_trial({})) == GOLDEN["defaults"]


GOLDEN = {
    "selective": "153a22d5dac85e7cd7a909b05e9f252138406fdf5585b529475c5343a4c6aeee",
    "defaults": "774aa445929ac2b07c24f1fca7d44133f0936d43beb1303f027ca9a5b4e78a05",
}


def formula_of_the_key(config: TrialConfig, *, seed: bool) -> str:
    """What a key is the digest of, written down once more."""
    fields = config.canonical()
    for name in ("record", "loading", *(() if seed else ("seed",))):
        fields.pop(name, None)
    data = config_module.data_set_of(config)
    fields["data"] = data.identity(config.data)
    if seed:
        fields["seed"] = config.seed
    parts = {"config": fields, "data": data.fingerprint(config.data), "weights": None, "result_version": 1}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


FIELDS: dict[str, list[Any]] = {
    "preset": ["paper", "released"],
    "data": ["scenes", {"name": "scenes", "seed": 5}, {"name": "scenes", "seed": 5, "image_size": 64}],
    "tasks": [{"set": "taskonomy"}, {"set": "nyud"}, {"set": "nyud", "edge_weight": 0.8}],
    "model": [{"backbone": "vit_pico"}, {"drop_path": 0.0}, {"drop_path": -0.0}, {}],
    "optim": [{"weight_decay": 0.0}, {"weight_decay": -0.0}, {"lr_steps": [[5, 0.1]]}, {"clip_norm": 1.0}],
    "train": [{"batch_size": 4}, {"budget": {"amount": 300}}, {"threads": 2, "budget": {"amount": 300}}],
    "method": ["gd", "selective", {"name": "selective", "beta": 0.01}, {"name": "cagrad", "c": 0.5}, {"name": "dwa"}],
    "record": [{"points": 9}],
    "seed": [0, 7],
}
given_fields = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()})


@given(st.lists(given_fields, min_size=1, max_size=8))
def test_one_reader_of_many_trials_gives_what_a_reader_of_each_does(values: list[dict[str, Any]]) -> None:
    reader = TrialReader()
    for value in values:
        config = reader.load(value)
        assert config == load_trial(value)
        assert config.model_fields_set == load_trial(value).model_fields_set
        cell, (own, other) = reader.keys(config, [config.seed, 11])
        assert cell == cell_key(config) == formula_of_the_key(config, seed=False)
        assert own == trial_key(config) == formula_of_the_key(config, seed=True)
        assert other == formula_of_the_key(config.with_seed(11), seed=True)
        assert [task.name for task in reader.tasks(config)] == [task.name for task in tasks_of(config)]


def test_a_reader_refuses_what_contradicts_parts_that_were_good_before() -> None:
    reader = TrialReader()
    small, large = {"data": {"name": "scenes", "train": 64}}, {"train": {"batch_size": 100}}
    reader.load(small)
    reader.load(large)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"row: train\.batch_size: at most the 64 training samples"):
            reader.load({**small, **large}, "row")
    with pytest.raises(ConfigError, match=r"optim\.lr: should be greater than 0"):
        reader.load({**small, "train": {"batch_size": "many"}, "optim": {"lr": 0}})


def test_spelling_does_not_change_the_key() -> None:
    short = load_trial({"method": "selective", "tasks": {"set": "nyud"}})
    long = load_trial(
        {
            "tasks": {"set": "nyud", "include": ["semseg", "depth", "normals", "edge"]},
            "method": {"name": "selective", "grouping": {"name": "adaptive", "clusterer": "positive_affinity"}},
            "optim": {"lr": 2e-5},
        }
    )
    assert trial_key(short) == trial_key(long)
    assert trial_key(load_trial(long.to_dict())) == trial_key(short)


@given(st.integers(0, 2**31 - 1), st.floats(1e-6, 1.0), st.sampled_from(["random", "forward", "backward", "affinity"]))
def test_configs_round_trip_with_their_keys(seed: int, beta: float, order: str) -> None:
    config = load_trial({"seed": seed, "method": {"name": "selective", "beta": beta, "order": order}})
    again = load_trial(config.to_dict())
    assert again == config
    assert trial_key(again) == trial_key(config)


def test_weights_count_in_the_key_and_their_place_does_not(tmp_path: Path) -> None:
    from trainables.models import ModelConfig, build_network

    network = build_network(ModelConfig(backbone="vit_pico"), {"a": 1}, (64, 64), seed=0)
    paths = [tmp_path / "one.pth", tmp_path / "two.pth", tmp_path / "three.pth"]
    state = network.trunk.state_dict()
    torch.save(state, paths[0])
    paths[1].write_bytes(paths[0].read_bytes())
    torch.save({name: value + 1 for name, value in state.items()}, paths[2])
    keys = [trial_key(load_trial({"model": {"backbone": "vit_pico", "pretrained": str(path)}})) for path in paths]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]
    assert keys[0] != trial_key(load_trial({"model": {"backbone": "vit_pico"}}))


def test_it_gives_a_json_schema_with_the_documentation_of_its_fields() -> None:
    schema = TrialConfig.model_json_schema()
    assert schema["properties"]["seed"]["description"].startswith("Of everything random")
    assert schema["$defs"]["OptimConfig"]["properties"]["lr"]["description"] == "Learning rate at the start."
