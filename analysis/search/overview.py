"""Tables of a search: one row per contender, per trial, per axis, per recorded run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from analysis.listing import listing
from analysis.search.importance import FANOVA, FEWEST, importances, shares
from analysis.search.importance import sample as sample_of
from analysis.search.incumbent import best_trial
from analysis.search.plan import said, short_names
from analysis.search.records import WHOLE, SearchRecords, SearchRun
from study import schema

_ENDS = {
    "whole": WHOLE,
    "pruned": (schema.PRUNED,),
    "diverged": (schema.DIVERGED,),
    "failed": (schema.FAILED,),
    "unfinished": (schema.RUNNING, schema.INTERRUPTED),
}


def contenders_table(records: SearchRecords) -> pd.DataFrame:
    """One row per contender: its trials by how they ended, what they cost, and what was gained over its defaults, on
    the validation split."""
    lines: list[dict[str, Any]] = []
    borrowed = False
    for contender in records.plan.contenders:
        trials = records.of_contender(contender.id)
        best, default = best_trial(trials), default_delta_m(trials)
        borrowed |= bool(trials["found"].any())
        numbers = set(trials["number"])
        top = float(best["delta_m"]) if best is not None else math.nan
        lines.append(
            {
                "id": contender.id,
                "contender": contender.label,
                "trials": len(trials),
                **{name: int(trials["status"].isin(statuses).sum()) for name, statuses in _ENDS.items()},
                "without_run": max(numbers, default=-1) + 1 - len(numbers),
                "trunk_passes": float(trials["trunk_passes"].sum()),
                "seconds": float(trials["seconds"].sum()),
                "best": top,
                "best_trial": int(best["number"]) if best is not None else None,
                "default": default,
                "gain": top - default,
                "run_id": best["run_id"] if best is not None else "",
            }
        )
    shown = {
        "contender": ("contender", ""),
        "trials": ("trials", "d"),
        **{name: (name, "d") for name in _ENDS if name != "unfinished" or any(line[name] for line in lines)},
        **({"without_run": ("without a run", "d")} if any(line["without_run"] for line in lines) else {}),
        "trunk_passes": ("trunk passes", ",.0f"),
        "seconds": ("seconds", ",.1f"),
        "best": ("best Delta_m %", "+.2f"),
        "best_trial": ("trial", ".0f"),
        "default": ("default's", "+.2f"),
        "gain": ("gain", "+.2f"),
    }
    notes = [
        f"search {records.plan.search} at profile {records.plan.profile}: {records.plan.way}, "
        f"{records.plan.budget_text or 'no budget'} each, run {records.run.run_id} ({records.run.status})",
        "Delta_m in percent on the validation split, of one seed; the test split is not looked at. The best of many "
        "trials is above what its values give on fresh seeds: the final table has those",
    ]
    if borrowed:
        notes.append(
            "the trial of the defaults was found in the records of another study or search and is counted here"
        )
    if "without_run" in shown:
        notes.append(
            "without a run: numbers Optuna gave to proposals that were not trained here, being in the records of "
            "another search or study, or refused"
        )
    return listing(
        lines,
        list(lines[0]),
        name=f"search-{records.plan.search}",
        title=f"{records.plan.title}: what each contender spent and found",
        shown=shown,
        footnotes=notes,
        about={"search": records.plan.search, "profile": records.plan.profile, "run_id": records.run.run_id},
    )


def default_delta_m(trials: pd.DataFrame) -> float:
    """Delta_m of a contender's defaults, which are its trial 0; NaN where that did not go to its end."""
    default = trials[(trials["number"] == 0) & trials["status"].isin(WHOLE)]
    return float(default["delta_m"].iloc[0]) if len(default) else math.nan


def trials_table(records: SearchRecords) -> pd.DataFrame:
    """One row per trial, best first, then those without a number; every axis is a column of CSV and JSON."""
    paths = list(dict.fromkeys(axis.path for contender in records.plan.contenders for axis in contender.axes))
    ordered = records.trials.assign(whole=records.trials["status"].isin(WHOLE)).sort_values(
        ["whole", "delta_m", "number"], ascending=[False, False, True], kind="stable", na_position="last"
    )
    lines = [
        {
            **{name: line[name] for name in ("contender", "number", "status", "delta_m")},
            **{f"value {name}": value for name, value in zip(records.names, line["values"], strict=True)},
            **{name: line[name] for name in ("iterations", "trunk_passes", "seconds")},
            "values": values_text(line["point"]),
            **{path: line["point"].get(path) for path in paths},
            "run_id": line["run_id"],
            "reason": line["reason"],
        }
        for line in ordered.to_dict("records")
    ]
    columns = ["contender", "number", "status", "delta_m", *(f"value {name}" for name in records.names)]
    columns += ["iterations", "trunk_passes", "seconds", "values", *paths, "run_id", "reason"]
    shown = {
        "contender": ("contender", ""),
        "number": ("trial", "d"),
        "status": ("status", ""),
        "delta_m": ("Delta_m %", "+.2f"),
        "trunk_passes": ("trunk passes", ",.0f"),
        "seconds": ("seconds", ",.1f"),
        "values": ("values", ""),
    }
    title = f"{records.plan.title}: trials, best first"
    return listing(lines, columns, name=f"trials-{records.plan.search}", title=title, shown=shown)


