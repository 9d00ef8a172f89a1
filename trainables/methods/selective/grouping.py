"""Grouping strategies: which tasks are stepped together in an iteration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor

from trainables.errors import ConfigError, unknown
from trainables.methods.selective.clusterers import (
    CLUSTERERS,
    Clusterer,
    ClustererConfig,
    PositiveAffinityConfig,
    agglomerate,
    symmetrise,
)
from trainables.methods.selective.partition import Groups, singletons, tidy, together
from trainables.registry import Registry, component_of
from trainables.settings import Settings, component

FIELD = "method.grouping"
"""Where a grouping stands in a trial config, for messages."""


class GroupingConfig(Settings):
    """The fields of a grouping strategy. ``name`` is what it is registered as."""

    name: str


class Grouping:
    """Base of the grouping strategies. It holds no state: what it needs comes in as arguments.

    Args:
        config: the strategy's own config.
        tasks: task names in index order.
    """

    Config: ClassVar[type[GroupingConfig]]
    result_version: ClassVar[int] = 1
    """Raised whenever the same config would give other groups; part of the trial key."""
    uses_affinity: ClassVar[bool] = False
    """Whether the groups depend on the tracked map."""

    def __init__(self, config: Any, tasks: Sequence[str]) -> None:
        self.config = config
        self.tasks = tuple(tasks)

    def initial(self, generator: torch.Generator) -> Groups:
        """Groups of the first iteration."""
        raise NotImplementedError

    def regroup(self, iteration: int, affinity: Tensor, current: Groups, generator: torch.Generator) -> Groups | None:
        """Groups of iteration ``iteration``, counted from 0 and at least 1 here.

        Args:
            iteration: about to begin.
            affinity: (K, K) float64, the tracked map after the iterations before.
            current: groups of the iteration before.
            generator: of random draws.

        Returns:
            The groups, tidy; ``None`` where none could be formed, and the current ones stay.
        """
        return current

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where ``config`` does not fit these tasks."""

    @classmethod
    def expected_groups(cls, config: Any, tasks: Sequence[str]) -> float:
        """Number of groups to be expected, for estimates of cost. Where the groups follow the tracked map: a third of
        the tasks, about what the paper's figure 3(c) shows."""
        return max(1.0, len(tasks) / 3)


GROUPINGS: Registry[type[Grouping]] = Registry("grouping", "mtl_study.groupings", component_of(Grouping))
"""Filled in ``trainables/methods/selective/__init__.py``."""


def _at_most(count: int, tasks: Sequence[str]) -> None:
    if count > len(tasks):
        raise ConfigError(f"{FIELD}.groups: at most one group per task, {len(tasks)} here, got {count}")


class JointConfig(GroupingConfig):
    """The fields of ``joint``: none of its own."""

    name: Literal["joint"] = "joint"


class Joint(Grouping):
    """All tasks in one group: M = 1, which is gradient descent (paper, table 4)."""

    Config: ClassVar[type[GroupingConfig]] = JointConfig

    def initial(self, generator: torch.Generator) -> Groups:
        """One group."""
        return together(len(self.tasks))

    @classmethod
    def expected_groups(cls, config: Any, tasks: Sequence[str]) -> float:
        """One."""
        return 1.0


class SeparateConfig(GroupingConfig):
    """The fields of ``separate``: none of its own."""

    name: Literal["separate"] = "separate"


class Separate(Grouping):
    """Every task in a group of its own: M = K (paper, table 4)."""

    Config: ClassVar[type[GroupingConfig]] = SeparateConfig

    def initial(self, generator: torch.Generator) -> Groups:
        """K groups."""
        return singletons(len(self.tasks))

    @classmethod
    def expected_groups(cls, config: Any, tasks: Sequence[str]) -> float:
        """As many as tasks."""
        return float(len(tasks))


class FixedConfig(GroupingConfig):
    """The fields of ``fixed``."""

    name: Literal["fixed"] = "fixed"
    groups: tuple[tuple[str, ...], ...]
    """Task names, group by group; every task in exactly one group."""


