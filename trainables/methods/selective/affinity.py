"""From losses seen across a step to the tracked map of proximal inter-task affinity.

Source: Jeong & Yoon, "Selective Task Group Updates for Multi-Task Optimization", ICLR 2025, definition 2 and section
3.3. Where the released code (github.com/wooseong97/sel-update-mtl) computes something else, the difference is an
argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from trainables.errors import CheckpointError
from trainables.methods.selective.partition import Groups

Credit = Literal["stepped", "next"]
Scale = Literal["none", "group_size"]
SelfEntries = Literal["all", "nonnegative"]
OppositeSigns = Literal["minimum", "negative_maximum"]


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """How much each loss fell across a step, as a share of what it was: ``1 - after / before`` (paper, definition 2).

    Args:
        before: (K,) losses before the step.
        after: (K,) losses after it.

    Returns:
        (K,) float64; NaN where there is nothing to compare: a loss that was 0, or is not finite on either side.
    """
    change = 1 - after.double() / before.double()
    return torch.where(before.isfinite() & change.isfinite(), change, torch.nan)


def credited_values(
    change: Tensor,
    group: tuple[int, ...],
    *,
    scale: Scale = "none",
    self_entries: SelfEntries = "all",
    opposite_signs: OppositeSigns = "minimum",
) -> Tensor:
    """What one observed change says about each pair (source i, target k), the sources being the members of ``group``.

    - k outside the group (paper, equation 4): the change of k, for every source.
    - k = i: the change of k.
    - k another member (paper, equation 5): both were stepped at once, so the two changes are read together. Both
      positive, or both negative: the change of k. Otherwise ``opposite_signs`` decides. The paper says that a
      negative change on either side makes the pair's affinity negative and gives no magnitude; ``minimum`` takes the
      negative one of the two, which has the sign asked for, is the harm that was observed, and is the same both ways
      round. ``negative_maximum`` is the released code's.

    Args:
        change: (K,) as :func:`relative_change` gives it; NaN where nothing was observed.
        group: task indices of the sources.
        scale: ``group_size`` divides every value by the number of sources.
        self_entries: ``nonnegative`` leaves out a source's negative value for itself.
        opposite_signs: ``minimum`` of the two changes, or ``negative_maximum``, minus the larger one.

    Returns:
        (K, K) float64, ``[i, k]`` from source i to target k; NaN where nothing is credited.
    """
    source, target = change[:, None], change[None, :]
    agree = ((source > 0) & (target > 0)) | ((source < 0) & (target < 0))
    mixed = torch.minimum(source, target) if opposite_signs == "minimum" else -torch.maximum(source, target)
    member = torch.zeros(change.numel(), dtype=torch.bool)
    member[list(group)] = True
    values = torch.where(member[None, :] & ~agree, mixed, target)
    own = torch.where(change < 0, torch.nan, change) if self_entries == "nonnegative" else change
    values.diagonal().copy_(own)
    values[~member] = torch.nan
    return values / len(group) if scale == "group_size" else values


class AffinityMap:
    """The exponential moving average of what was credited: ``A <- (1 - beta) A + beta B`` for the pairs just observed.

    Args:
        count: number of tasks K.
        beta: weight of the new value, in (0, 1].
        credit: whose doing a change is: of the group ``stepped`` across it, or of the ``next`` one, about to be
        stepped.
        scale: as in :func:`credited_values`.
        self_entries: as in :func:`credited_values`.
        opposite_signs: as in :func:`credited_values`.

    Attributes:
        values: (K, K) float64 on the CPU, ``values[i, k]`` from source i to target k; zero until observed.
        counts: (K, K) int64, how often each pair was observed.
    """

    def __init__(
        self,
        count: int,
        beta: float,
        *,
        credit: Credit = "stepped",
        scale: Scale = "none",
        self_entries: SelfEntries = "all",
        opposite_signs: OppositeSigns = "minimum",
    ) -> None:
        self.beta = beta
        self.credit = credit
        self.scale: Scale = scale
        self.self_entries: SelfEntries = self_entries
        self.opposite_signs: OppositeSigns = opposite_signs
        self.values = torch.zeros(count, count, dtype=torch.float64)
        self.counts = torch.zeros(count, count, dtype=torch.int64)

    def observe(self, losses: Tensor, groups: Groups) -> None:
        """Take in one iteration.

        Args:
            losses: (T, K) on the CPU: the losses before the first group's step, then those after each step that was
                measured; T is M + 1, or M where the last group's step was not measured.
            groups: the M groups in the order they were stepped.
        """
        sources = groups if self.credit == "stepped" else groups[1:]
        # The last source or the last change has no counterpart where the last step was not measured.
        for (before, after), group in zip(pairwise(losses), sources, strict=False):
            values = credited_values(
                relative_change(before, after),
                group,
                scale=self.scale,
                self_entries=self.self_entries,
                opposite_signs=self.opposite_signs,
            )
            seen = ~values.isnan()
            self.values = torch.where(seen, (1 - self.beta) * self.values + self.beta * values, self.values)
            self.counts = self.counts + seen

    def state_dict(self) -> dict[str, Any]:
        """The map and how often each pair was observed."""
        return {"values": self.values, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave; raises :class:`CheckpointError` where it is of another number of
        tasks."""
        if state["values"].shape != self.values.shape:
            given, wanted = state["values"].shape[0], self.values.shape[0]
            raise CheckpointError(f"the affinity map is of {given} tasks, this trial has {wanted}")
        self.values = state["values"].to("cpu", torch.float64, copy=True)
        self.counts = state["counts"].to("cpu", torch.int64, copy=True)
