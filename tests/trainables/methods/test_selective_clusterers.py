"""Clusterers on maps whose groups are known, and their laws."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AffinityPropagation as Reference

from trainables.methods.selective import CLUSTERERS, Groups
from trainables.methods.selective.clusterers import agglomerate
from trainables.methods.selective.partition import singletons, tidy, together
from trainables.settings import component


def cluster(name: str, affinity: torch.Tensor, **fields: Any) -> Groups | None:
    return CLUSTERERS[name](component(CLUSTERERS, {"name": name, **fields}, "clusterer"))(affinity)


def random_map(seed: int, tasks: int) -> torch.Tensor:
    return torch.randn(tasks, tasks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def blocks(groups: Groups, inside: float, across: float) -> torch.Tensor:
    tasks = sum(map(len, groups))
    affinity = torch.full((tasks, tasks), across, dtype=torch.float64)
    for group in groups:
        for i in group:
            affinity[i, list(group)] = inside
    return affinity


PARTITIONS = [((0,),), ((0, 1), (2, 3)), ((0, 2, 4), (1, 3)), ((0, 3), (1,), (2, 4, 5))]
LINKAGES = ["average", "minimum"]
seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("groups", PARTITIONS)
def test_positive_affinity_finds_blocks(groups: Groups, linkage: str) -> None:
    assert cluster("positive_affinity", blocks(groups, 0.02, -0.01), linkage=linkage) == groups


@pytest.mark.parametrize("linkage", LINKAGES)
@given(seed=seeds, tasks=st.integers(1, 7))
def test_one_sign_decides(seed: int, tasks: int, linkage: str) -> None:
    positive = random_map(seed, tasks).abs() + 1e-9
    assert cluster("positive_affinity", positive, linkage=linkage) == together(tasks)
    assert cluster("positive_affinity", -positive, linkage=linkage) == singletons(tasks)
    assert cluster("positive_affinity", 0 * positive, linkage=linkage) == singletons(tasks)


@pytest.mark.parametrize("linkage", LINKAGES)
@given(seed=seeds, tasks=st.integers(2, 7))
def test_permuting_tasks_permutes_groups(seed: int, tasks: int, linkage: str) -> None:
    affinity = random_map(seed, tasks)
    order = torch.randperm(tasks, generator=torch.Generator().manual_seed(seed + 1))
    permuted = cluster("positive_affinity", affinity[order][:, order], linkage=linkage)
    assert permuted is not None
    back = tidy([int(order[index]) for index in group] for group in permuted)
    assert back == cluster("positive_affinity", affinity, linkage=linkage)


@pytest.mark.parametrize("linkage", LINKAGES)
@given(seed=seeds, tasks=st.integers(1, 7), power=st.integers(-60, 60))
def test_scale_changes_nothing(seed: int, tasks: int, linkage: str, power: int) -> None:
    affinity = random_map(seed, tasks)
    scaled = cluster("positive_affinity", affinity * 2.0**power, linkage=linkage)
    assert scaled == cluster("positive_affinity", affinity, linkage=linkage)


@given(seed=seeds, tasks=st.integers(1, 7))
def test_minimum_linkage_has_positive_pairs_only_and_cannot_merge_more(seed: int, tasks: int) -> None:
    affinity = random_map(seed, tasks)
    mutual = affinity + affinity.T
    groups = cluster("positive_affinity", affinity, linkage="minimum")
    assert groups is not None
    assert all(mutual[i, k] > 0 for group in groups for i in group for k in group if i != k)
    for a, first in enumerate(groups):
        for second in groups[a + 1 :]:
            assert any(mutual[i, k] <= 0 for i in first for k in second)


@given(seed=seeds, tasks=st.integers(1, 7))
def test_average_linkage_stops_where_no_pair_of_groups_is_positive(seed: int, tasks: int) -> None:
    affinity = random_map(seed, tasks)
    mutual = affinity + affinity.T
    groups = cluster("positive_affinity", affinity)
    assert groups is not None
    assert sorted(index for group in groups for index in group) == list(range(tasks))
    for a, first in enumerate(groups):
        for second in groups[a + 1 :]:
            assert mutual[list(first)][:, list(second)].mean() < 1e-12


def test_only_the_mutual_affinity_counts() -> None:
    # 0 helps 1 more than 1 harms 0.
    assert cluster("positive_affinity", torch.tensor([[0.0, 0.5], [-0.25, 0.0]]).double()) == ((0, 1),)
    assert cluster("positive_affinity", torch.tensor([[9.0, 0.25], [-0.5, 9.0]]).double()) == ((0,), (1,))


def test_linkages_differ_on_a_chain() -> None:
    # 0-1 and 1-2 get on, 0-2 do not: on average 2 still gains from joining {0, 1}.
    chain = torch.tensor([[0.0, 3.0, -1.0], [3.0, 0.0, 2.0], [-1.0, 2.0, 0.0]]).double()
    assert cluster("positive_affinity", chain, linkage="average") == ((0, 1, 2),)
    assert cluster("positive_affinity", chain, linkage="minimum") == ((0, 1), (2,))


def test_ties_go_to_the_lowest_indices() -> None:
    ring = torch.tensor([[0, 1, -9, 1], [1, 0, 1, -9], [-9, 1, 0, 1], [1, -9, 1, 0]]).double()
    assert cluster("positive_affinity", ring) == ((0, 1), (2, 3))


def test_agglomeration_stops_at_the_number_asked_for() -> None:
    affinity = random_map(0, 6)
    mutual = affinity + affinity.T
    assert [len(agglomerate(mutual, down_to=count)) for count in range(1, 7)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["positive_affinity", "affinity_propagation"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_has_no_groups(name: str, value: float) -> None:
    affinity = random_map(0, 3)
    affinity[0, 2] = value
    assert cluster(name, affinity) is None


def reference_groups(affinity: torch.Tensor, preference: float | None) -> Groups | None:
    similarity = ((affinity + affinity.T) / 2).numpy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labels = Reference(
            affinity="precomputed",
            damping=0.5,
            max_iter=200,
            convergence_iter=50,
            preference=preference,
            random_state=0,
        ).fit_predict(similarity)
    if any("did not converge" in str(warning.message) for warning in caught):
        return None
    return tidy(np.flatnonzero(labels == label).tolist() for label in np.unique(labels))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, tasks=st.integers(1, 8), preference=st.sampled_from(["median", 0, -0.5, 1.5]))
def test_affinity_propagation_is_scikit_learn_s(seed: int, tasks: int, preference: float | str) -> None:
    affinity = random_map(seed, tasks)
    expected = reference_groups(affinity, None if preference == "median" else float(preference))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing leaks out
        assert cluster("affinity_propagation", affinity, preference=preference) == expected


def test_affinity_propagation_that_does_not_converge_has_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = CLUSTERERS["affinity_propagation"]
    monkeypatch.setattr(cls, "SETTINGS", {**cls.SETTINGS, "max_iter": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cluster("affinity_propagation", random_map(0, 5)) is None


@pytest.mark.parametrize("groups", [((0, 1, 2), (3, 4, 5)), ((0, 2, 4), (1, 3, 5))])
def test_affinity_propagation_finds_blocks(groups: Groups) -> None:
    assert cluster("affinity_propagation", blocks(groups, 1.0, -1.0) + 1e-3 * random_map(0, 6)) == groups


def test_median_preference_is_blind_to_the_sign() -> None:
    # On a grid of 2^-10, where adding a constant is exact. Where two solutions tie, scikit-learn's noise decides, and
    # that is of the entries' size; hence not every single map.
    cases = [((random_map(seed, 8) * 1024).round() / 1024, constant) for seed in range(40) for constant in (-8.0, 8.0)]

    def unmoved(name: str) -> int:
        return sum(cluster(name, affinity + constant) == cluster(name, affinity) for affinity, constant in cases)

    assert unmoved("affinity_propagation") >= 0.95 * len(cases)
    assert unmoved("positive_affinity") == 0


@settings(max_examples=25, deadline=None)
@given(seed=seeds, tasks=st.integers(2, 8))
def test_preference_zero_separates_tasks_that_all_harm_each_other(seed: int, tasks: int) -> None:
    negative = -random_map(seed, tasks).abs() - 0.01
    assert cluster("affinity_propagation", negative, preference=0) == singletons(tasks)


def test_preference_median_joins_tasks_that_all_harm_each_other() -> None:
    negative = -random_map(1, 6).abs() - 0.01
    groups = cluster("affinity_propagation", negative)
    assert groups is not None
    assert len(groups) < 6
