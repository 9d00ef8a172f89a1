"""The selective method under the contract of every method, in each of its forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.testing import MethodContract
from trainables.methods.selective import RELEASED


def expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested mappings."""
    out: dict[str, Any] = {}
    for path, value in values.items():
        *parents, leaf = path.split(".")
        inner = out
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return out


class TestSelective(MethodContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        released = expanded(RELEASED)
        names = [f"task{index}" for index in range(tasks)]
        half = tasks // 2
        forms: dict[str, Mapping[str, Any]] = {
            "paper": {"beta": 0.3},
            "joint": {"grouping": "joint"},
            "separate": {"grouping": "separate", "order": "backward", "group_loss": "mean"},
            "fixed": {"grouping": {"name": "fixed", "groups": [g for g in (names[:half], names[half:]) if g]}},
            "random": {"grouping": {"name": "random", "groups": (tasks + 1) // 2}, "order": "affinity"},
            "random_once": {"grouping": {"name": "random", "groups": 1, "redraw": "once"}, "single_group": "twice"},
            "heterogeneous": {"grouping": {"name": "heterogeneous", "groups": half or 1}, "frozen_heads": "momentum"},
            "released": {**released, "beta": 0.3, "grouping": {**released["grouping"], "warmup": 2}},
            "propagation": {"grouping": {"name": "adaptive", "clusterer": "affinity_propagation", "regroup_every": 2}},
        }
        return {label: {"name": "selective", **form} for label, form in forms.items()}
