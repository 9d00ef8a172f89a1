"""The selective method's config: components, canonical form, presets, messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from test_selective_contract import expanded

from trainables.errors import ConfigError
from trainables.methods import METHODS
from trainables.methods.selective import PAPER, RELEASED, SelectiveConfig
from trainables.settings import component

DEFAULT = {
    "name": "selective",
    "grouping": {"name": "adaptive", "clusterer": {"name": "positive_affinity"}},
}


def parsed(**fields: Any) -> SelectiveConfig:
    config = component(METHODS, {"name": "selective", **fields}, "method")
    assert isinstance(config, SelectiveConfig)
    return config


def test_canonical_names_every_component_and_leaves_defaults_out() -> None:
    assert parsed().canonical() == SelectiveConfig().canonical() == DEFAULT
    assert parsed(grouping="joint").canonical() == {"name": "selective", "grouping": {"name": "joint"}}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"beta": 0.001, "order": "random", "credit": "stepped"}),
        ({"grouping": "adaptive"}, {"grouping": {"name": "adaptive", "clusterer": "positive_affinity", "warmup": 0}}),
        ({"grouping": "joint"}, {"grouping": {"name": "joint"}}),
        ({"beta": 1}, {"beta": 1.0}),
        (
            {"grouping": {"name": "adaptive", "clusterer": {"name": "affinity_propagation", "preference": 0}}},
            {"grouping": {"name": "adaptive", "clusterer": {"preference": 0.0, "name": "affinity_propagation"}}},
        ),
    ],
)
def test_equal_configs_have_equal_canonical_forms(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    assert parsed(**first) == parsed(**second)
    assert json.dumps(parsed(**first).canonical()) == json.dumps(parsed(**second).canonical())


FORMS: list[dict[str, Any]] = [
    {},
    {"grouping": {"name": "adaptive", "clusterer": "affinity_propagation"}},
    {"grouping": {"name": "adaptive", "clusterer": {"name": "positive_affinity", "linkage": "minimum"}}},
    {"grouping": {"name": "heterogeneous"}},
    {"grouping": {"name": "heterogeneous", "groups": 2}},
    {"grouping": {"name": "random", "groups": 2}},
    {"grouping": {"name": "random", "groups": 2, "redraw": "once"}},
    {"grouping": {"name": "fixed", "groups": [["a"], ["b"]]}},
    {"grouping": {"name": "fixed", "groups": [["b"], ["a"]]}},
    {"credit": "next"},
    {"last_group": "measured"},
    {"last_group_every": 10},
    {"scale": "group_size"},
    {"self_entries": "nonnegative"},
    {"opposite_signs": "negative_maximum"},
    {"single_group": "twice"},
    {"frozen_heads": "momentum"},
    {"group_loss": "mean"},
    {"order": "affinity"},
]


@pytest.mark.parametrize("fields", FORMS)
def test_every_field_survives_plain_data(fields: Mapping[str, Any]) -> None:
    config = parsed(**fields)
    assert SelectiveConfig.parse(config.canonical()) == config
    assert SelectiveConfig.parse(json.loads(json.dumps(config.to_dict()))) == config


def test_every_field_tells_configs_apart() -> None:
    forms = [json.dumps(parsed(**fields).canonical(), sort_keys=True) for fields in FORMS]
    assert len(set(forms)) == len(FORMS)


def test_paper_preset_is_the_defaults() -> None:
    assert parsed(**expanded(PAPER)) == SelectiveConfig()


def test_released_preset_sets_every_switch() -> None:
    config = parsed(**expanded(RELEASED))
    plain = config.to_dict()
    for path, value in RELEASED.items():
        found: Any = plain
        for part in path.split("."):
            found = found[part]
        assert found == value
    assert config.canonical() == {
        "name": "selective",
        "grouping": {
            "name": "adaptive",
            "clusterer": {"name": "affinity_propagation"},
            "normalize": "self_upper",
            "warmup": 101,
        },
        "credit": "next",
        "last_group": "unmeasured",
        "scale": "group_size",
        "self_entries": "nonnegative",
        "opposite_signs": "negative_maximum",
        "single_group": "twice",
        "frozen_heads": "momentum",
    }
    # No field of the method is left to its default unsaid, but the one that is this project's own.
    assert {path.split(".")[0] for path in RELEASED} | {"name", "last_group_every"} == set(SelectiveConfig.model_fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": 0}, r"^method\.beta: "),
        ({"beta": 1.5}, r"^method\.beta: "),
        ({"bta": 1}, r"^method\.bta: unknown field 'bta'; did you mean 'beta'\?"),
        ({"credit": "nxt"}, r"^method\.credit: should be 'stepped' or 'next', got 'nxt'$"),
        ({"grouping": "adaptve"}, r"^method\.grouping\.name: unknown grouping 'adaptve'; did you mean 'adaptive'\?"),
        ({"grouping": {"groups": 2}}, r"^method\.grouping\.name is missing"),
        ({"grouping": "random"}, r"^method\.grouping\.groups is missing$"),
        ({"grouping": {"name": "joint", "groups": 2}}, r"^method\.grouping\.groups: unknown field"),
        ({"grouping": {"name": "adaptive", "clusterer": "kmeans"}}, r"^method\.grouping\.clusterer\.name: unknown"),
        (
            {"grouping": {"name": "adaptive", "clusterer": {"name": "positive_affinity", "linkage": "max"}}},
            r"^method\.grouping\.clusterer\.linkage: should be 'average' or 'minimum', got 'max'$",
        ),
        ({"grouping": {"name": "adaptive", "warmup": -1}}, r"^method\.grouping\.warmup: "),
        ({"grouping": {"name": "adaptive", "regroup_every": 0}}, r"^method\.grouping\.regroup_every: "),
        ({"credit": "next", "last_group": "measured"}, r"^method\.last_group: 'measured' needs credit 'stepped'"),
        ({"last_group": "unmeasured", "last_group_every": 2}, r"^method\.last_group_every: nothing is measured"),
    ],
)
def test_mistakes_are_named_in_one_line(fields: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(**fields)
    assert "\n" not in str(caught.value)


def test_grouping_is_checked_against_the_tasks() -> None:
    method = METHODS["selective"]
    method.check(parsed(grouping={"name": "fixed", "groups": [["a", "b"], ["c"]]}), ["a", "b", "c"])
    with pytest.raises(ConfigError, match="missing: d"):
        method.check(parsed(grouping={"name": "fixed", "groups": [["a", "b"], ["c"]]}), ["a", "b", "c", "d"])
    with pytest.raises(ConfigError, match="at most one group per task"):
        method.check(parsed(grouping={"name": "random", "groups": 4}), ["a", "b", "c"])
