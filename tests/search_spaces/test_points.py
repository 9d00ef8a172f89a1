from __future__ import annotations

import random
from typing import Any

import pytest

from search_spaces import Axis, Choice, Condition, Float, Int, Space, apply, default_point, fits, point_of, space
from trainables.config import load_trial
from trainables.errors import ConfigError

SPACE = Space((Axis("method", Choice(("gd", "cagrad", "selective"))),)) + (
    space("methods/cagrad") + space("methods/selective") + space("optimizer")
)


def drawn(seed: int, base: Any) -> dict[str, Any]:
    generator = random.Random(seed)
    return SPACE.sample_with(lambda axis: generator.choice(axis.domain.points(5)), base)


@pytest.mark.parametrize("seed", range(25))
def test_a_point_is_found_again_in_the_config_it_makes(seed: int, tiny: dict[str, Any]) -> None:
    base = apply(tiny, {"tasks.include": None})
    point = drawn(seed, base)
    config = load_trial(apply(base, {**point, "seed": 7, "record.points": 9}))
    assert point_of(SPACE, config, base) == point
    assert fits(SPACE, config.to_dict(), load_trial(base))
    assert not fits(SPACE, config, base, ignore=("record",))
    assert default_point(SPACE, config) == point


@pytest.mark.parametrize("method", ["gd", "cagrad", "selective"])
def test_setting_the_default_point_changes_nothing(method: str, tiny: dict[str, Any]) -> None:
    base = apply(tiny, {"method": method})
    point = default_point(SPACE, base)
    assert point["method"] == method
    assert load_trial(apply(base, point)) == load_trial(base)


def test_the_default_point_by_known_answer() -> None:
    assert default_point(space("methods/selective"), {"method": "selective"}) == {
        "method.beta": 1e-3,
        "method.grouping": "adaptive",
        "method.grouping.clusterer": "positive_affinity",
        "method.grouping.clusterer.linkage": "average",
        "method.grouping.normalize": "none",
        "method.grouping.regroup_every": 1,
        "method.grouping.warmup": 0,
        "method.order": "random",
    }


def test_a_default_outside_the_space_is_named(tiny: dict[str, Any]) -> None:
    narrow = SPACE.restrict("optim.lr", Float(1e-5, 1e-4, log=True))
    with pytest.raises(ConfigError, match=r"axes\.optim\.lr: the config has 0\.001, 1e-05 to 0\.0001, logarithmic is"):
        default_point(narrow, tiny)
    with pytest.raises(ConfigError, match=r"axes\.method: the config has 'famo', one of gd"):
        default_point(SPACE, apply(tiny, {"method": "famo"}))
    with pytest.raises(ConfigError, match=r"axes\.method\.c: the config has no value"):
        default_point(Space((Axis("method.c", Float(0, 1)),)), tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"optim.lr": 0.5},  # outside its range
        {"train.batch_size": 4},  # no axis there
        {"method": "famo"},  # not among the choices
        {"method": "gd", "method.steps_per_batch": 2},  # a field that no axis sets
        {"optim.schedule": "constant", "optim.power": 0.7},  # set where the axis does not exist
    ],
)
def test_a_config_that_no_point_makes_does_not_fit(change: dict[str, Any], tiny: dict[str, Any]) -> None:
    assert fits(SPACE, tiny, tiny)
    assert point_of(SPACE, apply(tiny, change), tiny) is None


def test_components_given_with_fields_are_told_apart() -> None:
    groupings = Space(
        (
            Axis(
                "method.grouping",
                Choice(("joint", {"name": "random", "groups": 2}, {"name": "random", "groups": 2, "redraw": "once"})),
                Condition({"method": "selective"}),
            ),
            Axis("seed", Int(0, 3)),
        )
    )
    base = {"method": "selective"}
    for value in groupings["method.grouping"].values:
        point = {"method.grouping": value, "seed": 2}
        assert point_of(groupings, load_trial(apply(base, point)), base, ignore=()) == point
    other = apply(base, {"method.grouping": {"name": "random", "groups": 3}})
    assert not fits(groupings, other, base)
