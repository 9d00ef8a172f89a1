from __future__ import annotations

import pytest

from search_spaces import Axis, Choice, Condition, Float, Int, Space, space, to_grid
from trainables.errors import ConfigError

BRANCHES = Space(
    (
        Axis("method", Choice(("gd", "cagrad", "dwa"))),
        Axis("method.c", Float(0.1, 0.9), Condition({"method": "cagrad"})),
        Axis("method.rescale", Choice((0, 1)), Condition({"method": "cagrad"})),
        Axis("optim.lr", Float(1e-4, 1e-2, log=True)),
        Axis("train.batch_size", Int(1, 2)),
    )
)


def test_the_count_is_the_sum_over_branches_of_their_products() -> None:
    points = to_grid(BRANCHES, {"method.c": 3, "optim.lr": 4})
    assert len(points) == (1 + 3 * 2 + 1) * 4 * 2
    assert all(point not in points[:index] for index, point in enumerate(points))
    assert all(("method.c" in point) == (point["method"] == "cagrad") for point in points)


def test_the_last_axis_is_the_fastest() -> None:
    small = BRANCHES.only(["method", "train.batch_size"])
    assert [tuple(point.values()) for point in to_grid(small)][:3] == [("gd", 1), ("gd", 2), ("cagrad", 1)]
    assert to_grid(Space()) == [{}]


def test_conditions_look_at_the_base() -> None:
    knobs = BRANCHES.only(["method.rescale"])
    assert to_grid(knobs, base={"method": "cagrad"}) == [{"method.rescale": 0}, {"method.rescale": 1}]
    assert to_grid(knobs, base={"method": "gd"}) == to_grid(knobs) == [{}]


def test_one_number_counts_every_range_and_fixing_counts_one() -> None:
    fixed = BRANCHES.fix("method", "cagrad").fix("optim.lr", 1e-3)
    assert len(to_grid(fixed, 5)) == 5 * 2 * 2
    assert {point["optim.lr"] for point in to_grid(fixed, 5)} == {1e-3}


def test_groupings_of_the_paper_by_known_count() -> None:
    # adaptive and heterogeneous: 4 clusterings; random: M = 2 to 6, drawn once or again; separate; joint.
    grouping = space("grouping").only(["method.grouping", "method.grouping.groups", "method.grouping.redraw"])
    assert len(to_grid(grouping, base={"method": "selective"})) == 2 + 5 * 2 + 2


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        (None, r"axes\.method\.c: a range without steps needs a count"),
        ({"method.c": 2}, r"axes\.optim\.lr: a range without steps needs a count"),
        ({"method.cc": 2}, r"counts: unknown axis 'method\.cc'; did you mean 'method\.c'"),
        ({"method.rescale": 2}, r"counts\.method\.rescale: the axis is a choice"),
        ({"method.c": 1, "optim.lr": 2}, r"axes\.method\.c: counts: at least 2"),
    ],
)
def test_mistakes_are_named(counts: dict[str, int] | None, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        to_grid(BRANCHES, counts)
