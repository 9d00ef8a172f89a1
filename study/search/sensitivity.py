"""How much each knob matters around the defaults: a fixed study, one knob at a time, made from a search's spaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from search_spaces import Axis, Choice, Float, Point, apply, default_point
from study.plan import Plan, make_plan
from study.search.plan import PlannedContender, plan_search
from study.search.spec import SearchSpec
from study.spec import StudySpec
from trainables.config import load_trial
from trainables.errors import ConfigError

FACTORS = (0.25, 0.5, 2.0, 4.0)
"""What the default of a logarithmic range is multiplied with."""

VALUES = 5
"""Values of a range that is not logarithmic, its ends among them."""


def sensitivity_plan(
    search: SearchSpec,
    profile: str | None = None,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan that varies every axis of every contender around its default, the others held at theirs.

    A logarithmic range gives a quarter, half, twice and four times the default as far as they are in it, other ranges
    :data:`VALUES` values, a choice all of its own. Axes that do not exist at the defaults are left out: varying them
    changes nothing there.

    Raises:
        ConfigError: a contender's default lies outside its space, or no axis exists at the defaults.
    """
    planned = plan_search(search, profile, seeds, overrides)
    rows: list[dict[str, Any]] = [
        {"id": "single_task", "label": "Single Task", "set": {"method": "single_task"}, "per_task": True}
    ]
    for own, contender in zip(search.contenders, planned.contenders, strict=True):
        rows.append({"id": own.id, "label": own.label, "set": own.set})
        start = default_point(contender.space, contender.base)
        for axis in contender.space:
            if axis.path in start:
                rows += _rows(contender, own.set, axis, start)
    if len(rows) == 1 + len(search.contenders):
        raise ConfigError(f"{search.id}: no axis exists at the defaults")
    spec = StudySpec.parse(
        {
            "id": f"sensitivity_{search.id}",
            "title": f"One knob at a time around the defaults: {search.title}",
            "about": "Each row changes one field of its method's default. The spread over a knob's rows is what "
            "it costs not to tune it, as far as the others stay as they are.",
            "profile": search.profile,
            "base": search.base,
            "profiles": {name: own.model_dump(exclude_unset=True) for name, own in search.profiles.items()},
            "resources": search.resources.to_dict(),
            "baseline": "single_task",
            "rows": rows,
        }
    )
    return make_plan(spec, planned.profile, planned.replicates, overrides)


def _rows(contender: PlannedContender, fields: Mapping[str, Any], axis: Axis, start: Point) -> list[dict[str, Any]]:
    rows = []
    for value in _values(axis, start[axis.path]):
        if not _possible(contender, axis.path, value):
            continue
        knob = axis.path.rpartition(".")[2]
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        rows.append(
            {
                "id": _slug(f"{contender.id}_{axis.path.replace('.', '_')}_{shown}"),
                "label": f"{contender.label}, {knob} {shown}",
                "set": apply(fields, {axis.path: value}),
            }
        )
    return rows


def _values(axis: Axis, default: Any) -> list[Any]:
    domain = axis.domain
    if isinstance(domain, Choice):
        values = list(domain.values)
    elif domain.log:
        number = float if isinstance(domain, Float) else round
        values = [number(default * factor) for factor in FACTORS]
    else:
        values = list(domain.points(VALUES))
    return [value for value in dict.fromkeys(map(_frozen, values)) if domain.contains(value) and value != default]


def _frozen(value: Any) -> Any:
    return value if not isinstance(value, float) else float(f"{value:.6g}")


def _possible(contender: PlannedContender, path: str, value: Any) -> bool:
    """Whether the value goes with the defaults of the other fields: a grouping that needs a number of groups does
    not."""
    try:
        load_trial(apply(contender.base, {path: value}))
    except ConfigError:
        return False
    return True


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower().replace("-", "m")).strip("_")
