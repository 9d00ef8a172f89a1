from __future__ import annotations

import itertools
import math

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.search.anova import decompose, is_complete_factorial
from analysis.search.forest import Forest
from analysis.search.importance import EXACT, FANOVA, fanova, importances, sample, shares
from analysis.search.plan import Axis
from study import schema


def choice(path: str, *values: object) -> Axis:
    return Axis(path, "choice", tuple(values))


def trials(points: list[dict[str, object]], values: list[float], status: str = schema.VALIDATED) -> pd.DataFrame:
    return pd.DataFrame({"point": points, "delta_m": values, "status": status, "number": range(len(points))})


GROUPING = choice("grouping", "none", "pairs", "adaptive")
ORDER = choice("order", "forward", "random")
BATCH = choice("batch", 4, 8)
FACTORS = (GROUPING, ORDER, BATCH)

# Main effects of variances 98, 2 and 0: grouping -a, 0, a with mean square 2 a^2 / 3, order -b, b with mean square b^2.
EFFECT = {"none": -math.sqrt(147), "pairs": 0.0, "adaptive": math.sqrt(147), "forward": -math.sqrt(2)}
EFFECT["random"] = math.sqrt(2)


def factorial() -> tuple[list[dict[str, object]], list[float]]:
    points = [
        {"grouping": grouping, "order": order, "batch": batch}
        for grouping, order, batch in itertools.product(*(axis.values for axis in FACTORS))
    ]
    return points, [EFFECT[str(point["grouping"])] + EFFECT[str(point["order"])] for point in points]


def test_a_complete_factorial_of_shares_98_2_0_is_taken_apart_exactly() -> None:
    found = importances(trials(*factorial()), FACTORS)
    assert [(entry.axis.path, entry.method) for entry in found] == [
        ("grouping", EXACT),
        ("order", EXACT),
        ("batch", EXACT),
    ]
    assert [entry.share for entry in found] == pytest.approx([0.98, 0.02, 0.0], abs=1e-12)


def test_fanova_has_98_2_0_in_order_where_pedanova_has_not() -> None:
    points, values = factorial()
    taken = sample(trials(points, values), FACTORS)
    main = fanova(taken)
    assert main == pytest.approx([0.98, 0.02, 0.0], abs=0.03)
    study = optuna.create_study(direction="maximize")
    for point, value in zip(points, values, strict=True):
        space = {axis.path: optuna.distributions.CategoricalDistribution(axis.values) for axis in FACTORS}
        study.add_trial(optuna.trial.create_trial(params=point, distributions=space, value=value))
    ped = optuna.importance.PedAnovaImportanceEvaluator()
    inverted = optuna.importance.get_param_importances(study, evaluator=ped)
    assert abs(inverted["grouping"] - 0.98) > 0.2  # why it is not used


def test_fanova_is_the_same_each_time_and_of_a_random_design_near_the_truth() -> None:
    rng = np.random.default_rng(3)
    axes = [Axis("lr", "float", low=1e-5, high=1e-1, log=True), Axis("beta", "float", low=0.0, high=1.0), ORDER]
    points: list[dict[str, object]] = [
        {"lr": 10 ** float(-5 + 4 * a), "beta": float(b), "order": str(o)}
        for a, b, o in zip(rng.random(150), rng.random(150), rng.choice(["forward", "random"], 150), strict=True)
    ]
    # Linear in the logarithm: shares 0.9 and 0.1 of the variance over the space.
    values = [3 * (math.log10(float(str(p["lr"]))) + 5) / 4 + float(str(p["beta"])) for p in points]
    first = shares(sample(trials(points, values), axes))
    again = shares(sample(trials(points, values), axes))
    assert first is not None
    assert again is not None
    assert first.method == FANOVA
    assert np.array_equal(first.main, again.main)
    assert np.array_equal(first.pairs, again.pairs)
    assert first.main == pytest.approx([0.9, 0.1, 0.0], abs=0.06)


def test_the_forest_agrees_with_optunas_on_single_axes() -> None:
    rng = np.random.default_rng(5)
    axes = [Axis(name, "float", low=0.0, high=1.0) for name in "abc"]
    places = rng.random((120, 3))
    values = np.sin(4 * places[:, 0]) + places[:, 1] * places[:, 2]
    points: list[dict[str, object]] = [dict(zip("abc", map(float, row), strict=True)) for row in places]
    taken = sample(trials(points, list(values)), axes)
    assert Forest.fit(taken.places, taken.values).shares[0] == pytest.approx(fanova(taken), abs=0.03)


