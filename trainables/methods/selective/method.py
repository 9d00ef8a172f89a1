"""Selective task group updates: groups of tasks stepped in turn on the same batch, chosen by how they affect each
other.

Source: Jeong & Yoon, "Selective Task Group Updates for Multi-Task Optimization", ICLR 2025 (arXiv:2502.11986). The
released code (github.com/wooseong97/sel-update-mtl) differs from the paper in the ways that the fields below name;
"difference n" is the number under which the presets and the documentation list it. Every default is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor

from trainables.clock import CLUSTERING
from trainables.errors import ConfigError
from trainables.methods.base import Losses, Method, MethodConfig, StepLog, Update
from trainables.methods.selective.affinity import AffinityMap, Credit, OppositeSigns, Scale, SelfEntries
from trainables.methods.selective.clusterers import CLUSTERERS
from trainables.methods.selective.grouping import FIELD, GROUPINGS, AdaptiveConfig, Grouping, GroupingConfig
from trainables.methods.selective.order import Order, arrange
from trainables.methods.selective.partition import Groups, tidy
from trainables.registry import Registry
from trainables.settings import component


def _grouping(value: Any) -> Any:
    return component(GROUPINGS, value, FIELD)


class SelectiveConfig(MethodConfig):
    """The fields of ``selective``."""

    name: Literal["selective"] = "selective"
    beta: float = Field(default=1e-3, gt=0, le=1)
    """Weight of the newly observed affinity in the moving average, ``A <- (1 - beta) A + beta B``: a larger one
    follows changes faster (difference 14). Paper: 1e-3. Released code: 1e-3, and 1e-4 for Taskonomy."""
    grouping: Annotated[SerializeAsAny[GroupingConfig], BeforeValidator(_grouping)] = AdaptiveConfig()
    """Which tasks are stepped together: a name, or a mapping with ``name`` and the strategy's own fields."""
    order: Order = "random"
    """In which order the groups are stepped (difference 9). Paper: ``random``, ``forward`` (by lowest task index) and
    ``backward`` are compared and hardly differ. Released code: ``random``. ``affinity`` is this project's own: the
    groups that have helped the tasks outside them most go first. By Theorem 5 a task profits from its own group being
    stepped after another one; not every group can be last, so here those that come later start from the changes of
    the shared parameters that, by the tracked map, served others best. A heuristic, which no theorem covers."""
    credit: Credit = "stepped"
    """Whose doing a change of the losses is (difference 1). Paper: of the group just ``stepped``. Released code: of
    the ``next`` group, for losses are compared before its own step; a group's effect on its own tasks
    is then never seen (but for a lone group stepped twice), and with two groups the sources are exactly swapped."""
    last_group: Literal["auto", "measured", "unmeasured"] = "auto"
    """Whether the effect of an iteration's last group is measured, by one more forward without gradients (difference
    2). The paper does not say; released code: ``unmeasured``. ``auto`` measures where the change is credited to the
    group just stepped and the grouping or the order makes use of it."""
    last_group_every: int = Field(default=1, ge=1)
    """Iterations between two measurements of the last group's effect, where it is measured at all. 1 costs a third of a
    GD step in each iteration; the effects of the other groups are seen for nothing. This project's own."""
    scale: Scale = "none"
    """Whether observed values are divided by the source group's size (difference 3). Paper: ``none``. Released code:
    ``group_size``."""
    self_entries: SelfEntries = "all"
    """Which values of a task for itself are recorded (difference 4). Paper: ``all``. Released code: ``nonnegative``."""
    opposite_signs: OppositeSigns = "minimum"
    """The value for two members of one group whose changes differ in sign (difference 5). Paper: negative, magnitude
    not given; ``minimum`` takes the negative one of the two. Released code: ``negative_maximum``, minus the larger of
    the two."""
    single_group: Literal["once", "twice"] = "once"
    """How often a lone group is stepped on a batch (difference 10). Paper: ``once``. Released code: ``twice``."""
    frozen_heads: Literal["freeze", "momentum"] = "freeze"
    """What becomes of the decoders of the other groups (difference 11). Paper: ``freeze``, they stay as they are.
    Released code under torch 1.13: ``momentum``, their gradients are zeros and Adam goes on moving them."""
    group_loss: Literal["sum", "mean"] = "sum"
    """How a group's losses become one (difference 13). Paper and released code: ``sum``."""

    @model_validator(mode="after")
    def _measurement_is_credited(self) -> SelectiveConfig:
        if self.credit == "next" and self.last_group == "measured":
            raise ConfigError(
                "method.last_group: 'measured' needs credit 'stepped'; under 'next' no group follows to be credited "
                "(allowed: auto, unmeasured)"
            )
        if self.last_group_every != 1 and self.last_group == "unmeasured":
            raise ConfigError("method.last_group_every: nothing is measured with last_group 'unmeasured' (allowed: 1)")
        return self


def measures_last(config: SelectiveConfig) -> bool:
    """Whether one more forward shows what the last group's step did."""
    if config.last_group != "auto":
        return config.last_group == "measured"
    used = GROUPINGS[config.grouping.name].uses_affinity or config.order == "affinity"
    return used and config.credit == "stepped"


