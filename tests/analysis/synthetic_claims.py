"""Evidence with invented numbers, for every claim and every verdict, without a store."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.paper import BASELINES, BETAS, DEPTHS, PAPER_BETA, RANDOM
from analysis.plan import Plan
from analysis.records import Records
from study import schema
from trainables.errors import StoreError

TASKS = (*DEPTHS, "normal", "reshading")


@dataclass(frozen=True)
class FakeRecords(Records):
    """Records whose histories are given."""

    given: Mapping[str, Mapping[str, np.ndarray]]

    def history(self, trial_key: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        if trial_key not in self.given:
            raise StoreError(f"trial {trial_key}: kept no history")
        return {name: array for name, array in self.given[trial_key].items() if names is None or name in names}


def records(
    study: str,
    rows: Mapping[str, Sequence[float]],
    *,
    backbone: str = "vit_pico",
    diverged: Sequence[tuple[str, int]] = (),
    counts: Sequence[float] = (),
    depth_shares: Sequence[float] = (),
    tasks: Sequence[str] = TASKS,
    own_keys: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> FakeRecords:
    """A study whose rows have these Delta_m, seed by seed, the same in every task.

    The single-task metric is 1 in every task and a lower one is better. ``counts`` and ``depth_shares`` are the mean
    number of groups of ``selective`` and how often it groups the two depths (other tasks: half the time), by seed.
    """
    prefix = f"{study}-" if own_keys else ""
    everything = {"single_task": [0.0] * max(map(len, rows.values())), **rows}
    trials, metrics, planned, histories = [], [], [], {}
    for row, gains in everything.items():
        cells = []
        for seed, gain in enumerate(gains):
            key = f"{prefix}{row}-{seed}"
            cells.append({"seed": seed, "trial_key": key, "cell_key": row, "tasks": list(tasks)})
            lost = (row, seed) in diverged
            status = schema.DIVERGED if lost else schema.COMPLETE
            groups = counts[seed] if row == "selective" and counts and not lost else math.nan
            trials.append((row, seed, key, status, tuple(tasks), backbone, groups))
            if not lost:
                metrics += [(row, seed, task, schema.TEST, "l1", 1 - gain / 100, key) for task in tasks]
            if row == "selective" and depth_shares:
                histories[key] = _history(tasks, depth_shares[seed])
        planned.append({"id": row, "label": row, "cells": cells})
    plan = {
        "schema": 1,
        "study": study,
        "title": study,
        "profile": "cpu",
        "seeds": list(range(max(map(len, rows.values())))),
        "task_set": "taskonomy",
        "tasks": [{"name": task, "metric": "l1", "higher_is_better": False, "short": task} for task in tasks],
        "baseline": "single_task",
        "rows": planned,
        **(changes or {}),
    }
    return FakeRecords(
        plan=Plan.model_validate(plan),
        trials=pd.DataFrame(
            trials, columns=["row", "seed", "trial_key", "status", "tasks", schema.BACKBONE, schema.MEAN_GROUPS]
        ),
        metrics=pd.DataFrame(metrics, columns=["row", "seed", "task", "split", "metric", "value", "trial_key"]),
        _store=None,  # type: ignore[arg-type]
        _complete={},
        given=histories,
    )


def _history(tasks: Sequence[str], depth_share: float) -> dict[str, np.ndarray]:
    """Two windows of 90 and 10 iterations, of which only the weighted mean is right."""
    shares = np.full((len(tasks), len(tasks)), 0.5)
    shares[0, 1] = shares[1, 0] = depth_share
    return {
        "iteration": np.array([90, 100]),
        "group": np.zeros((2, len(tasks)), dtype=np.int64),
        "together": np.stack([shares - 0.01, shares + 0.09]),
        "tasks": np.array(tasks),
    }


def evidence(*studies: FakeRecords, profile: str = "cpu") -> Evidence:
    return Evidence(profile, {one.plan.study: one for one in studies})


def scenario(claim: str, size: float, noise: float, seeds: int) -> Evidence:
    """Evidence on one claim: ``size`` 1 has an effect that affirms it, -1 one that denies it, both of 5 points."""
    rng = np.random.default_rng(3)

    def row(mean: float, spread: float = noise) -> list[float]:
        return (mean + spread * rng.normal(size=seeds)).tolist()

    win = 5 * size
    apart = 0.0 if size > 0 else 5.0
    match claim:
        case "beats_gd" | "every_task":
            return evidence(records("d1", {"selective": row(win), "gd": row(0)}))
        case "beats_every_baseline":
            return evidence(records("d1", {"selective": row(win), **{name: row(0) for name in BASELINES}}))
        case "beta_matters_little":
            return evidence(records("d4", {name: row(0 if name == PAPER_BETA else apart) for name in BETAS}))
        case "every_beta_beats_gd":
            return evidence(records("d4", {"gd": row(0), **{name: row(win) for name in BETAS}}))
        case "order_matters_little":
            orders = {"selective_forward": row(apart), "selective_backward": row(apart)}
            return evidence(records("table4", {"selective": row(0), **orders}))
        case "beats_separate":
            return evidence(records("table4_d5", {"selective": row(win), "separate": row(0)}))
        case "steadier_than_separate":
            spreads = (noise * 8**size, noise) if abs(size) == 1 else (noise, noise)
            return evidence(records("table4", {"separate": row(0, spreads[0]), "selective": row(0, spreads[1])}))
        case "homogeneous_groups":
            rest = {name: row(0) for name in ("heterogeneous", *RANDOM)}
            return evidence(records("d5", {"selective": row(win), **rest}))
        case "every_batch_size":
            rows = {
                f"{name}_{batch}": row(mean) for batch in (4, 8, 16) for name, mean in (("gd", 0), ("selective", win))
            }
            return evidence(records("d6", rows))
        case "groups_grow_with_backbone" | "groups_shrink_with_backbone":
            sign = size if claim == "groups_grow_with_backbone" else -size
            backbones = {"d3": "vit_tiny", "d2": "vit_small", "d1": "vit_base", "table2": "vit_large"}
            return evidence(
                *(
                    records(study, {"selective": row(0)}, backbone=name, counts=row(9 + sign * place))
                    for place, (study, name) in enumerate(backbones.items())
                )
            )
        case "similar_tasks_grouped":
            shares = row(0.5 + 0.3 * size, noise / 10)
            return evidence(records("d1", {"selective": row(0)}, depth_shares=shares))
    raise AssertionError(claim)