def test_the_forests_shares_are_those_of_its_own_surface() -> None:
    rng = np.random.default_rng(7)
    places = rng.random((40, 2))
    forest = Forest.fit(places, places[:, 0] * places[:, 1])
    middles = (np.arange(400) + 0.5) / 400
    one = Forest(forest.trees[:1], 2)
    surface = one.surface(0, 1, middles, middles)
    main, pairs = one.shares
    assert np.var(surface.mean(axis=0)) / np.var(surface) == pytest.approx(main[0], rel=0.02)
    assert np.var(surface.mean(axis=1)) / np.var(surface) == pytest.approx(main[1], rel=0.02)
    assert main.sum() + pairs[0, 1] == pytest.approx(1.0)


def test_an_interaction_alone_is_all_in_the_pair() -> None:
    """Exclusive or: neither axis matters by itself. Exact, and by the forest on an incomplete design."""
    levels = [(a, b) for a in "xy" for b in "xy"]
    exact = decompose(levels, [float(a != b) for a, b in levels])
    assert exact.main == pytest.approx([0.0, 0.0], abs=1e-12)
    assert exact.pairs[0, 1] == pytest.approx(1.0)
    rng = np.random.default_rng(11)
    places = rng.random((300, 3))
    values = ((places[:, 0] > 0.5) ^ (places[:, 1] > 0.5)).astype(float)
    main, pairs = Forest.fit(places, values).shares
    assert main.max() < 0.08
    assert pairs[0, 1] > 0.7
    assert max(pairs[0, 2], pairs[1, 2]) < 0.1


def test_replicates_leave_a_residual() -> None:
    levels = [("a",), ("a",), ("b",), ("b",)]
    found = decompose(levels, [-2.0, 0.0, 0.0, 2.0])  # cell means -1 and 1, one to each side within
    assert found.main == pytest.approx([0.5])
    assert found.residual == pytest.approx(0.5)


@given(st.tuples(*(st.integers(2, 3) for _ in range(3))), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_shares_add_up_to_one(shape: tuple[int, ...], seed: int) -> None:
    levels = list(itertools.product(*map(range, shape)))
    found = decompose(levels, list(np.random.default_rng(seed).normal(size=len(levels))))
    total = found.main.sum() + found.pairs.sum() / 2 + found.higher + found.residual
    assert total == pytest.approx(1.0)
    assert min(found.main.min(), found.pairs.min()) >= 0


@pytest.mark.parametrize(
    ("levels", "complete"),
    [
        ([("a", 1), ("a", 2), ("b", 1), ("b", 2)], True),
        ([("a", 1), ("a", 2), ("b", 1)], False),
        ([("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 2)], False),
        ([], False),
        ([()], False),
    ],
)
def test_what_a_complete_factorial_is(levels: list[tuple[object, ...]], complete: bool) -> None:
    assert is_complete_factorial(levels) is complete


def test_equal_values_cannot_be_taken_apart() -> None:
    with pytest.raises(ValueError, match="all the same"):
        decompose([("a",), ("b",)], [0.1, 0.1])
    with pytest.raises(ValueError, match="every combination"):
        decompose([("a", 1), ("b", 2)], [0.0, 1.0])


def test_an_axis_that_some_trials_lack_is_judged_over_those_that_have_it() -> None:
    window = Axis("window", "int", low=1.0, high=8.0, when={"order": "random"})
    points: list[dict[str, object]] = [{"order": "random", "window": w, "batch": b} for w in (1, 8) for b in (4, 8)]
    points += [{"order": "forward", "batch": b} for b in (4, 8)] * 2
    values = [0.0, 1.0, 10.0, 11.0, *[100.0] * 4]
    found = {entry.axis.path: entry for entry in importances(trials(points, values), [ORDER, window, BATCH])}
    assert found["window"].trials == 4
    assert found["window"].condition == "order is random"
    assert found["window"].method == EXACT
    assert found["window"].share == pytest.approx(25 / 25.25)  # 5^2 of 5^2 + 0.5^2
    assert found["order"].trials == 8
    assert found["order"].condition == ""


def test_stopped_and_diverged_trials_and_too_few_tell_nothing() -> None:
    points, values = factorial()
    assert all(math.isnan(e.share) for e in importances(trials(points, values, schema.PRUNED), FACTORS))
    assert all(math.isnan(e.share) for e in importances(trials(points[:3], values[:3]), FACTORS))
    assert shares(sample(trials(points, [1.0] * len(points)), FACTORS)) is None


def test_numbers_and_truth_values_are_different_levels() -> None:
    axis = choice("flag", 1, True, None)
    assert [axis.index(value) for value in (1, True, None)] == [0, 1, 2]


def test_places_follow_the_scale() -> None:
    log = Axis("lr", "float", low=1e-4, high=1e-2, log=True)
    assert log.place(1e-3) == pytest.approx(0.5)
    assert log.at(0.5) == pytest.approx(1e-3)
    assert GROUPING.place("pairs") == pytest.approx(0.5)
