"""From a search spec to contenders: a config to start from, a space, and an Optuna study's name for each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces import Point, Space, apply, space
from study import schema
from study.cost import expected_iterations, expected_passes
from study.parent import ParentRun
from study.plan import Plan, Trial, make_plan, make_trial
from study.search.spec import Contender, SearchSpec
from trainables.config import TrialConfig, load_trial
from trainables.errors import ConfigError
from trainables.presets import merge


@dataclass(frozen=True)
class PlannedContender:
    """One contender, ready to be asked for trials.

    Attributes:
        id: short name.
        label: as tables show it.
        base: the trial-config fields searched from.
        config: the trial of its defaults.
        space: what varies.
        study: name of its Optuna study. It holds a digest of all that decides which trials are proposed and what
            their values mean (fields, space, objective, evaluations, seeds, sampler, pruner) and not the budget: a
            larger one goes on with the same study.
        evaluations: about how many a trial is given.
    """

    id: str
    label: str
    base: Mapping[str, Any]
    config: TrialConfig
    space: Space
    study: str
    evaluations: int

    def trial(self, point: Point, number: int | None = None) -> Trial:
        """The trial of a point; raises :class:`ConfigError` where the fields contradict each other."""
        config = load_trial(apply(self.base, point), f"contender '{self.id}'")
        every = max(1, math.ceil(expected_iterations(config) / self.evaluations))
        record = config.record.model_copy(update={"eval_every": every, "test": False})
        label = self.label if number is None else f"{self.label} | trial {number}"
        tags = {schema.CONTENDER: self.id, schema.OPTUNA_STUDY: self.study, schema.POINT: json.dumps(point)}
        if number is not None:
            tags[schema.OPTUNA_NUMBER] = str(number)
        return make_trial(config.model_copy(update={"record": record}), label, tags)


@dataclass(frozen=True)
class SearchPlan:
    """A search at a profile.

    Attributes:
        spec: the search.
        profile: name of the profile.
        overrides: fields set in every trial, the final table's included.
        contenders: in the spec's order.
        replicates: seeds of the final table.
    """

    spec: SearchSpec
    profile: str
    overrides: Mapping[str, Any]
    contenders: tuple[PlannedContender, ...]
    replicates: int

    def final(self, winners: Mapping[str, Point] | None = None) -> Plan:
        """The plan of the study that reports the search; see :meth:`study.search.spec.SearchSpec.final`."""
        return make_plan(self.spec.final(winners), self.profile, self.replicates, self.overrides)

    def most_passes(self) -> float:
        """Trunk passes the searches may make: every trial to its end, within the budget."""
        budget = self.spec.budget
        total = 0.0
        for contender in self.contenders:
            limits = [budget.trunk_passes] if budget.trunk_passes else []
            if budget.trials:
                limits.append(budget.trials * expected_passes(contender.config))
            total += min(limits)
        return total

    def parent_run(self) -> ParentRun:
        """As the records keep it."""
        spec = self.spec
        document = {
            "schema": schema.SCHEMA_VERSION,
            "search": spec.id,
            "title": spec.title,
            "about": spec.about,
            "profile": self.profile,
            "overrides": dict(self.overrides),
            "objective": spec.objective.to_dict(),
            "sampler": spec.sampler.to_dict(),
            "pruner": spec.pruner.to_dict(),
            "budget": spec.budget.to_dict(),
            "evaluations": spec.evaluations,
            "trial_seed": spec.trial_seed,
            "contenders": [
                {
                    "id": contender.id,
                    "label": contender.label,
                    "optuna_study": contender.study,
                    "config": contender.config.to_dict(),
                    "space": contender.space.to_dict(),
                }
                for contender in self.contenders
            ],
        }
        return ParentRun(schema.SEARCH_RUN, spec.id, spec.title, spec.about, self.profile, schema.SEARCH_FILE, document)


def plan_search(
    spec: SearchSpec,
    profile_name: str | None = None,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SearchPlan:
    """Resolve a search at a profile and check every axis against the trial config.

    Args:
        spec: the search.
        profile_name: instead of the spec's own.
        seeds: replicates of the final table instead of the profile's.
        overrides: dotted field path to value, for every trial.

    Raises:
        ConfigError: a field, a space or a value is not right; the axis is named.
    """
    name, over = profile_name or spec.profile, dict(overrides or {})
    common = spec.fields(name)
    spec = spec.at(name)
    if "seed" in over:
        raise ConfigError("seed: the search's trials have the spec's trial_seed, the final table's --seeds N")
    contenders = tuple(_resolve(spec, contender, common, name, over) for contender in spec.contenders)
    return SearchPlan(spec, name, over, contenders, seeds or spec.replicates(name))


def _resolve(
    spec: SearchSpec, contender: Contender, common: Mapping[str, Any], profile: str, overrides: Mapping[str, Any]
) -> PlannedContender:
    where = f"contenders.{contender.id}"
    base = apply(merge(merge(common, contender.set), {"seed": spec.trial_seed}), overrides)
    whole = Space()
    for part in (*spec.space, *contender.space):
        whole += space(part)
    whole += Space.from_dict(spec.axes, spec.id) + Space.from_dict(contender.axes, where)
    if not len(whole):
        raise ConfigError(f"{where}: space: there is no axis to search over")
    overridden = [path for path in whole.paths if path in overrides]
    if overridden:
        raise ConfigError(f"--set {overridden[0]}: is an axis of contender '{contender.id}' (narrow it in the spec)")
    try:
        whole.check(base)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    config = load_trial(base, where)
    meaning = {
        "base": config.canonical(),
        "space": whole.to_dict(),
        "objective": spec.objective.to_dict(),
        "evaluations": spec.evaluations,
        "sampler": spec.sampler.to_dict(),
        "pruner": spec.pruner.to_dict(),
    }
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]
    study = f"{spec.id}/{profile}/{contender.id}/{digest}"
    return PlannedContender(contender.id, contender.label, base, config, whole, study, spec.evaluations)
