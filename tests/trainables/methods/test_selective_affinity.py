"""From losses to the tracked map, against values worked out by hand and a loop written from the rules."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.errors import CheckpointError
from trainables.methods.selective import AffinityMap, credited_values, relative_change

NAN = math.nan


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_equal(actual: torch.Tensor, expected: list[list[float]] | torch.Tensor) -> None:
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=0, equal_nan=True, check_dtype=True
    )


def test_change_is_the_share_by_which_a_loss_fell() -> None:
    change = relative_change(torch.tensor([2.0, 4.0, 1.0]), torch.tensor([1.0, 5.0, 1.0]))
    assert change.tolist() == [0.5, -0.25, 0.0]
    assert change.dtype == torch.float64


@pytest.mark.parametrize(
    ("before", "after"),
    [(0.0, 0.0), (0.0, 1.0), (NAN, 1.0), (math.inf, 1.0), (1.0, NAN), (1.0, math.inf), (math.inf, math.inf)],
)
def test_no_change_where_there_is_nothing_to_compare(before: float, after: float) -> None:
    assert relative_change(vector(before, 2.0), vector(after, 1.0)).isnan().tolist() == [True, False]


# Changes of source i and target k inside one group, and what they say about the pair.
SIGNS = [
    (0.2, 0.1, 0.1, 0.1),
    (0.1, 0.2, 0.2, 0.2),
    (-0.2, -0.1, -0.1, -0.1),
    (-0.1, -0.2, -0.2, -0.2),
    (0.2, -0.1, -0.1, -0.2),
    (-0.1, 0.2, -0.1, -0.2),
    (0.1, -0.2, -0.2, -0.1),
    (-0.2, 0.1, -0.2, -0.1),
    (0.0, 0.3, 0.0, -0.3),
    (-0.3, 0.0, -0.3, 0.0),
]


@pytest.mark.parametrize(("source", "target", "minimum", "negative_maximum"), SIGNS)
def test_sign_rule_inside_a_group(source: float, target: float, minimum: float, negative_maximum: float) -> None:
    change = vector(source, target)
    assert credited_values(change, (0, 1))[0, 1].item() == minimum
    assert credited_values(change, (0, 1), opposite_signs="negative_maximum")[0, 1].item() == negative_maximum


def test_outside_the_group_every_member_gets_the_target_s_change() -> None:
    values = credited_values(vector(0.5, -0.25, 0.125, -1.0), (0, 2))
    assert_equal(values, [[0.5, -0.25, 0.125, -1.0], [NAN] * 4, [0.5, -0.25, 0.125, -1.0], [NAN] * 4])


def test_scale_divides_by_the_size_of_the_source_group() -> None:
    change = vector(0.5, -0.25, 0.125)
    assert_equal(credited_values(change, (0, 2), scale="group_size"), credited_values(change, (0, 2)) / 2)
    assert_equal(credited_values(change, (1,), scale="group_size"), credited_values(change, (1,)))


def test_negative_self_entries_may_be_left_out() -> None:
    change = vector(-0.5, 0.0, 0.25)
    assert credited_values(change, (0, 1, 2)).diagonal().tolist() == [-0.5, 0.0, 0.25]
    kept = credited_values(change, (0, 1, 2), self_entries="nonnegative")
    assert kept.diagonal().isnan().tolist() == [True, False, False]
    assert int(kept.isnan().sum()) == 1


def test_an_unobserved_task_leaves_its_pairs_out() -> None:
    values = credited_values(vector(NAN, 0.5, 0.25), (0, 1))
    # As a target it has no value; as a source it has one for tasks outside the group, whose own change is all that
    # counts there.
    assert_equal(values, [[NAN, NAN, 0.25], [NAN, 0.5, 0.25], [NAN] * 3])


def by_loop(
    change: list[float], group: tuple[int, ...], scale: str, self_entries: str, opposite_signs: str
) -> list[list[float]]:
    out = [[NAN] * len(change) for _ in change]
    for i in group:
        for k, r_k in enumerate(change):
            r_i = change[i]
            if i == k:
                value = r_k if self_entries == "all" or r_k >= 0 else NAN
            elif k not in group or (r_i > 0 and r_k > 0) or (r_i < 0 and r_k < 0):
                value = r_k
            else:
                value = min(r_i, r_k) if opposite_signs == "minimum" else -max(r_i, r_k)
            out[i][k] = value / len(group) if scale == "group_size" else value
    return out


@given(data=st.data(), tasks=st.integers(1, 6))
def test_credited_values_against_a_loop(data: st.DataObject, tasks: int) -> None:
    change = data.draw(st.lists(st.floats(-10, 10), min_size=tasks, max_size=tasks))
    group = tuple(sorted(data.draw(st.sets(st.integers(0, tasks - 1), min_size=1))))
    for scale, entries, signs in itertools.product(
        ("none", "group_size"), ("all", "nonnegative"), ("minimum", "negative_maximum")
    ):
        values = credited_values(vector(*change), group, scale=scale, self_entries=entries, opposite_signs=signs)
        assert_equal(values, by_loop(change, group, scale, entries, signs))


@pytest.mark.parametrize("beta", [1e-3, 0.3, 1.0])
def test_moving_average_in_closed_form(beta: float) -> None:
    tracked = AffinityMap(2, beta)
    losses = vector(1.0, 2.0), vector(0.5, 3.0)
    for count in range(1, 20):
        tracked.observe(torch.stack(losses), ((0,),))
        grown = 1 - (1 - beta) ** count
        torch.testing.assert_close(tracked.values[0], vector(0.5, -0.5) * grown, rtol=1e-12, atol=0)
        assert tracked.values[1].tolist() == [0.0, 0.0]
        assert tracked.counts.tolist() == [[count, count], [0, 0]]


def test_moving_average_weighs_the_new_value_by_beta() -> None:
    tracked = AffinityMap(1, 0.25)
    tracked.observe(torch.tensor([[1.0], [0.0]]), ((0,),))
    tracked.observe(torch.tensor([[1.0], [2.0]]), ((0,),))
    assert tracked.values.item() == 0.75 * 0.25 * 1.0 + 0.25 * -1.0


def test_unobserved_pairs_keep_their_value() -> None:
    tracked = AffinityMap(2, 0.5)
    tracked.observe(torch.tensor([[1.0, 1.0], [0.5, 0.5]]), ((0, 1),))
    before = tracked.values.clone()
    tracked.observe(torch.tensor([[0.0, 1.0], [0.5, 1.0]]), ((0, 1),))
    assert tracked.values[:, 0].tolist() == before[:, 0].tolist()
    assert tracked.values[1, 1].item() == 0.5 * before[1, 1].item()
    assert tracked.counts.tolist() == [[1, 1], [1, 2]]


LOSSES = torch.tensor([[4.0, 4.0, 4.0], [2.0, 4.0, 4.0], [2.0, 1.0, 4.0], [2.0, 1.0, 3.0]])
GROUPS = ((0,), (1,), (2,))


def test_stepped_credits_the_group_between_the_two_forwards() -> None:
    tracked = AffinityMap(3, 1.0)
    tracked.observe(LOSSES, GROUPS)
    assert_equal(tracked.values, [[0.5, 0.0, 0.0], [0.0, 0.75, 0.0], [0.0, 0.0, 0.25]])


def test_stepped_without_the_last_forward_leaves_the_last_group_out() -> None:
    tracked = AffinityMap(3, 1.0)
    tracked.observe(LOSSES[:3], GROUPS)
    assert_equal(tracked.values, [[0.5, 0.0, 0.0], [0.0, 0.75, 0.0], [0.0, 0.0, 0.0]])
    assert tracked.counts.sum(1).tolist() == [3, 3, 0]


def test_next_credits_the_group_about_to_be_stepped() -> None:
    tracked = AffinityMap(3, 1.0, credit="next")
    tracked.observe(LOSSES[:3], GROUPS)
    assert_equal(tracked.values, [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.75, 0.0]])
    assert tracked.counts.sum(1).tolist() == [0, 3, 3]


def test_within_an_iteration_later_observations_see_earlier_ones() -> None:
    tracked = AffinityMap(1, 0.5)
    tracked.observe(torch.tensor([[4.0], [2.0], [2.0]]), ((0,), (0,)))
    assert tracked.values.item() == 0.5 * (0.5 * 0.5)


def test_a_map_of_another_number_of_tasks_is_refused() -> None:
    with pytest.raises(CheckpointError, match="of 3 tasks, this trial has 2"):
        AffinityMap(2, 0.1).load_state_dict(AffinityMap(3, 0.1).state_dict())
