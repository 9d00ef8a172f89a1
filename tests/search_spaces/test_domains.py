from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.domains import Choice, Domain, Float, Int, domain_from
from trainables.errors import ConfigError

plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)


def _distinct(values: list[Any]) -> bool:
    return all(value not in values[:index] for index, value in enumerate(values))


choices = st.lists(plain_values, min_size=1, max_size=5).filter(_distinct).map(lambda values: Choice(tuple(values)))
ints = st.builds(
    lambda low, count, step: Int(low, low + count * step, step=step),
    st.integers(-50, 50),
    st.integers(1, 20),
    st.integers(1, 5),
)
log_ints = st.builds(lambda low, more: Int(low, low + more, log=True), st.integers(1, 50), st.integers(1, 500))
floats = st.builds(
    lambda low, width, log: Float(low, low + width, log=log),
    st.floats(1e-6, 10),
    st.floats(1e-3, 100),
    st.booleans(),
)
stepped = st.builds(
    lambda low, count, step: Float(low, low + count * step, step=step),
    st.sampled_from([-1.0, 0.0, 0.1]),
    st.integers(1, 30),
    st.sampled_from([0.05, 0.1, 0.25, 1.0]),
)
domains = st.one_of(choices, ints, log_ints, floats, stepped)


@given(domains)
def test_a_domain_comes_back_from_its_plain_data(domain: Domain) -> None:
    again = domain_from(domain.to_dict())
    assert again == domain
    assert type(again) is type(domain)


@given(domains, st.integers(2, 9))
def test_grid_values_are_in_the_domain_distinct_in_order_and_hold_both_ends(domain: Domain, count: int) -> None:
    values = domain.points(count)
    assert all(domain.contains(value) for value in values)
    assert _distinct(list(values))
    if not isinstance(domain, Choice):
        assert list(values) == sorted(values)
        assert (values[0], values[-1]) == (domain.low, domain.high)
        assert len(values) <= count


@given(domains)
def test_a_domain_is_within_itself_and_so_is_each_of_its_values(domain: Domain) -> None:
    assert domain.within(domain)
    assert all(Choice((value,)).within(domain) for value in domain.representatives())


@given(domains, domains)
def test_within_means_every_value_is_contained(inner: Domain, outer: Domain) -> None:
    if inner.within(outer):
        assert all(outer.contains(value) for value in (*inner.representatives(), *inner.points(5)))


@pytest.mark.parametrize(
    ("inner", "outer", "holds"),
    [
        (Float(0.2, 0.4), Float(0.1, 0.5), True),
        (Float(0.2, 0.4), Float(0.1, 0.5, step=0.1), False),
        (Float(0.2, 0.4, step=0.2), Float(0.0, 0.4, step=0.1), True),
        (Float(0.05, 0.4), Float(0.1, 0.5), False),
        (Int(2, 4), Int(0, 4, step=2), False),
        (Int(0, 4, step=4), Int(0, 8, step=2), True),
        (Int(2, 4), Float(0.0, 9.0), False),
        (Int(2, 4), Choice((2, 3, 4)), False),
        (Choice((2, 3)), Int(2, 4), True),
        (Choice((2.5,)), Int(2, 4), False),
        (Choice(("a",)), Choice(("a", "b")), True),
    ],
)
def test_within_by_known_answers(inner: Domain, outer: Domain, holds: bool) -> None:
    assert inner.within(outer) is holds


@pytest.mark.parametrize(
    ("domain", "count", "values"),
    [
        (Float(1e-4, 1e-1, log=True), 4, (1e-4, 1e-3, 1e-2, 1e-1)),
        (Float(0.0, 1.0), 3, (0.0, 0.5, 1.0)),
        (Float(0.0, 0.3, step=0.1), None, (0.0, 0.1, 0.2, 0.3)),
        (Float(0.0, 0.3, step=0.1), 2, (0.0, 0.3)),
        (Int(1, 100, log=True), 3, (1, 10, 100)),
        (Int(2, 6), None, (2, 3, 4, 5, 6)),
        (Int(1, 3, log=True), 9, (1, 2, 3)),
        (Int(0, 8, step=4), None, (0, 4, 8)),
        (Choice(("b", "a")), 7, ("b", "a")),
    ],
)
def test_grid_values_by_known_answers(domain: Domain, count: int | None, values: tuple[Any, ...]) -> None:
    assert domain.points(count) == (pytest.approx(values) if isinstance(domain, Float) else values)


def test_truth_values_are_no_numbers() -> None:
    assert not Int(0, 1).contains(True)
    assert not Float(0, 1).contains(False)
    assert not Choice((0, 1)).contains(True)
    assert Float(0, 1).contains(1)


def test_a_choice_keeps_no_hold_on_what_it_was_given() -> None:
    value = [1]
    choice = Choice((value,))
    value.append(2)
    choice.to_dict()["choice"][0].append(3)
    assert choice.values == ([1],)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Choice(()), "at least one value"),
        (lambda: Choice((1, 2, 1.0)), "1.0 is given twice"),
        (lambda: Choice("abc"), "a list of values is wanted"),  # type: ignore[arg-type]
        (lambda: Choice((float("nan"),)), "got nan"),
        (lambda: Choice((object(),)), "a number, text, truth value"),
        (lambda: Float(1.0, 1.0), "low < high"),
        (lambda: Float(0.0, 1.0, log=True), "starts above 0"),
        (lambda: Float(0.1, 1.0, log=True, step=0.1), "not both"),
        (lambda: Float(0.0, 1.0, step=0.3), "0.3 does not lead from 0.0 to 1.0"),
        (lambda: Float(0.0, 1.0, step=-0.5), "above 0"),
        (lambda: Float(0.0, float("inf")), "high: a finite number"),
        (lambda: Int(1, 2.0), "high: a whole number"),  # type: ignore[arg-type]
        (lambda: Int(True, 2), "low: a whole number"),
        (lambda: Float(0.0, 1.0).points(), "needs a count"),
        (lambda: Float(0.0, 1.0).points(1), "at least 2"),
        (lambda: domain_from({"floot": [0, 1]}), "one of choice, float, int"),
        (lambda: domain_from({"float": [0, 1], "int": [0, 1]}), "one of choice, float, int"),
        (lambda: domain_from({"float": [0, 1], "lgo": True}), "did you mean 'log'"),
        (lambda: domain_from({"float": [0, 1, 2]}), r"\[low, high\] is wanted"),
        (lambda: domain_from({"choice": [1], "log": True}), "unknown field 'log'"),
    ],
)
def test_mistakes_are_named(make: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()
