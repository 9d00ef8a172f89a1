"""Studies with histories, for figures: invented numbers of known means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

STEPS = np.array([4, 8, 10])
"""Ends of windows of 4, 4 and 2 iterations."""

NAMES = ("depth", "semseg")


def history(seed: int = 0, shift: float = 0.0, names: Sequence[str] = NAMES) -> dict[str, np.ndarray]:
    """Arrays of a trial's history. With two tasks they share a group in .5, .25 and 1 of a window's iterations, plus
    .2 * ``seed`` in the second; affinity is -.02 from the first to the second task and .01 back, plus ``shift``, times
    seed + 1, growing along the windows."""
    size = len(names)
    together = np.ones((3, size, size))
    off = ~np.eye(size, dtype=bool)
    for window, share in enumerate((0.5, 0.25 + 0.2 * seed, 1.0)):
        together[window][off] = share
    affinity = np.full((3, size, size), 0.03)
    for source in range(size):
        for target in range(size):
            if source != target:
                affinity[:, source, target] = -0.02 if source < target else 0.01
    growth = np.array([0.5, 0.75, 1.0])[:, None, None]
    return {
        "iteration": STEPS,
        "affinity": (affinity + shift) * growth * (seed + 1),
        "group": np.zeros((3, size), dtype=np.int64),
        "count": np.array([2.0, 1.5 + seed, 1.0]),
        "together": together,
        "tasks": np.array(names),
    }


def pair_of_cells(row_id: str, study: str) -> list[dict[str, Any]]:
    return [cell(f"{study}-{row_id}-{seed}", seed) for seed in (0, 1)]


def grouped_study(
    store: SyntheticStore,
    study: str,
    rows: Mapping[str, float] | None = None,
    *,
    backbone: str = "vit_pico",
    published: Mapping[str, Mapping[str, str]] | None = None,
    label: str = "",
    axes: Mapping[str, Mapping[str, float]] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """A study of ``baseline_row``, a joint row ``joint`` and ``rows``: row id to the shift of its affinity. The trials
    in ``skip`` are planned and absent."""
    shifts = {"selective": 0.0} if rows is None else rows
    planned = [baseline_row(), row("joint", pair_of_cells("joint", study), published={"table": "D.1", "row": "GD"})]
    for row_id in shifts:
        entry = row(row_id, pair_of_cells(row_id, study), label, (published or {}).get(row_id))
        planned.append({**entry, "axes": dict((axes or {}).get(row_id, {}))})
    store.study(plan(planned, study=study, task_set="taskonomy"))
    if store.client.get_experiment_by_name("baseline") is None:
        for seed, (depth, semseg) in enumerate([(2.0, 40.0), (2.2, 44.0)]):
            for name, value in (("depth/rmse", depth), ("semseg/miou", semseg)):
                key = f"single-{name.partition('/')[0]}-{seed}"
                store.trial(key, {name: value}, study="baseline", metrics=seconds(5.0))
    for place, row_id in enumerate(["joint", *shifts]):
        for seed in (0, 1):
            key = f"{study}-{row_id}-{seed}"
            if key in skip:
                continue
            metrics = {**seconds(2.0 * (place + 1) + seed), **curves(place + 0.1 * seed)}
            tags = {"backbone": backbone, "host": "here"}
            test = {"depth/rmse": 1.89 + 0.42 * seed, "semseg/miou": 42.0}
            run = store.trial(key, test, study=study, tags=tags, metrics=metrics)
            if row_id != "joint":
                store.history(run, history(seed, shifts[row_id]))


def seconds(total: float) -> dict[str, list[tuple[int, float]]]:
    return {**costs(20, total), "cost/iterations": [(10, 10.0)]}


def curves(level: float) -> dict[str, list[tuple[int, float]]]:
    return {
        "train/loss/depth": [(4, 3.0 + level), (8, 2.0 + level), (10, 1.0 + level)],
        "val/depth/rmse": [(5, 4.0 + level), (10, 2.0 + level)],
        "val/semseg/miou": [(5, 30.0 + level), (10, 40.0 + level)],
    }


def sensitivity_study(store: SyntheticStore, study: str = "sensitivity_toy") -> None:
    """GD with two knobs of one name and a third, FAMO with one: Delta_m of each row is :data:`MOVED`, in percent; the
    row without a number is planned only."""
    single = [cell(f"{study}-single", 0)]
    rows = [row(row_id, [cell(f"{study}-{row_id}", 0)], label) for row_id, (label, _) in MOVED.items()]
    store.study(plan([row("single", single, "Single task"), *rows], study=study, task_set="taskonomy"))
    store.trial(f"{study}-single", {"depth/rmse": 2.0, "semseg/miou": 40.0}, study=study)
    for row_id, (_, gain) in MOVED.items():
        if gain is not None:
            test = {"depth/rmse": 2.0 * (1 - gain / 100), "semseg/miou": 40.0 * (1 + gain / 100)}
            store.trial(f"{study}-{row_id}", test, study=study)


MOVED = {
    "gd": ("GD", 1.0),
    "gd_optim_lr_0_001": ("GD, lr 0.001", -2.0),
    "gd_optim_lr_1em05": ("GD, lr 1e-05", 3.0),
    "gd_method_lr_0_1": ("GD, lr 0.1", 1.5),
    "gd_method_steps_2": ("GD, steps 2", None),
    "gd_x": ("GD, of X", 2.0),
    "gd_x_method_mode_a": ("GD, of X, mode a", 8.0),
}
"""Row to label and Delta_m; ``gd_x`` looks like a knob of ``gd`` and has one of its own."""


BETAS = {"beta_1e_05": 1e-5, "beta_0_0001": 1e-4, "beta_0_001": 1e-3, "beta_0_01": 1e-2, "beta_0_1": 1e-1}


EVIL = "<b>a & b</b> $x_{1$"


def every_study(home: Path, empty_store: Path) -> Path:
    """Records for every figure, two backbones among them."""
    store = SyntheticStore(home, empty_store)
    rows = {"selective": 0.0, "selective_forward": 0.0, "random_2": 0.0}
    published = {"selective": {"table": "D.5", "row": "Ours"}}
    grouped_study(store, "d1", backbone="vit_base")
    grouped_study(store, "d3", {"selective": 0.1}, backbone="vit_tiny")
    grouped_study(store, "table4_d5", rows, backbone="vit_base", label=EVIL, published=published)
    grouped_study(store, "table3_nyud")
    grouped_study(store, "table3_pascal")
    beta_study(store)
    compute_study(store)
    sensitivity_study(store)
    return home


def compute_study(store: SyntheticStore, study: str = "equal_compute") -> None:
    """GD, which spends 20 passes and 5 s; ``slow``, which spends 40 and 20; ``quick``, 20 and 2.5; ``lost``, a seed of
    which diverged. Single-task validation metrics are 2 and 40; Delta_m on validation is in :data:`GAINS`, and 1 higher
    for seed 1; it is evaluated after iterations 5 and 10, costs are reported after 10."""
    rows = [row(name, [cell(f"{study}-{name}-{seed}", seed) for seed in (0, 1)]) for name in (*GAINS, "lost")]
    single = [cell(f"{study}-single-{name}", 0, [name]) for name in NAMES]
    store.study(plan([row("single", single, "Single task"), *rows], study=study, task_set="taskonomy"))
    for name, metric, value in (("depth", "depth/rmse", 2.0), ("semseg", "semseg/miou", 40.0)):
        metrics = {f"val/{metric}": [(10, value)], **seconds(5.0)}
        store.trial(f"{study}-single-{name}", {metric: value}, study=study, metrics=metrics, tags={"host": "here"})
    for name, (passes, total, gains) in {**GAINS, "lost": (20, 5.0, (0.0, 0.0))}.items():
        for seed in (0, 1):
            metrics = {
                **costs(passes, total),
                "cost/iterations": [(10, 10.0)],
                "val/depth/rmse": [
                    (at, 2.0 * (1 - (gain + seed) / 100)) for at, gain in zip((5, 10), gains, strict=True)
                ],
                "val/semseg/miou": [
                    (at, 40.0 * (1 + (gain + seed) / 100)) for at, gain in zip((5, 10), gains, strict=True)
                ],
            }
            gone = name == "lost" and seed == 1
            how = {"status": "diverged", "mlflow_status": "FAILED"} if gone else {}
            test = {} if gone else {"depth/rmse": 2.0, "semseg/miou": 40.0}
            store.trial(f"{study}-{name}-{seed}", test, study=study, metrics=metrics, tags={"host": "here"}, **how)


GAINS = {"gd": (20, 5.0, (-6.0, -2.0)), "slow": (40, 20.0, (-1.0, 3.0)), "quick": (20, 2.5, (-8.0, 1.0))}
"""Row to passes, seconds and Delta_m at the two evaluations, in percent."""


def beta_study(store: SyntheticStore, count: int = 5) -> None:
    """``d4``, its rows in the plan from the largest beta down."""
    rows = {row_id: 0.001 * place for place, row_id in enumerate(list(BETAS)[::-1][:count])}
    published = {row_id: {"table": "D.4", "row": f"beta={beta:g}"} for row_id, beta in BETAS.items()}
    grouped_study(
        store, "d4", rows, axes={row_id: {"method.beta": beta} for row_id, beta in BETAS.items()}, published=published
    )
