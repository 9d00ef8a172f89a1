from __future__ import annotations

from analysis.delta_m import delta_m
from study.best import BestSoFar
from study.plan import Plan, Trial, make_plan
from study.spec import parse_spec

SPEC = """
id: little
title: A little study
profile: smoke
base: {tasks: {include: [normal, reshading]}}
baseline: single
rows:
  - {id: single, label: Single, set: {method: single_task}, per_task: true}
  - {id: gd, label: GD, set: {method: gd}}
  - {id: selective, label: Selective, set: {method: selective}}
"""


def trials(plan: Plan, row: str) -> tuple[Trial, ...]:
    return next(r.trials for r in plan.rows if r.id == row)


def measured(trial: Trial, value: float) -> dict[str, float]:
    return {f"val/{task}/l1": value for task in trial.tasks} | {f"test/{task}/l1": 0.0 for task in trial.tasks}


def test_the_best_is_known_once_its_seed_has_a_baseline_and_never_by_the_test_split() -> None:
    plan = make_plan(parse_spec(SPEC, "little.yaml"), seeds=2)
    best = BestSoFar(plan, delta_m)
    gd, selective, single = (trials(plan, row) for row in ("gd", "selective", "single"))
    best.add(gd[0], measured(gd[0], 0.9))
    assert str(best) == ""
    for trial in single[:1]:
        best.add(trial, measured(trial, 1.0))
    assert best.best is None  # one of the two tasks has no baseline yet
    for trial in single[1:]:
        best.add(trial, measured(trial, 1.0 if trial.seed == 0 else 2.0))
    assert best.best is not None
    assert best.best[1] == "GD | seed 0"
    assert abs(best.best[0] - 10.0) < 1e-9
    best.add(selective[1], measured(selective[1], 1.5))
    assert str(best) == "best so far: Selective | seed 1, Delta_m +25.00 % on the validation split"
    best.add(gd[1], measured(gd[1], 1.9))
    assert "Selective" in str(best)


def test_a_trial_without_a_number_or_with_a_zero_baseline_is_no_candidate() -> None:
    plan = make_plan(parse_spec(SPEC, "little.yaml"), seeds=1)
    best = BestSoFar(plan, delta_m)
    for trial in trials(plan, "single"):
        best.add(trial, measured(trial, 0.0))
    best.add(trials(plan, "gd")[0], measured(trials(plan, "gd")[0], 0.5))
    best.add(trials(plan, "selective")[0], {})
    assert best.best is None