class Selective(Method):
    """Selective task group updates.

    One iteration: forward; then for each group in turn backward of its losses, optimizer step, and a forward that
    both shows what the step did to every loss and carries the next group's gradients. M groups take M forwards, M
    backwards and M optimizer steps, and one forward without gradients where the last group's effect is measured too
    (every ``last_group_every`` iterations).
    """

    Config: ClassVar[type[MethodConfig]] = SelectiveConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.grouping: Grouping = GROUPINGS[config.grouping.name](config.grouping, self.tasks)
        self.affinity = AffinityMap(
            len(self.tasks),
            config.beta,
            credit=config.credit,
            scale=config.scale,
            self_entries=config.self_entries,
            opposite_signs=config.opposite_signs,
        )
        self.iteration = 0
        self.regroup_failures = 0
        self.groups: Groups = self.grouping.initial(self.generator)

    def step(self, losses: Losses) -> StepLog:
        """One iteration: M groups stepped in turn on the same batch."""
        with self.update.clock(CLUSTERING):
            groups = self._agreed(self._next_groups())
        seen: list[Tensor] = []
        for group in groups:
            values = losses()
            seen.append(self.stack(values).detach())
            total = self._total(values, group)
            # What the other groups' decoders have saved for a backward that does not come would outlive the next
            # forward.
            del values
            self.update.forget()
            self._descend(total)
        if measures_last(self.config) and self.iteration % self.config.last_group_every == 0:
            with torch.no_grad():
                seen.append(self.stack(losses()))
        with self.update.clock(CLUSTERING):
            # The iteration's only transfer from the device.
            self.affinity.observe(torch.stack(seen).cpu(), groups)
        self.iteration += 1
        return StepLog(
            losses=seen[0],
            groups=groups,
            affinity=self.affinity.values.clone(),
            scalars={
                "groups/regroup_failures": float(self.regroup_failures),
            },
        )

    def _next_groups(self) -> Groups:
        if self.iteration > 0:
            found = self.grouping.regroup(self.iteration, self.affinity.values, self.groups, self.generator)
            if found is None:
                self.regroup_failures += 1
            else:
                self.groups = found
        groups = arrange(self.groups, self.config.order, self.affinity.values, self.generator)
        return groups * 2 if len(groups) == 1 and self.config.single_group == "twice" else groups

    def _agreed(self, groups: Groups) -> Groups:
        """The groups as the first of the processes has them, stepped in this order and remembered."""
        if self.update.together.alone:
            return groups
        self.groups, groups = self.update.together.decided((self.groups, groups))
        return groups

    def _total(self, values: Mapping[str, Tensor], group: tuple[int, ...]) -> Tensor:
        # Only the group's losses enter the graph: a zero weight on the others would still give their decoders a
        # gradient, and an optimizer with momentum would move them.
        total = torch.stack([values[self.tasks[index]] for index in group]).sum()
        return total if self.config.group_loss == "sum" else total / len(group)

    def _descend(self, total: Tensor) -> None:
        if self.config.frozen_heads == "freeze":
            self.update.zero_grad()
        else:
            self._zero_all()
        self.update.backward(total)
        self.update.step()

    def _zero_all(self) -> None:
        self.update.zero_grad(to_none=False)
        if self.iteration == 0:
            return
        # Every task has been stepped by now and has a gradient, unless it was lost with a checkpoint, which holds none.
        for parameter in self.update.parameters():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def state_dict(self) -> dict[str, Any]:
        """The tracked map, the groups, the counters and the generator."""
        return {
            **super().state_dict(),
            "affinity": self.affinity.state_dict(),
            "groups": [list(group) for group in self.groups],
            "iteration": self.iteration,
            "regroup_failures": self.regroup_failures,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave; raises ``CheckpointError`` where it is of another number of tasks."""
        self.affinity.load_state_dict(state["affinity"])
        super().load_state_dict(state)
        self.groups = tidy(state["groups"])
        self.iteration = state["iteration"]
        self.regroup_failures = state["regroup_failures"]

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where the grouping does not fit these tasks."""
        GROUPINGS[config.grouping.name].check(config.grouping, tasks)

    @classmethod
    def components(cls, config: Any) -> Mapping[str, tuple[Registry[Any], str]]:
        """The grouping, and the clusterer of one that has any."""
        chosen: dict[str, tuple[Registry[Any], str]] = {"method.grouping": (GROUPINGS, config.grouping.name)}
        clusterer = getattr(config.grouping, "clusterer", None)
        return {**chosen, "method.grouping.clusterer": (CLUSTERERS, clusterer.name)} if clusterer else chosen

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """One forward, backward and step per group to be expected, and the forward that measures the last one."""
        groups = GROUPINGS[config.grouping.name].expected_groups(config.grouping, tasks)
        steps = 2.0 if groups == 1 and config.single_group == "twice" else groups
        return steps + measures_last(config) / config.last_group_every, steps, steps
