"""From a tracked affinity map to task groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import fsum
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from trainables.methods.selective.partition import Groups, singletons, tidy
from trainables.registry import Registry, component_of
from trainables.settings import Settings

Linkage = Literal["average", "minimum"]


class ClustererConfig(Settings):
    """The fields of a clusterer. ``name`` is what it is registered as."""

    name: str


class Clusterer:
    """Base of the clusterers: a pure function of the map.

    Args:
        config: the clusterer's own config.
    """

    Config: ClassVar[type[ClustererConfig]]
    result_version: ClassVar[int] = 1
    """Raised whenever the same map would give other groups; part of the trial key of whatever uses it."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(self, affinity: Tensor) -> Groups | None:
        """Groups of tasks that belong together.

        Args:
            affinity: (K, K) float64, finite, from source (row) to target (column).

        Returns:
            The groups, tidy; ``None`` where none could be found. Never raises.
        """
        raise NotImplementedError


CLUSTERERS: Registry[type[Clusterer]] = Registry("clusterer", "mtl_study.clusterers", component_of(Clusterer))
"""Filled in ``trainables/methods/selective/__init__.py``."""


def symmetrise(affinity: Tensor) -> Tensor:
    """(K, K) the mean of the map and its transpose; halved before the sum, so that it cannot overflow."""
    return affinity / 2 + affinity.T / 2


def agglomerate(
    similarity: Tensor, *, linkage: Linkage = "average", above: float = -float("inf"), down_to: int = 1
) -> Groups:
    """Merge the two most similar groups, again and again, starting from singletons.

    Deterministic; among equally similar pairs the one with the lowest task indices goes first. Apart from such ties a
    permutation of the tasks permutes the groups, and a positive factor on ``similarity`` and ``above`` changes nothing.

    Args:
        similarity: (K, K) symmetric; the diagonal is not looked at.
        linkage: of two groups, over all pairs with one task in each: their ``average`` or their ``minimum``.
        above: stop where no pair of groups is more similar than this.
        down_to: stop where this many groups are left.
    """
    groups = [list(group) for group in singletons(similarity.shape[0])]
    rows = similarity.tolist()

    def link(a: list[int], b: list[int]) -> float:
        pairs = [rows[i][k] for i in a for k in b]
        # fsum: rounded once, so the order of the tasks cannot show in the last bit.
        return min(pairs) if linkage == "minimum" else fsum(pairs) / len(pairs)

    while len(groups) > max(down_to, 1):
        links = {(a, b): link(groups[a], groups[b]) for a in range(len(groups)) for b in range(a + 1, len(groups))}
        (a, b), best = max(links.items(), key=lambda item: item[1])  # of equals, max keeps the first
        if not best > above:
            break
        # Groups stay sorted by their lowest member: a < b, and b's members join a.
        groups[a] = sorted(groups[a] + groups.pop(b))
    return tidy(groups)


class PositiveAffinityConfig(ClustererConfig):
    """The fields of ``positive_affinity``."""

    name: Literal["positive_affinity"] = "positive_affinity"
    linkage: Linkage = "average"
    """Two groups merge while this summary of their members' mutual affinities is positive: ``average``, or
    ``minimum``, under which every pair inside a group has positive affinity."""


class PositiveAffinity(Clusterer):
    """Tasks with positive affinity together: greedy agglomeration of the symmetrised map while the best linkage is
    above 0.

    The paper says what the groups are to be (section 3.3: tasks with positive affinity together) and not how they are
    found; this is the simplest procedure with the properties its theorems need. All-negative maps give singletons,
    all-positive maps one group, and only signs and ratios matter, not the scale.
    """

    Config: ClassVar[type[ClustererConfig]] = PositiveAffinityConfig

    def __call__(self, affinity: Tensor) -> Groups | None:
        """Groups of positive affinity; ``None`` for a map that is not finite."""
        scores = symmetrise(affinity)
        if not bool(scores.isfinite().all()):
            return None
        return agglomerate(scores, linkage=self.config.linkage, above=0.0)


class AffinityPropagationConfig(ClustererConfig):
    """The fields of ``affinity_propagation``."""

    name: Literal["affinity_propagation"] = "affinity_propagation"
    preference: Literal["median"] | float = "median"
    """How readily a task becomes an exemplar. ``median`` of all similarities, as in the released code: blind to the
    sign, for adding a constant to the map changes nothing. 0 separates tasks where every affinity is negative, as the
    paper's words ask."""


class AffinityPropagation(Clusterer):
    """scikit-learn's affinity propagation on the symmetrised map, with the released code's settings.

    Damping 0.5, 200 iterations at most, converged once 50 change nothing. The released code leaves the random state,
    which only breaks degeneracies, to the process; here it is fixed, so that the groups are a function of the map.
    """

    Config: ClassVar[type[ClustererConfig]] = AffinityPropagationConfig
    SETTINGS: ClassVar[Mapping[str, Any]] = {"damping": 0.5, "max_iter": 200, "convergence_iter": 50, "random_state": 0}

    def __call__(self, affinity: Tensor) -> Groups | None:
        """Groups around exemplars; ``None`` where the iteration did not converge or the map is not finite."""
        from sklearn.cluster import AffinityPropagation as Reference
        from sklearn.exceptions import ConvergenceWarning

        count = affinity.shape[0]
        scores = symmetrise(affinity)
        if not bool(scores.isfinite().all()):
            return None
        if count == 1:
            return singletons(count)
        preference = None if self.config.preference == "median" else self.config.preference
        model = Reference(affinity="precomputed", preference=preference, **self.SETTINGS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all similarities equal: one group or singletons, said in a warning
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                labels = model.fit(scores.numpy()).labels_
            except ConvergenceWarning:
                return None
        members = torch.as_tensor(labels)
        return tidy((members == label).nonzero().flatten().tolist() for label in members.unique())
