"""Two runs, cells, rows or studies held against each other: what differs in their configs, and in their numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.delta_m import delta_m
from analysis.listing import listing
from analysis.plan import Plan
from analysis.records import is_complete, number
from analysis.render import render
from analysis.stats import Summary, summarize
from analysis.subjects import ROW, RUN, STUDY, Directory, Subject
from study import schema
from trainables.errors import ConfigError

ABSENT = "(none)"
DELTA_M = schema.DELTA_M
_COSTS = tuple(schema.cost(name) for name in ("iterations", "trunk_passes", "seconds"))
_METRICS_COLUMNS = ("row", "metric", "a", "b", "difference", "low", "high", "n", "better")
_CONFIG_COLUMNS = ("row", "field", "a", "b")

Values = Mapping[int, Mapping[str, float]]
"""Seed to metric name to value."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` finds. The difference is always b minus a.

    Attributes:
        a: the first.
        b: the second.
        config: one line per field that differs: ``row`` (of studies; empty where all rows differ alike), ``field``,
            ``a``, ``b``.
        metrics: one line per number both have: ``row``, ``metric``, ``a`` and ``b`` (means over seeds), ``difference``
            (over the seeds both have, paired), ``low`` and ``high`` of its interval (NaN for fewer than two seeds in
            common), ``n`` (seeds in common, 0 where nothing is paired), ``better`` (``a``, ``b``, or empty where the
            interval holds 0 or there is none).
    """

    a: Subject
    b: Subject
    config: pd.DataFrame
    metrics: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """As plain data, NaN as ``None``."""
        return {
            "a": {"kind": self.a.kind, "name": self.a.name},
            "b": {"kind": self.b.kind, "name": self.b.name},
            "config": json.loads(render(self.config, "json"))["rows"],
            "metrics": json.loads(render(self.metrics, "json"))["rows"],
            "notes": list(self.metrics.attrs["footnotes"]),
        }

    def to_text(self) -> str:
        """For a terminal."""
        config = render(self.config, "text") if len(self.config) else "Configs do not differ"
        metrics = render(self.metrics, "text") if len(self.metrics) else "No number that both have"
        return f"a: {self.a.name}\nb: {self.b.name}\n\n{config}\n\n{metrics}"


def compare(directory: Directory, a: str, b: str, *, confidence: float = 0.95) -> Comparison:
    """Hold ``b`` against ``a``.

    Numbers are paired by seed: the interval is Student's t of the differences. A study is compared row by row, rows
    paired by their ids.

    Args:
        directory: of the records.
        a: a name as :meth:`analysis.subjects.Directory.find` takes it.
        b: another.
        confidence: of the intervals.

    Raises:
        ConfigError: a name means nothing, or several things; or only one of the two is a study.
    """
    first, second = directory.find(a), directory.find(b)
    if (first.kind == STUDY) != (second.kind == STUDY):
        study, other = (first, second) if first.kind == STUDY else (second, first)
        raise ConfigError(
            f"compare: {study.name} is a study and {other.name} a {other.kind}; compare a row of the study with it, "
            f"like {study.name}/{next(iter(directory.rows(study)), 'ROW')}"
        )
    pairs, alone = _pairs(directory, first, second)
    differing = {row: _config_difference(directory, x, y) for row, (x, y) in pairs.items()}
    lines: list[dict[str, Any]] = []
    notes = [f"only {name} has the row {row}" for row, name in alone]
    for row, (x, y) in pairs.items():
        values = (_values(directory, x), _values(directory, y))
        lines += _metric_lines(row, *values, _directions(x, y), confidence)
        notes += [f"{label}: {note}" for label, each in (("a", x), ("b", y)) for note in _missing(directory, row, each)]
    percent = f"{100 * confidence:g} %"
    if lines:
        notes.insert(0, f"difference is b - a over the seeds both have, its {percent} interval from paired differences")
    if any(line["n"] == 0 for line in lines):
        notes.append("n 0: no seed in common, so that the difference is one of means and has no interval")
    if sum(line["n"] > 1 for line in lines) > 1:
        notes.append("intervals hold for each number alone; of many, some exclude 0 by chance")
    return Comparison(first, second, _config_listing(differing), _metrics_listing(lines, notes, percent))


def _pairs(
    directory: Directory, a: Subject, b: Subject
) -> tuple[dict[str, tuple[Subject, Subject]], list[tuple[str, str]]]:
    """What is compared, by row (one without a name for anything but studies), and the rows that only one has."""
    if a.kind != STUDY:
        return {"": (a, b)}, []
    rows = directory.rows(a), directory.rows(b)
    alone = [
        (row, study.name) for study, own, other in ((a, *rows), (b, *rows[::-1])) for row in own if row not in other
    ]
    return {row: (subject, rows[1][row]) for row, subject in rows[0].items() if row in rows[1]}, alone


# ---- configs -------------------------------------------------------------------------------------


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A nested config as one level of dotted paths."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            out.update({f"{name}.{inner}": each for inner, each in flat(value).items()})
        else:
            out[name] = value
    return out


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Field path to both values where they differ, :data:`ABSENT` where a side has no such field."""
    ours, theirs = flat(a), flat(b)
    paths = [*ours, *(path for path in theirs if path not in ours)]
    both = {path: (ours.get(path, ABSENT), theirs.get(path, ABSENT)) for path in paths}
    return {path: values for path, values in both.items() if values[0] != values[1]}