def values_text(point: dict[str, Any]) -> str:
    """A point in one line."""
    return ", ".join(f"{path}={said(value)}" for path, value in point.items())


def importance_table(records: SearchRecords) -> pd.DataFrame:
    """One row per contender and axis: its share of the variance of Delta_m, how it was found and over which trials."""
    lines: list[dict[str, Any]] = []
    for contender in records.plan.contenders:
        for entry in importances(records.of_contender(contender.id), contender.axes):
            few = entry.trials < 5 * entry.beside and entry.method == FANOVA
            over = f"where {entry.condition}" if entry.condition else "all whole trials"
            told = f"{entry.method}{', few trials' if few else ''}"
            lines.append(
                {
                    "contender": contender.id,
                    "axis": entry.axis.path,
                    "share": 100 * entry.share,
                    "method": told or ("fixed" if entry.trials >= FEWEST else "too few trials"),
                    "trials": entry.trials,
                    "over": over,
                }
            )
    return listing(
        lines,
        ["contender", "axis", "share", "method", "trials", "over"],
        name=f"importance-{records.plan.search}",
        title=f"{records.plan.title}: share of each axis in the variance of Delta_m",
        shown={
            "contender": ("contender", ""),
            "axis": ("axis", ""),
            "share": ("share %", ".1f"),
            "method": ("found by", ""),
            "trials": ("trials", "d"),
            "over": ("over", ""),
        },
        footnotes=[
            "of the axis alone, over whole trials; what is missing to 100 % is interactions, and noise",
            "exact ANOVA: the trials are a complete factorial. fANOVA: Optuna's, of a random forest; few trials: fewer "
            "than five for each axis that varies, read it as a hint",
            "an axis that only some trials have is judged over those: its share is not to be held against the others'",
        ],
    )


def interaction_table(records: SearchRecords) -> pd.DataFrame:
    """One row per contender and pair of axes: what the two do together beyond each alone, largest first."""
    lines = []
    for contender in records.plan.contenders:
        taken = sample_of(records.of_contender(contender.id), contender.axes)
        found = shares(taken)
        if found is None:
            continue
        paths = [axis.path for axis in taken.axes]
        lines += sorted(
            (
                {
                    "contender": contender.id,
                    "first": paths[a],
                    "second": paths[b],
                    "share": 100 * float(found.pairs[a, b]),
                    "method": found.method,
                    "trials": len(taken.values),
                }
                for a in range(len(paths))
                for b in range(a + 1, len(paths))
            ),
            key=lambda line: -float(str(line["share"])),
        )
    return listing(
        lines,
        ["contender", "first", "second", "share", "method", "trials"],
        name=f"interaction-{records.plan.search}",
        title=f"{records.plan.title}: share of each pair of axes, beyond each alone",
        shown={
            "contender": ("contender", ""),
            "first": ("axis", ""),
            "second": ("and", ""),
            "share": ("share %", ".1f"),
            "method": ("found by", ""),
            "trials": ("trials", "d"),
        },
        footnotes=["of the axes that all whole trials have; fANOVA: of our own random forest"],
    )


def searches_table(found: Sequence[SearchRun]) -> pd.DataFrame:
    """One row per recorded parent run, the latest first."""
    lines = [
        {
            "run_id": entry.run_id,
            "search": entry.plan.search,
            "profile": entry.plan.profile,
            "sampler": f"{entry.plan.sampler.name} (seed {entry.plan.sampler.seed})",
            "pruner": entry.plan.pruner.name,
            "objective": entry.plan.objective.name,
            "budget": entry.plan.budget_text,
            "contenders": len(entry.plan.contenders),
            "started": f"{datetime.fromtimestamp(entry.started / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC",
            "status": entry.status,
            "trials": entry.trials,
        }
        for entry in reversed(found)
    ]
    numbers = ("contenders", "trials")
    columns = ["run_id", "search", "profile", "sampler", "pruner", "objective", "budget", "contenders", "started"]
    columns += ["status", "trials"]
    return listing(
        lines,
        columns,
        name="searches",
        title="Recorded searches, the latest first",
        shown={name: (name.replace("run_id", "run"), "d" if name in numbers else "") for name in columns},
        footnotes=["trials that have a run; those of an earlier run with a smaller budget are the same ones"],
    )


def axis_names(records: SearchRecords, contender: str) -> dict[str, str]:
    """Path to short name of a contender's axes."""
    return short_names(next(entry.axes for entry in records.plan.contenders if entry.id == contender))