class Fixed(Grouping):
    """Groups given by hand."""

    Config: ClassVar[type[GroupingConfig]] = FixedConfig

    def initial(self, generator: torch.Generator) -> Groups:
        """The groups as given."""
        index = {task: position for position, task in enumerate(self.tasks)}
        return tidy([index[task] for task in group] for group in self.config.groups)

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` unless the groups partition the tasks."""
        times = Counter(task for group in config.groups for task in group)
        if any(not group for group in config.groups):
            raise ConfigError(f"{FIELD}.groups: a group is empty")
        for task in times:
            if task not in tasks:
                raise ConfigError(f"{FIELD}.groups: {unknown('task', task, tasks)}")
        twice = [task for task, count in times.items() if count > 1]
        if twice:
            raise ConfigError(f"{FIELD}.groups: every task in one group, given more than once: {', '.join(twice)}")
        missing = [task for task in tasks if task not in times]
        if missing:
            raise ConfigError(f"{FIELD}.groups: every task in one group, missing: {', '.join(missing)}")

    @classmethod
    def expected_groups(cls, config: Any, tasks: Sequence[str]) -> float:
        """As many as are given."""
        return float(len(config.groups))


class RandomConfig(GroupingConfig):
    """The fields of ``random``."""

    name: Literal["random"] = "random"
    groups: int = Field(ge=1)
    """Number of groups; their sizes differ by one at most."""
    redraw: Literal["iteration", "once"] = "iteration"
    """When groups are drawn: every ``iteration``, or ``once`` at the start. The paper does not say which its table
    D.5 has."""


class RandomGroups(Grouping):
    """A uniformly drawn balanced partition into a given number of groups (paper, table D.5)."""

    Config: ClassVar[type[GroupingConfig]] = RandomConfig

    def initial(self, generator: torch.Generator) -> Groups:
        """One draw."""
        shuffled = torch.randperm(len(self.tasks), generator=generator).tolist()
        return tidy(shuffled[start :: self.config.groups] for start in range(self.config.groups))

    def regroup(self, iteration: int, affinity: Tensor, current: Groups, generator: torch.Generator) -> Groups | None:
        """Another draw, or the current groups where they are drawn once."""
        return self.initial(generator) if self.config.redraw == "iteration" else current

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where there are more groups than tasks."""
        _at_most(config.groups, tasks)

    @classmethod
    def expected_groups(cls, config: Any, tasks: Sequence[str]) -> float:
        """As many as asked for."""
        return float(config.groups)


def _clusterer(value: Any) -> Any:
    return component(CLUSTERERS, value, f"{FIELD}.clusterer")


class TrackedConfig(GroupingConfig):
    """The fields of every grouping that follows the tracked map."""

    clusterer: Annotated[SerializeAsAny[ClustererConfig], BeforeValidator(_clusterer)] = PositiveAffinityConfig()
    """How groups are made of the map: a name, or a mapping with ``name`` and the clusterer's own fields. The paper's
    words are met by ``positive_affinity``; the released code has ``affinity_propagation`` (difference 7)."""
    normalize: Literal["none", "self_upper"] = "none"
    """What happens to the map before clustering (difference 6). Paper: ``none``. Released code: ``self_upper``,
    column k divided by k's affinity to itself in the rows up to k only, so the order of the tasks matters."""
    regroup_every: int = Field(default=1, ge=1)
    """Iterations from one regrouping to the next."""
    warmup: int = Field(default=0, ge=0)
    """Number of first iterations that keep the initial groups, one per task (difference 8). Paper: 0. Released code:
    101."""


class Tracked(Grouping):
    """Base of the groupings that follow the tracked map: singletons at first (paper, section 3.3), then what the map
    says."""

    uses_affinity: ClassVar[bool] = True

    def __init__(self, config: Any, tasks: Sequence[str]) -> None:
        super().__init__(config, tasks)
        self.cluster: Clusterer = CLUSTERERS[config.clusterer.name](config.clusterer)

    def initial(self, generator: torch.Generator) -> Groups:
        """One group per task."""
        return singletons(len(self.tasks))

    def regroup(self, iteration: int, affinity: Tensor, current: Groups, generator: torch.Generator) -> Groups | None:
        """Groups of the map where it is time for them, else the current ones; ``None`` where the map cannot be
        clustered."""
        since = iteration - self.config.warmup
        if since < 0 or since % self.config.regroup_every:
            return current
        if not bool(affinity.any()):  # nothing measured yet
            return singletons(len(self.tasks))
        scores = self_upper(affinity) if self.config.normalize == "self_upper" else affinity
        return self.group(scores) if bool(scores.isfinite().all()) else None

    def group(self, scores: Tensor) -> Groups | None:
        """Groups of a finite, not all-zero map (K, K); ``None`` where it cannot be clustered."""
        raise NotImplementedError


def self_upper(affinity: Tensor) -> Tensor:
    """The map as the released code normalises it: entry [i, k] divided by [k, k] for i <= k, left alone for i > k.

    It means to divide whole columns by their diagonal, but divides in place by a view of the column it is writing:
    once the diagonal entry itself has become 1, the rows below it are divided by 1. Not finite where the diagonal is
    0.
    """
    upper = torch.ones_like(affinity, dtype=torch.bool).triu()
    return torch.where(upper, affinity / affinity.diagonal()[None, :], affinity)


class AdaptiveConfig(TrackedConfig):
    """The fields of ``adaptive``."""

    name: Literal["adaptive"] = "adaptive"


class Adaptive(Tracked):
    """The paper's grouping: tasks with positive tracked affinity together."""

    Config: ClassVar[type[GroupingConfig]] = AdaptiveConfig

    def group(self, scores: Tensor) -> Groups | None:
        """What the clusterer makes of the map."""
        return self.cluster(scores)


class HeterogeneousConfig(TrackedConfig):
    """The fields of ``heterogeneous``."""

    name: Literal["heterogeneous"] = "heterogeneous"
    groups: Literal["match"] | Annotated[int, Field(ge=1)] = "match"
    """Number of groups. ``match``: as many as the clusterer makes of the same map, so that only who is with whom
    differs from ``adaptive``. The paper does not say how its heterogeneous groups are built."""


class Heterogeneous(Tracked):
    """The least affine tasks together (paper, table D.5): greedy average-linkage agglomeration of the lowest
    affinities."""

    Config: ClassVar[type[GroupingConfig]] = HeterogeneousConfig

    def group(self, scores: Tensor) -> Groups | None:
        """The least affine groups, as many as asked for."""
        wanted = self.config.groups
        if wanted == "match":
            matched = self.cluster(scores)
            if matched is None:
                return None
            wanted = len(matched)
        return agglomerate(-symmetrise(scores), linkage="average", down_to=wanted)

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where there are to be more groups than tasks."""
        if config.groups != "match":
            _at_most(config.groups, tasks)
