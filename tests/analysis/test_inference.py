from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.claims.inference import Question, ask, hedges_g, seeds_needed
from analysis.stats import holm

VALUES = st.lists(st.floats(-5, 5).map(lambda value: round(value, 3)), min_size=3, max_size=8)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    corrected = holm([0.01, math.nan, 0.02])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_rejects_what_stepping_down_rejects_in_any_order(p, random):
    corrected = holm(p)
    for level in (0.01, 0.05, 0.2):
        rejected, left = set(), sorted(range(len(p)), key=lambda i: p[i])
        while left and p[left[0]] * len(left) <= level:
            rejected.add(left.pop(0))
        assert {i for i, value in enumerate(corrected) if value <= level} == rejected
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == [corrected[i] for i in order]


def test_more_is_the_paired_t_test():
    a, b = np.random.default_rng(0).normal([0.7, 0], 1, (6, 2)).T
    outcome = ask(Question.MORE, a, b, 0.5)
    reference = stats.ttest_rel(a, b)
    assert min(outcome.p_for, outcome.p_against) == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval()
    assert (outcome.low, outcome.high) == pytest.approx((interval.low, interval.high))
    assert outcome.estimate == pytest.approx((a - b).mean())


def test_same_is_two_one_sided_t_tests():
    a, b = np.random.default_rng(1).normal(0, 0.3, (2, 7))
    outcome = ask(Question.SAME, a, b, 0.5)
    above = stats.ttest_1samp(a - b, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(a - b, 0.5, alternative="less").pvalue
    assert outcome.p_for == pytest.approx(max(above, below))
    beyond = [stats.ttest_1samp(a - b, m, alternative=s).pvalue for m, s in ((0.5, "greater"), (-0.5, "less"))]
    assert outcome.p_against == pytest.approx(min(1, 2 * min(beyond)))


@given(VALUES, st.floats(0.05, 3))
def test_same_is_affirmed_where_the_90_percent_interval_lies_within_the_margin(values, margin):
    zeros = [0.0] * len(values)
    outcome = ask(Question.SAME, values, zeros, margin)
    if not outcome.sd > 1e-6:
        return
    half = stats.t.ppf(0.95, outcome.n - 1) * outcome.sd / math.sqrt(outcome.n)
    reach = abs(outcome.estimate) + half
    if abs(reach - margin) > 1e-6:
        assert (outcome.p_for < 0.05) == (reach < margin)


def test_steadier_is_pitman_and_morgans_test():
    rng = np.random.default_rng(2)
    a, b = 3 * rng.normal(size=8), rng.normal(size=8)
    outcome = ask(Question.STEADIER, a, b, 0.5)
    assert outcome.estimate == pytest.approx(a.std(ddof=1) / b.std(ddof=1))
    assert outcome.p_for == pytest.approx(stats.pearsonr(a - b, a + b).pvalue)
    assert outcome.p_against == pytest.approx(1)


@given(VALUES, st.integers(0, 1000))
def test_the_interval_of_a_ratio_leaves_out_one_where_the_test_rejects(values, seed):
    other = np.random.default_rng(seed).normal(size=len(values))
    outcome = ask(Question.STEADIER, values, other, 0.5)
    p = min(outcome.p_for, outcome.p_against)
    if math.isnan(p) or abs(p - 0.05) < 1e-4:
        return
    assert (p < 0.05) == (not outcome.low <= 1 <= outcome.high)


def test_the_effect_is_corrected_without_bias():
    draws = np.random.default_rng(4).normal(0.8, 1, (40_000, 4))
    assert np.mean([hedges_g(draw) for draw in draws]) == pytest.approx(0.8, abs=0.02)
    assert math.isnan(hedges_g([1.0, 2.0]))
    assert math.isnan(hedges_g([1.0, 1.0, 1.0]))


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10), (0.2, 199)])
def test_seeds_for_a_paired_t_test_are_those_of_the_textbook(effect, seeds):
    assert _needed(Question.MORE, *_exactly(effect, 1.0)) == seeds
    assert _needed(Question.MORE, *_exactly(-effect, 1.0)) == seeds


def test_seeds_to_show_that_rows_are_the_same():
    seeds = int(_needed(Question.SAME, *_exactly(0.0, 0.5)))
    assert _simulated_same(0.0, seeds) >= 0.79
    assert _simulated_same(0.0, seeds - 2) < 0.8
    # Beyond the margin, they decide that the rows differ.
    assert _needed(Question.SAME, *_exactly(1.0, 0.5)) == 10  # as for an effect of 1


def test_seeds_to_compare_spreads():
    a, b = _uncorrelated()
    seeds = int(_needed(Question.STEADIER, 2 * a, b))
    rng = np.random.default_rng(5)
    decided = [ask(Question.STEADIER, 2 * x, y, 0.5).p_for <= 0.05 for x, y in rng.normal(size=(1500, 2, seeds))]
    assert np.mean(decided) == pytest.approx(0.8, abs=0.05)


def test_seeds_where_nothing_can_be_planned():
    assert math.isinf(_needed(Question.MORE, *_exactly(1e-6, 1.0)))
    assert math.isnan(_needed(Question.MORE, np.ones(3), np.zeros(3)))
    assert math.isnan(_needed(Question.STEADIER, np.arange(2.0), np.ones(2)))
    assert _needed(Question.MORE, *_exactly(1e6, 1.0)) <= 3


def _needed(question: Question, a: np.ndarray, b: np.ndarray) -> float:
    return seeds_needed(question, ask(question, a, b, 0.5), a, b, margin=0.5, level=0.05, power=0.8)


def _exactly(mean: float, sd: float) -> tuple[np.ndarray, np.ndarray]:
    return mean + sd * np.array([-1.0, 0.0, 1.0]), np.zeros(3)


def _uncorrelated() -> tuple[np.ndarray, np.ndarray]:
    return np.array([1.0, 1, -1, -1]), np.array([1.0, -1, 1, -1])


def _simulated_same(mean: float, seeds: int) -> float:
    draws = np.random.default_rng(6).normal(mean, 0.5, (20_000, seeds))
    reach = np.abs(draws.mean(1)) + stats.t.ppf(0.95, seeds - 1) * draws.std(1, ddof=1) / math.sqrt(seeds)
    return float((reach < 0.5).mean())


@pytest.mark.parametrize("question", list(Question))
def test_one_seed_and_none_answer_nothing(question):
    assert math.isnan(ask(question, [5.0], [1.0], 0.5).p_for)
    assert ask(question, [], [], 0.5).n == 0


def test_no_spread_answers_nothing_but_that_equal_rows_are_equal():
    assert math.isnan(ask(Question.MORE, [2.0, 2.0], [1.0, 1.0], 0.5).p_for)
    assert math.isnan(ask(Question.SAME, [1.2, 1.2], [1.0, 1.0], 0.5).p_for)
    assert ask(Question.SAME, [1.0, 2.0], [1.0, 2.0], 0.5).p_for == 0