def _config_difference(directory: Directory, a: Subject, b: Subject) -> dict[str, tuple[Any, Any]]:
    ours, theirs = directory.any_config(a), directory.any_config(b)
    if not ours or not theirs:
        return {}
    found = difference(ours, theirs)
    if len(a.keys) > 1 or len(b.keys) > 1:
        found.pop("seed", None)
    if ROW in (a.kind, b.kind):
        # Networks of one task each: which of them comes first says nothing of the row.
        found.pop("tasks.include", None)
    return found


def _config_listing(by_row: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> pd.DataFrame:
    """What all rows have in common is said once."""
    rows = list(by_row)
    common = [
        (path, values)
        for path, values in (by_row[rows[0]].items() if rows else ())
        if len(rows) > 1 and all(by_row[row].get(path) == values for row in rows)
    ]
    lines = [{"row": "", "field": path, "a": _word(x), "b": _word(y)} for path, (x, y) in common]
    said = dict(common)
    for row, found in by_row.items():
        lines += [
            {"row": row, "field": path, "a": _word(x), "b": _word(y)}
            for path, (x, y) in found.items()
            if path not in said
        ]
    shown = {"row": ("row", ""), "field": ("field", ""), "a": ("a", ""), "b": ("b", "")}
    return _listing(lines, _CONFIG_COLUMNS, "config-difference", "Config", shown, ())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ---- numbers -------------------------------------------------------------------------------------


def _values(directory: Directory, subject: Subject) -> dict[int, dict[str, float]]:
    """Seed to everything measured. Costs of a seed's trials add up; only whole runs count, but for a run by its id."""
    found: dict[int, dict[str, float]] = {}
    whole: dict[int, bool] = {}
    for key in subject.keys:
        run, seed = subject.chosen(key), directory.seed(key)
        counts = run is not None and (subject.kind == RUN or is_complete(run))
        whole[seed] = whole.get(seed, True) and counts
        if run is None or not counts:
            continue
        values = found.setdefault(seed, {})
        for name, value in run.metrics.items():
            if name in _COSTS:
                values[name] = values.get(name, 0.0) + value
            elif schema.decided(name) and name.startswith((f"{schema.TEST}/", f"{schema.VAL}/", schema.GROUP_COUNT)):
                values[name] = number(value)
    for seed, values in found.items():
        if not whole[seed]:
            # The cost of some trials of several is the cost of nothing.
            for name in _COSTS:
                values.pop(name, None)
    if subject.plan is not None and subject.plan.baseline is not None:
        _add_delta_m(directory, subject, subject.plan, found)
    return found


def _add_delta_m(directory: Directory, subject: Subject, plan: Plan, found: dict[int, dict[str, float]]) -> None:
    """Against the baseline's mean over its own seeds, as tables have it."""
    rows = directory.rows(subject)
    names = {task.name: schema.metric(schema.TEST, task.name, task.metric) for task in plan.tasks}
    if set(subject.keys) == set(rows[str(plan.baseline)].keys):
        return
    baseline = rows[str(plan.baseline)]
    measured = [run.metrics for key in baseline.keys if (run := baseline.chosen(key)) and is_complete(run)]
    means = {}
    for task, name in names.items():
        values = [number(metrics[name]) for metrics in measured if name in metrics]
        means[task] = math.fsum(values) / len(values) if values else math.nan
    if not all(math.isfinite(mean) and mean != 0 for mean in means.values()):
        return
    better = {task.name: task.higher_is_better for task in plan.tasks}
    for seed_values in found.values():
        own = {task: seed_values.get(name, math.nan) for task, name in names.items()}
        gain = delta_m(own, means, better)
        if math.isfinite(gain):
            seed_values[DELTA_M] = gain


def _directions(a: Subject, b: Subject) -> dict[str, bool]:
    """Metric name to whether more is better, where it is known."""
    found = {DELTA_M: True, **dict.fromkeys(_COSTS[1:], False)}
    for plan in (a.plan, b.plan):
        for task in plan.tasks if plan else ():
            for split in (schema.VAL, schema.TEST):
                found[schema.metric(split, task.name, task.metric)] = task.higher_is_better
    return found


def _metric_lines(
    row: str, a: Values, b: Values, more_is_better: Mapping[str, bool], confidence: float
) -> list[dict[str, Any]]:
    names = {name for values in a.values() for name in values} & {name for values in b.values() for name in values}
    lines = []
    for name in sorted(names, key=_place):
        ours, theirs = _of(a, name), _of(b, name)
        means = [math.fsum(each.values()) / len(each) for each in (ours, theirs)]
        common = sorted(ours.keys() & theirs.keys())
        paired = summarize([theirs[seed] - ours[seed] for seed in common], confidence)
        lines.append(
            {
                "row": row,
                "metric": name,
                "a": means[0],
                "b": means[1],
                "difference": paired.mean if common else means[1] - means[0],
                "low": paired.low,
                "high": paired.high,
                "n": len(common),
                "better": _better(paired, more_is_better.get(name)),
            }
        )
    return lines


def _of(values: Values, name: str) -> dict[int, float]:
    return {seed: each[name] for seed, each in values.items() if name in each}


def _better(paired: Summary, more: bool | None) -> str:
    if more is None or not (paired.low > 0 or paired.high < 0):
        return ""
    return "b" if (paired.low > 0) == more else "a"


def _place(name: str) -> tuple[int, str]:
    order = (DELTA_M, f"{schema.TEST}/", f"{schema.VAL}/", schema.GROUP_COUNT)
    return next((place for place, start in enumerate(order) if name.startswith(start)), len(order)), name


def _missing(directory: Directory, row: str, subject: Subject) -> list[str]:
    """Trials that do not count, with why."""
    notes = []
    for key in subject.keys:
        run = subject.chosen(key)
        status = "was never begun" if run is None else run.tags.get(schema.STATUS, "")
        if subject.kind != RUN and not (run and is_complete(run)):
            where = f"row {row}, " if row else ""
            notes.append(f"{where}seed {directory.seed(key)} does not count: {status}")
    return list(dict.fromkeys(notes))


def _metrics_listing(lines: Sequence[Mapping[str, Any]], notes: Sequence[str], percent: str) -> pd.DataFrame:
    shown = {
        "row": ("row", ""),
        "metric": ("metric", ""),
        "a": ("a", ".5g"),
        "b": ("b", ".5g"),
        "difference": ("b - a", "+.4g"),
        "low": (f"{percent} from", "+.4g"),
        "high": ("to", "+.4g"),
        "n": ("seeds", "d"),
        "better": ("better", ""),
    }
    return _listing(lines, _METRICS_COLUMNS, "metric-difference", "Numbers", shown, notes)


def _listing(
    lines: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    name: str,
    title: str,
    shown: Mapping[str, tuple[str, str]],
    notes: Sequence[str],
) -> pd.DataFrame:
    """Without the column of rows where there are none."""
    if not any(line["row"] for line in lines):
        shown = {column: entry for column, entry in shown.items() if column != "row"}
    return listing(lines, columns, name=name, title=title, shown=shown, footnotes=notes)
