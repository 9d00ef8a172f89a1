"""Grouping strategies, the order of groups, and the normalisation of the released code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.errors import ConfigError
from trainables.methods.selective import GROUPINGS, Grouping, GroupingConfig
from trainables.methods.selective.grouping import self_upper
from trainables.methods.selective.order import arrange, outward
from trainables.methods.selective.partition import singletons
from trainables.settings import component

TASKS = ("depth", "edge", "normal", "semseg")


def parsed(name: str, **fields: Any) -> GroupingConfig:
    config = component(GROUPINGS, {"name": name, **fields}, "method.grouping")
    assert isinstance(config, GroupingConfig)
    return config


def grouping(name: str, tasks: int | tuple[str, ...] = TASKS, **fields: Any) -> Grouping:
    names = tasks if isinstance(tasks, tuple) else tuple(f"task{index}" for index in range(tasks))
    config = parsed(name, **fields)
    GROUPINGS[name].check(config, names)
    return GROUPINGS[name](config, names)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BLOCKS = torch.tensor([[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]]).double()
ZERO = torch.zeros(4, 4, dtype=torch.float64)


def test_joint_separate_and_fixed_never_change() -> None:
    by_hand = grouping("fixed", groups=[["semseg", "depth"], ["normal", "edge"]])
    expected = [
        (grouping("joint"), ((0, 1, 2, 3),)),
        (grouping("separate"), ((0,), (1,), (2,), (3,))),
        (by_hand, ((0, 3), (1, 2))),
    ]
    for strategy, groups in expected:
        assert strategy.initial(generator()) == groups
        assert strategy.regroup(7, BLOCKS, groups, generator()) == groups
        assert not strategy.uses_affinity


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["depth", "edge"], ["normal"]], "missing: semseg"),
        ([["depth", "edge"], ["normal", "semseg", "depth"]], "given more than once: depth"),
        ([["depth", "edge"], ["normal", "semseq"]], r"unknown task 'semseq'; did you mean 'semseg'\?"),
        ([["depth", "edge", "normal", "semseg"], []], "a group is empty"),
        ([], "missing: depth, edge, normal, semseg"),
    ],
)
def test_fixed_groups_partition_the_tasks(groups: list[list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^method\.grouping\.groups: .*{message}"):
        grouping("fixed", groups=groups)


@given(tasks=st.integers(1, 11), seed=st.integers(0, 2**31), data=st.data())
def test_random_groups_are_balanced_and_cover(tasks: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, tasks))
    groups = grouping("random", tasks, groups=count).initial(generator(seed))
    sizes = [len(group) for group in groups]
    assert len(groups) == count
    assert max(sizes) - min(sizes) <= 1
    assert sorted(index for group in groups for index in group) == list(range(tasks))


def test_random_groups_are_uniform_over_balanced_partitions() -> None:
    strategy, draws = grouping("random", groups=2), generator()
    seen = [strategy.initial(draws) for _ in range(600)]
    counts = {groups: seen.count(groups) for groups in set(seen)}
    assert set(counts) == {((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))}
    assert all(150 < count < 250 for count in counts.values())  # 200 +- 4.3 standard deviations


def test_random_groups_are_redrawn_or_not() -> None:
    again, once = grouping("random", groups=2), grouping("random", groups=2, redraw="once")
    draws, unused = generator(1), generator(1)
    current = ((0, 1), (2, 3))
    assert len({again.regroup(step, ZERO, current, draws) for step in range(1, 30)}) == 3
    assert {once.regroup(step, ZERO, current, unused) for step in range(1, 30)} == {current}
    assert torch.equal(unused.get_state(), generator(1).get_state())


@pytest.mark.parametrize("name", ["random", "heterogeneous"])
def test_no_more_groups_than_tasks(name: str) -> None:
    grouping(name, groups=4)
    with pytest.raises(ConfigError, match=r"^method\.grouping\.groups: at most one group per task, 4 here, got 5$"):
        grouping(name, groups=5)
    with pytest.raises(ConfigError, match=r"^method\.grouping\.groups"):
        grouping(name, groups=0)


def test_tracked_groupings_start_from_one_group_per_task() -> None:
    for name in ("adaptive", "heterogeneous"):
        strategy = grouping(name)
        assert strategy.uses_affinity
        assert strategy.initial(generator()) == singletons(4)
        assert strategy.regroup(1, ZERO, ((0, 1), (2, 3)), generator()) == singletons(4)


def test_adaptive_puts_positive_affinity_together() -> None:
    assert grouping("adaptive").regroup(1, BLOCKS, singletons(4), generator()) == ((0, 1), (2, 3))


def test_heterogeneous_puts_the_least_affine_together() -> None:
    matched = grouping("heterogeneous").regroup(1, BLOCKS, singletons(4), generator())
    assert matched == ((0, 2), (1, 3))
    # Nothing positive is left to pair with a third task: the group grows to the number asked for all the same.
    assert grouping("heterogeneous", groups=1).regroup(1, BLOCKS, singletons(4), generator()) == ((0, 1, 2, 3),)
    assert grouping("heterogeneous", groups=3).regroup(1, BLOCKS, singletons(4), generator()) == ((0, 2), (1,), (3,))


@given(seed=st.integers(0, 2**31), tasks=st.integers(1, 7))
def test_heterogeneous_makes_as_many_groups_as_its_clusterer(seed: int, tasks: int) -> None:
    affinity = torch.randn(tasks, tasks, dtype=torch.float64, generator=generator(seed))
    alike = grouping("adaptive", tasks).regroup(1, affinity, singletons(tasks), generator())
    unlike = grouping("heterogeneous", tasks).regroup(1, affinity, singletons(tasks), generator())
    assert alike is not None
    assert unlike is not None
    assert len(alike) == len(unlike)


@pytest.mark.parametrize(
    ("warmup", "every", "regrouped"),
    [(0, 1, [1, 2, 3, 4, 5, 6]), (0, 3, [3, 6]), (4, 1, [4, 5, 6]), (2, 2, [2, 4, 6]), (1, 4, [1, 5]), (101, 1, [])],
)
def test_when_groups_are_formed_anew(warmup: int, every: int, regrouped: list[int]) -> None:
    strategy = grouping("adaptive", warmup=warmup, regroup_every=every)
    found = [
        step for step in range(1, 7) if strategy.regroup(step, BLOCKS, singletons(4), generator()) != singletons(4)
    ]
    assert found == regrouped


def test_released_warmup_keeps_the_first_101_iterations() -> None:
    strategy = grouping("adaptive", warmup=101)
    assert strategy.regroup(100, BLOCKS, singletons(4), generator()) == singletons(4)
    assert strategy.regroup(101, BLOCKS, singletons(4), generator()) == ((0, 1), (2, 3))


@given(seed=st.integers(0, 2**31), tasks=st.integers(2, 11))
def test_self_upper_is_the_division_in_place(seed: int, tasks: int) -> None:
    affinity = torch.randn(tasks, tasks, dtype=torch.float64, generator=generator(seed))
    in_place = affinity.clone()
    for i in range(tasks):
        in_place[:, i] /= in_place[i, i]
    assert torch.equal(self_upper(affinity), in_place)


def test_self_upper_depends_on_the_order_of_tasks() -> None:
    affinity = torch.tensor([[2.0, 4.0], [6.0, 8.0]]).double()
    assert self_upper(affinity).tolist() == [[1.0, 0.5], [6.0, 1.0]]
    assert self_upper(affinity.flip(0, 1)).flip(0, 1).tolist() == [[1.0, 4.0], [3.0, 1.0]]


@pytest.mark.parametrize("name", ["adaptive", "heterogeneous"])
def test_a_zero_on_the_diagonal_is_a_failure_not_an_exception(name: str) -> None:
    affinity = BLOCKS.clone()
    affinity[2, 2] = 0.0
    strategy = grouping(name, normalize="self_upper")
    assert strategy.regroup(1, affinity, ((0, 1), (2, 3)), generator()) is None
    assert strategy.regroup(1, BLOCKS, singletons(4), generator()) is not None


def test_heterogeneous_hands_on_its_clusterer_s_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy: Any = grouping("heterogeneous")
    monkeypatch.setattr(strategy, "cluster", lambda affinity: None)
    assert strategy.regroup(1, BLOCKS, singletons(4), generator()) is None


GROUPS = ((2,), (0, 3), (1,))


def test_forward_is_by_lowest_index_and_backward_its_reverse() -> None:
    assert arrange(GROUPS, "forward", ZERO, generator()) == ((0, 3), (1,), (2,))
    assert arrange(GROUPS, "backward", ZERO, generator()) == ((2,), (1,), (0, 3))


def test_random_order_is_a_seeded_permutation() -> None:
    draws, same = generator(5), generator(5)
    first = [arrange(GROUPS, "random", ZERO, draws) for _ in range(40)]
    assert first == [arrange(GROUPS, "random", ZERO, same) for _ in range(40)]
    assert len(set(first)) == 6
    assert all(sorted(groups) == sorted(GROUPS) for groups in first)


@pytest.mark.parametrize("order", ["forward", "backward", "affinity"])
def test_other_orders_draw_nothing(order: Any) -> None:
    draws = generator(5)
    arrange(GROUPS, order, BLOCKS, draws)
    assert torch.equal(draws.get_state(), generator(5).get_state())


def test_affinity_order_puts_the_most_helpful_group_first() -> None:
    affinity = torch.zeros(4, 4, dtype=torch.float64)
    affinity[0] = torch.tensor([9.0, 0.1, 0.1, 9.0])  # what a group does to itself does not count
    affinity[1] = torch.tensor([-0.2, 0.0, -0.2, -0.2])
    affinity[2] = torch.tensor([0.5, 0.5, 0.0, 0.5])
    assert outward((0, 3), affinity) == pytest.approx(0.05)
    assert arrange(GROUPS, "affinity", affinity, generator()) == ((2,), (0, 3), (1,))
    assert arrange(GROUPS, "affinity", ZERO, generator()) == ((0, 3), (1,), (2,))
    assert arrange(((0, 1, 2, 3),), "affinity", affinity, generator()) == ((0, 1, 2, 3),)
