"""Dynamic task prioritization by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.testing import LossWeightedContract, Scripted
from trainables.errors import ConfigError
from trainables.methods.dtp import DTPConfig


class TestDTP(LossWeightedContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        forms: dict[str, Mapping[str, Any]] = {
            "default": {},
            "plain": {"decoder_grads": "plain", "gamma": 2.0, "alpha": 1.0, "reference_iterations": 1},
            "likelihood": {"kpi": "likelihood", "gamma": 0.0},
        }
        return {label: {"name": "dtp", **form} for label, form in forms.items()}


def focal(kpi: float, gamma: float) -> float:
    return -((1 - kpi) ** gamma) * math.log(kpi)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_progress_by_hand(gamma: float) -> None:
    config = {"name": "dtp", "gamma": gamma, "alpha": 0.25, "reference_iterations": 1}
    bench = Scripted(config, torch.eye(3))
    # No progress yet: the smallest indicator.
    assert bench.weights(bench.replay([8.0, 2.0, 1.0])) == pytest.approx([focal(0.1, gamma)] * 3)
    # Progress 3/4, 1/2, and none, for the loss rose; a quarter of it comes in.
    second = [0.75 / 4, 0.5 / 4, 0.1]
    assert bench.weights(bench.replay([2.0, 1.0, 3.0])) == pytest.approx([focal(k, gamma) for k in second])
    third = [0.75 * 0.75 / 4 + 0.25, 0.75 * 0.5 / 4 + 0.25 * 0.75, 0.25 * 0.9]
    assert bench.weights(bench.replay([1e-300, 0.5, 0.1])) == pytest.approx([focal(k, gamma) for k in third])


def test_the_reference_is_the_mean_of_the_first_losses() -> None:
    bench = Scripted({"name": "dtp", "alpha": 1.0, "reference_iterations": 3}, torch.eye(1))
    for loss, reference in ((6.0, 6.0), (2.0, 4.0), (1.0, 3.0), (1.5, 3.0), (0.3, 3.0)):
        weight = bench.weights(bench.replay([loss]))[0]
        assert weight == pytest.approx(focal(min(max(1 - loss / reference, 0.1), 0.99), 1.0))


def test_likelihood_by_hand() -> None:
    bench = Scripted({"name": "dtp", "kpi": "likelihood", "alpha": 0.5}, torch.eye(2))
    assert bench.weights(bench.replay([1.0, 0.2])) == pytest.approx([focal(math.exp(-x), 1.0) for x in (1.0, 0.2)])
    means = [(math.exp(-1.0) + math.exp(-0.5)) / 2, (math.exp(-0.2) + math.exp(-0.4)) / 2]
    assert bench.weights(bench.replay([0.5, 0.4])) == pytest.approx([focal(k, 1.0) for k in means])


def test_the_indicator_is_held_away_from_its_ends() -> None:
    config = {"name": "dtp", "alpha": 1.0, "kpi_min": 0.2, "kpi_max": 0.7, "reference_iterations": 1}
    bench = Scripted(config, torch.eye(2))
    bench.replay([1.0, 1.0])
    assert bench.weights(bench.replay([5.0, 1e-9])) == pytest.approx([focal(0.2, 1.0), focal(0.7, 1.0)])


def test_a_batch_without_labels_says_nothing_about_a_task() -> None:
    bench = Scripted({"name": "dtp", "alpha": 0.5, "reference_iterations": 2}, torch.eye(2))
    assert bench.weights(bench.replay([0.0, 4.0])) == pytest.approx([focal(0.1, 1.0)] * 2)
    bench.replay([6.0, 2.0])  # the first task's first loss
    bench.replay([2.0, 0.0])  # its reference is now 4, its progress a half
    weights = bench.weights(bench.replay([0.0, 0.0]))
    assert weights == pytest.approx([focal(0.25, 1.0), focal((1 - 2 / 3) / 2, 1.0)])


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0.01, 2.0)), min_size=2, max_size=5),
    st.floats(0.0, 3.0),
    st.floats(1e-3, 1e3),
)
def test_the_task_with_less_progress_weighs_more_in_any_unit(
    pairs: list[tuple[float, float]], gamma: float, unit: float
) -> None:
    weights = []
    for factor in (1.0, unit):
        bench = Scripted({"name": "dtp", "gamma": gamma, "reference_iterations": 1}, torch.eye(len(pairs)))
        bench.replay([first * factor for first, _ in pairs])
        weights.append(bench.weights(bench.replay([first * share * factor for first, share in pairs])))
    assert weights[0] == pytest.approx(weights[1])
    order = sorted(range(len(pairs)), key=lambda task: pairs[task][1])
    ordered = [weights[0][task] for task in order]
    assert all(more >= less * (1 - 1e-9) for less, more in pairwise(ordered))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0}, r"method\.alpha: .*greater than 0"),
        ({"gamma": -1}, r"method\.gamma: .*0"),
        ({"kpi": "accuracy"}, r"method\.kpi: .*'progress' or 'likelihood'"),
        ({"kpi_min": 0.6, "kpi_max": 0.6}, r"^method\.kpi_min: less than kpi_max is wanted, got 0\.6 and 0\.6$"),
        (
            {"kpi": "likelihood", "reference_iterations": 3},
            r"^method\.reference_iterations: read by kpi 'progress' only",
        ),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DTPConfig.parse(fields, "method")
