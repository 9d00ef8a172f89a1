"""Selective group updates on networks whose every number can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.testing import Bench, same_bits
from trainables.methods import METHODS, Counters, Method, StepLog, Update
from trainables.settings import component


def selective(**fields: Any) -> dict[str, Any]:
    return {"name": "selective", **fields}


class Scalars:
    """Tasks with the loss (s - center)^2 / 2 of shared scalars s, and a constant that keeps it from 0; plain gradient
    descent.

    Args:
        centers: of task i.
        reads: the shared scalar that task i reads; by default all read the first.
        floor: added to every loss.
    """

    def __init__(
        self, config: dict[str, Any], centers: list[float], *, reads: list[int] | None = None, floor: float = 0.0
    ) -> None:
        self.centers = centers
        self.reads = reads or [0] * len(centers)
        self.floor = floor
        self.shared = [nn.Parameter(torch.zeros(())) for _ in range(max(self.reads) + 1)]
        tasks = [f"task{index}" for index in range(len(centers))]
        optimizer = torch.optim.SGD(self.shared, lr=0.25)
        update = Update(tasks, self.shared, {task: [] for task in tasks}, optimizer, Counters())
        self.method: Method = METHODS["selective"](component(METHODS, config, "method"), update, 0)

    def losses(self) -> dict[str, Tensor]:
        pairs = zip(self.method.tasks, self.reads, self.centers, strict=True)
        return {task: (self.shared[read] - center).square() / 2 + self.floor for task, read, center in pairs}

    def iterate(self, count: int = 1) -> list[StepLog]:
        return [self.method.step(self.losses) for _ in range(count)]


def affinity_of(log: StepLog) -> list[list[float]]:
    assert log.affinity is not None
    values: list[list[float]] = log.affinity.tolist()
    return values


PAIR = [2.0, -1.0]


def test_affinity_of_two_quadratics_by_hand() -> None:
    # s = 0: losses 2, 1/2. Task 0 steps: s = 1/2, both losses 9/8. Task 1 steps: s = 1/8, losses 225/128 and 81/128.
    (log,) = Scalars(selective(beta=1, order="forward"), PAIR).iterate()
    assert log.losses.tolist() == [2.0, 0.5]
    assert log.groups == ((0,), (1,))
    assert affinity_of(log) == [[1 - 9 / 16, 1 - 9 / 4], [1 - 25 / 16, 1 - 9 / 16]]


def test_affinity_in_the_other_order_by_hand() -> None:
    # Task 1 steps: s = -1/4, losses 81/32, 9/32. Task 0 steps: s = 5/16, losses 729/512 and 441/512.
    (log,) = Scalars(selective(beta=1, order="backward"), PAIR).iterate()
    assert log.groups == ((1,), (0,))
    expected = [[1 - (729 / 512) / (81 / 32), 1 - (441 / 512) / (9 / 32)], [1 - (81 / 32) / 2, 1 - (9 / 32) / 0.5]]
    torch.testing.assert_close(log.affinity, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize(("opposite_signs", "between"), [("minimum", -0.5625), ("negative_maximum", -0.234375)])
def test_affinity_inside_one_group_by_hand(opposite_signs: str, between: float) -> None:
    # One step on both: s = 1/4, losses 49/32 and 25/32, so the changes are 15/64 and -9/16.
    config = selective(beta=1, grouping="joint", last_group="measured", opposite_signs=opposite_signs)
    (log,) = Scalars(config, PAIR).iterate()
    assert affinity_of(log) == [[0.234375, between], [between, -0.5625]]


def test_group_size_divides_and_mean_halves_the_step() -> None:
    config = selective(beta=1, grouping="joint", last_group="measured", scale="group_size", group_loss="mean")
    network = Scalars(config, PAIR)
    (log,) = network.iterate()
    assert network.shared[0].item() == 0.125
    assert affinity_of(log)[0][0] == (1 - 0.5 * 1.875**2 / 2) / 2


def test_moving_average_over_iterations() -> None:
    beta = 0.25
    slow, fast = (Scalars(selective(beta=b, grouping="separate", order="forward"), PAIR) for b in (beta, 1.0))
    observed = [log.affinity for log in fast.iterate(4)]
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for log, new in zip(slow.iterate(4), observed, strict=True):
        assert new is not None
        expected[0] = (1 - beta) * expected[0] + beta * new[0]
        torch.testing.assert_close(log.affinity, expected, rtol=1e-12, atol=0)
        assert affinity_of(log)[1] == [0.0, 0.0]  # the last group, unmeasured where nothing uses the map


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_tasks_with_nothing_in_common_have_no_affinity(order: str) -> None:
    logs = Scalars(selective(beta=0.5, order=order), PAIR, reads=[0, 1]).iterate(5)
    for log in logs:
        affinity = log.affinity
        assert affinity is not None
        assert affinity[0, 1].item() == affinity[1, 0].item() == 0.0
        assert bool((affinity.diagonal() > 0).all())
        assert log.groups is not None
        assert len(log.groups) == 2


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_credit_to_the_next_group_puts_it_all_off_the_diagonal(order: str) -> None:
    config = selective(beta=0.5, order=order, credit="next", grouping="separate")
    affinity = Scalars(config, PAIR, reads=[0, 1]).iterate(5)[-1].affinity
    assert affinity is not None
    assert affinity.diagonal().tolist() == [0.0, 0.0]
    assert float(affinity[0, 1] + affinity[1, 0]) > 0
    if order == "forward":  # task 0's own progress, credited to task 1
        assert affinity[1, 0].item() > 0
        assert affinity[0, 1].item() == 0.0


def test_tasks_that_agree_are_merged_and_tasks_that_do_not_are_split() -> None:
    network = Scalars(selective(beta=0.5), [1.0, 1.25, -1.0, -1.25], floor=0.1)
    logs = network.iterate(2)
    assert logs[0].groups is not None
    assert sorted(logs[0].groups) == [(0,), (1,), (2,), (3,)]
    assert logs[1].groups is not None
    assert sorted(logs[1].groups) == [(0, 1), (2, 3)]
    assert [len(set(log.groups or ())) for log in logs] == [4.0, 2.0]


def test_heterogeneous_groups_pair_those_that_do_not_agree() -> None:
    network = Scalars(selective(beta=0.5, grouping="heterogeneous"), [1.0, 1.25, -1.0, -1.25], floor=0.1)
    groups = network.iterate(2)[1].groups
    assert groups is not None
    assert all({index // 2 for index in group} == {0, 1} for group in groups)


def test_one_group_is_gradient_descent_bit_for_bit() -> None:
    for tasks in (1, 3, 6):
        joint, plain = Bench(selective(grouping="joint"), tasks), Bench("gd", tasks)
        logs, expected = joint.iterate(6), plain.iterate(6)
        assert same_bits(joint.bits(), plain.bits())
        assert all(torch.equal(a.losses, b.losses) for a, b in zip(logs, expected, strict=True))
        assert (joint.forwards, joint.backwards, joint.steps) == (6, 6, 6)


def test_one_group_per_task_is_stepping_each_in_turn() -> None:
    bench, reference = Bench(selective(grouping="separate", order="forward"), 3), Bench("gd", 3)
    bench.iterate(5)
    for _ in range(5):
        for task in reference.tasks:
            reference.optimizer.zero_grad()
            reference.losses()[task].backward()
            reference.optimizer.step()
        reference.counters.iterations += 1
    assert same_bits(bench.bits(), reference.bits())


def snapshots(bench: Bench) -> list[dict[str, list[Tensor]]]:
    """Every head and its optimizer state after each optimizer step of one iteration."""
    seen: list[dict[str, list[Tensor]]] = []

    def look(*_: Any) -> None:
        now = {}
        for task in bench.tasks:
            parameters = list(bench.heads[task].parameters())
            states = [value for p in parameters for _, value in sorted(bench.optimizer.state[p].items())]
            now[task] = [value.detach().clone() for value in [*parameters, *states]]
        seen.append(now)

    hook = bench.optimizer.register_step_post_hook(look)
    bench.iterate()
    hook.remove()
    return seen


@pytest.mark.parametrize(("frozen_heads", "frozen"), [("freeze", True), ("momentum", False)])
def test_other_groups_decoders_stay_or_drift(frozen_heads: str, frozen: bool) -> None:
    bench = Bench(selective(grouping="separate", order="forward", frozen_heads=frozen_heads), 3)
    bench.iterate(2)
    after = snapshots(bench)
    for step in (1, 2):
        for index, task in enumerate(bench.tasks):
            same = all(torch.equal(a, b) for a, b in zip(after[step - 1][task], after[step][task], strict=True))
            assert same == (frozen and index != step)


def test_in_the_first_iteration_momentum_leaves_untouched_decoders_alone() -> None:
    # As torch 1.13 had it: no gradient before the first backward, so neither momentum nor weight decay.
    bench = Bench(selective(grouping="separate", order="forward", frozen_heads="momentum"), 2)
    before = bench.heads["task1"].weight.detach().clone()
    first, _ = snapshots(bench)
    assert torch.equal(first["task1"][0], before)


@pytest.mark.parametrize(("single_group", "passes"), [("once", 1), ("twice", 2)])
def test_a_lone_group_is_stepped_once_or_twice(single_group: str, passes: int) -> None:
    bench = Bench(selective(grouping="joint", single_group=single_group), 3)
    (log,) = bench.iterate()
    assert log.groups == ((0, 1, 2),) * passes
    assert len(set(log.groups or ())) == 1.0
    assert (bench.forwards, bench.backwards, bench.steps) == (passes, passes, passes)


def test_twice_is_two_steps_of_gradient_descent() -> None:
    twice = Bench(selective(grouping="joint", single_group="twice"), 2)
    plain = Bench({"name": "gd", "steps_per_batch": 2}, 2)
    twice.iterate(3)
    plain.iterate(3)
    assert same_bits(twice.bits(), plain.bits())


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({}, 1),
        ({"grouping": "heterogeneous"}, 1),
        ({"grouping": "separate"}, 0),
        ({"grouping": "separate", "order": "affinity"}, 1),
        ({"grouping": "separate", "last_group": "measured"}, 1),
        ({"grouping": {"name": "random", "groups": 3}}, 0),
        ({"last_group": "unmeasured"}, 0),
        ({"credit": "next"}, 0),
    ],
)
def test_measuring_the_last_group_is_one_forward_without_gradients(fields: dict[str, Any], extra: int) -> None:
    bench = Bench(selective(**fields), 3)
    bench.iterate()
    assert (bench.forwards, bench.backwards, bench.steps) == (3 + extra, 3, 3)
    assert bench.forwards_without_grad == extra
    state = bench.method.state_dict()
    assert int(state["affinity"]["counts"].any(1).sum()) == 2 + extra


def test_the_last_group_is_measured_every_so_many_iterations_and_again_so_after_a_restart() -> None:
    bench = Bench(selective(grouping="separate", last_group="measured", last_group_every=3), 3)
    bench.iterate(2)
    assert bench.forwards_without_grad == 1  # of iterations 0 and 1, the first
    again = Bench(bench.config, 3)
    again.method.load_state_dict(bench.method.state_dict())
    again.iterate(2)
    assert again.forwards_without_grad == 1  # of 2 and 3, the latter


@pytest.mark.parametrize(
    "fields",
    [
        {"grouping": "joint"},
        {"grouping": "separate", "last_group": "measured", "last_group_every": 2},
        {"grouping": "joint", "single_group": "twice"},
        {"grouping": "separate", "order": "affinity", "single_group": "twice"},
        {"grouping": {"name": "random", "groups": 2}, "last_group": "measured"},
        {"grouping": {"name": "fixed", "groups": [["task0"], ["task1", "task2"]]}},
    ],
)
def test_expected_work_is_exact_where_the_number_of_groups_is_known(fields: dict[str, Any]) -> None:
    bench = Bench(selective(**fields), 3)
    bench.iterate(4)
    expected = METHODS["selective"].expected_work(bench.config, bench.tasks)
    assert (bench.forwards / 4, bench.backwards / 4, bench.steps / 4) == expected


def test_measuring_does_not_change_training() -> None:
    first, second = (Bench(selective(grouping="separate", last_group=last), 3) for last in ("measured", "unmeasured"))
    first.iterate(4)
    second.iterate(4)
    assert same_bits(first.bits(), second.bits())


def set_map(network: Scalars, values: Tensor) -> None:
    state = network.method.state_dict()
    state["affinity"] = {**state["affinity"], "values": values.double()}
    network.method.load_state_dict(state)


def test_warmup_and_regroup_every_keep_groups() -> None:
    grouping = {"name": "adaptive", "warmup": 3, "regroup_every": 2}
    # So small a beta that the map stays what it is set to.
    network = Scalars(selective(beta=1e-12, grouping=grouping), [1.0, 1.25, 1.5], floor=1.0)
    set_map(network, torch.ones(3, 3))
    assert [len(set(log.groups or ())) for log in network.iterate(4)] == [3.0, 3.0, 3.0, 1.0]
    set_map(network, -torch.ones(3, 3))
    assert [len(set(log.groups or ())) for log in network.iterate(2)] == [1.0, 3.0]


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_groups_are_stepped_in_the_order_asked_for(order: str) -> None:
    fixed = {"name": "fixed", "groups": [["task2", "task1"], ["task0", "task3"]]}
    logs = Bench(selective(grouping=fixed, order=order), 4).iterate(3)
    expected = ((0, 3), (1, 2)) if order == "forward" else ((1, 2), (0, 3))
    assert [log.groups for log in logs] == [expected] * 3


def test_random_order_changes_and_follows_the_seed() -> None:
    def orders(seed: int) -> list[Any]:
        return [log.groups for log in Bench(selective(grouping="separate"), 3, seed=seed).iterate(20)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert len(set(orders(0))) > 3


def test_affinity_order_steps_the_most_helpful_first() -> None:
    network = Scalars(selective(grouping="separate", order="affinity"), [1.0, 1.0, -1.0], floor=1.0)
    assert network.iterate()[0].groups == ((0,), (1,), (2,))
    set_map(network, torch.tensor([[0, 0.1, 0.1], [-1, 0, -1], [0.3, 0.3, 0]]))
    assert network.iterate()[0].groups == ((2,), (0,), (1,))


def test_random_groups_are_redrawn_every_iteration_or_once() -> None:
    def groups(redraw: str) -> set[Any]:
        grouping = {"name": "random", "groups": 2, "redraw": redraw}
        logs = Bench(selective(grouping=grouping, order="forward"), 4).iterate(15)
        return {log.groups for log in logs}

    assert len(groups("once")) == 1
    assert len(groups("iteration")) == 3


def test_regroup_failures_keep_groups_and_are_counted() -> None:
    # Tasks with nothing in common, credited to the next group: the diagonal stays 0 and the normalisation divides by
    # it.
    config = selective(credit="next", grouping={"name": "adaptive", "normalize": "self_upper", "warmup": 2})
    logs = Scalars(config, PAIR, reads=[0, 1]).iterate(5)
    assert [log.scalars["groups/regroup_failures"] for log in logs] == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert all(log.groups is not None and len(log.groups) == 2 for log in logs)


def test_a_loss_of_zero_is_not_divided_by() -> None:
    # Task 1 is at its optimum at first: nothing can be said about it until task 0 has moved s to 1/4; its own step
    # gives 3/16.
    network = Scalars(selective(beta=1, order="forward"), [1.0, 0.0])
    (log,) = network.iterate()
    expected = torch.tensor([[1 - 0.75**2, 0.0], [1 - (0.8125 / 0.75) ** 2, 1 - 0.75**2]], dtype=torch.float64)
    torch.testing.assert_close(log.affinity, expected, rtol=1e-12, atol=0)
    assert network.method.state_dict()["affinity"]["counts"].tolist() == [[1, 0], [1, 1]]


def test_logs_are_not_changed_by_later_iterations() -> None:
    bench = Bench(selective(beta=0.5), 3)
    (first,) = bench.iterate()
    assert first.affinity is not None
    kept = first.affinity.clone()
    last = bench.iterate(3)[-1]
    assert torch.equal(first.affinity, kept)
    assert last.affinity is not None
    last.affinity.zero_()  # nor does what a reader does to a log reach the method
    assert bool(bench.method.state_dict()["affinity"]["values"].any())
