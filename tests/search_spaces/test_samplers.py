"""Spaces under Optuna and Ray Tune."""

from __future__ import annotations

from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import (
    Axis,
    Choice,
    Condition,
    Float,
    Int,
    Space,
    apply,
    decode,
    encode,
    from_params,
    space,
    suggest,
    to_optuna,
    to_optuna_space,
    to_params,
    to_ray,
)
from trainables.config import load_trial
from trainables.errors import ConfigError

WHOLE = Space((Axis("method", Choice(("gd", "cagrad", "selective", "uw"))),)) + (
    space("methods/cagrad") + space("methods/selective") + space("methods/uw") + space("optimizer")
)
NESTED = Space(
    (
        Axis("method", Choice(({"name": "selective", "order": "forward"}, "gd", {"name": "dwa", "window": 25}))),
        Axis("tasks.include", Choice((None, ["normal"], ["normal", "reshading"]))),
        Axis("model.drop_path", Float(0.1, 0.7, step=0.1)),
        Axis("train.batch_size", Int(2, 6, step=2)),
        Axis("optim.weight_decay", Float(0.0, 1.0), Condition({"method": "gd"})),
    )
)


@pytest.mark.parametrize(
    ("domain", "distribution"),
    [
        (Float(1e-4, 0.1, log=True), FloatDistribution(1e-4, 0.1, log=True)),
        (Float(0.0, 0.3, step=0.05), FloatDistribution(0.0, 0.3, step=0.05)),
        (Int(1, 100, log=True), IntDistribution(1, 100, log=True)),
        (Int(2, 8, step=3), IntDistribution(2, 8, step=3)),
        (Choice(("a", 1, None)), CategoricalDistribution(["a", 1, None])),
        (Choice(("[1]", [1])), CategoricalDistribution(['"[1]"', "[1]"])),
    ],
)
def test_distributions_by_known_answers(domain: Any, distribution: Any) -> None:
    assert to_optuna(Axis("x", domain)) == distribution


@pytest.mark.parametrize("values", [("a", 1, 2.5, None), (False, "path"), ("[1]", [1], {"b": 2, "a": [None]}, "x", 3)])
def test_choices_come_back_from_optuna(values: tuple[Any, ...]) -> None:
    axis = Axis("x", Choice(values))
    encoded = [encode(axis, value) for value in values]
    assert len(set(map(repr, encoded))) == len(values)
    assert all(isinstance(value, (str, int, float, bool, type(None))) for value in encoded)
    assert [decode(axis, value) for value in encoded] == list(values)


def test_what_is_no_encoded_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"axes\.x: JSON text is wanted, got '\{'"):
        decode(Axis("x", Choice(([1],))), "{")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("wanted", [WHOLE, NESTED], ids=["named", "nested"])
def test_optuna_stays_in_the_space_and_records_nothing_dead(
    sampler: str, wanted: Space, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.logging.get_logger("optuna"), "disabled", True)
    base = apply(tiny, {"tasks.include": None})
    made = (
        optuna.samplers.RandomSampler(seed=0)
        if sampler == "random"
        else optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    )
    study = optuna.create_study(sampler=made)
    for value in range(25):
        trial = study.ask()
        point = wanted.sample_with(partial(suggest, trial), base)
        assert from_params(wanted, trial.params) == point
        assert set(trial.params) == set(point)
        assert wanted.alive(point, base) == point
        load_trial(apply(base, point))
        study.tell(trial, float(value))


def test_an_enqueued_point_is_the_first_trial(tiny: dict[str, Any]) -> None:
    point = {"method": {"name": "dwa", "window": 25}, "tasks.include": ["normal"], "model.drop_path": 0.3}
    point["train.batch_size"] = 4
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(to_params(NESTED, point))
    assert NESTED.sample_with(partial(suggest, study.ask()), tiny) == point


def test_a_stepped_number_reads_as_it_is_written() -> None:
    axis = NESTED["model.drop_path"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {suggest(study.ask(), axis) for _ in range(60)}
    assert drawn == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}


def test_a_whole_space_for_samplers_that_want_one() -> None:
    assert to_optuna_space(WHOLE) == {axis.path: to_optuna(axis) for axis in WHOLE}


def variants(wanted: Space, base: Any, seed: int, count: int) -> list[dict[str, Any]]:
    from ray.tune.experiment import Experiment
    from ray.tune.search.basic_variant import BasicVariantGenerator

    def train(config: dict[str, Any]) -> None:
        raise AssertionError("nothing runs here")

    generator = BasicVariantGenerator(random_state=seed)
    experiment = Experiment("space", train, config=to_ray(wanted, base), num_samples=count, storage_path="/nowhere")
    generator.add_configurations([experiment])
    return [generator.next_trial().config["point"] for _ in range(count)]


@pytest.mark.parametrize("wanted", [WHOLE, NESTED], ids=["named", "nested"])
def test_ray_draws_valid_configs_seeded_and_without_dead_parameters(wanted: Space, tiny: dict[str, Any]) -> None:
    base = apply(tiny, {"tasks.include": None})
    points = variants(wanted, base, seed=0, count=25)
    for point in points:
        assert wanted.alive(point, base) == point
        load_trial(apply(base, point))
    assert points == variants(wanted, base, seed=0, count=25)
    assert points != variants(wanted, base, seed=1, count=25)


def test_rays_ranges_hold_both_ends() -> None:
    wanted = Space((Axis("a", Int(1, 3)), Axis("b", Int(1, 2, log=True)), Axis("c", Float(0.0, 0.2, step=0.1))))
    points = variants(wanted, {}, seed=0, count=60)
    assert {point["a"] for point in points} == {1, 2, 3}
    assert {point["b"] for point in points} == {1, 2}
    assert {point["c"] for point in points} == {0.0, 0.1, 0.2}
