"""A search as a file: what is tuned, over which spaces, by what, and for how much. Validated before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from search_spaces import apply
from study.resources import Resources
from study.spec import SpecProfile, StudySpec, check_profiles, profile, yaml_files
from trainables.errors import ConfigError, unknown
from trainables.presets import merge
from trainables.settings import Settings, parse_yaml

SamplerName = Literal["tpe", "gp", "cmaes", "nsga2", "nsga3", "random", "qmc", "grid", "brute_force", "pbt"]
PrunerName = Literal["none", "asha", "hyperband", "median", "patient"]


class SamplerConfig(Settings):
    """Who proposes the next trial."""

    name: SamplerName = "tpe"
    """``tpe`` (multivariate, conditional spaces as groups), ``gp``, ``cmaes``, ``nsga2``, ``nsga3``, ``random``,
    ``qmc`` (Sobol), ``grid`` (``counts`` values of each range), ``brute_force`` (every point of a finite space, in
    random order), ``pbt`` (population based training of the learning-rate schedule; Jaderberg et al., 2017)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of its draws."""
    startup: int = Field(default=10, ge=0)
    """Trials proposed at random before ``tpe``, ``gp`` and ``cmaes`` learn from them."""
    population: int = Field(default=20, ge=2)
    """Trials of a generation of ``nsga2`` and ``nsga3``; members of a ``pbt``, whatever the budget of trials."""
    counts: int = Field(default=5, ge=2)
    """Values of each range in a ``grid``."""


class PrunerConfig(Settings):
    """Who stops a trial that does worse than others did at the same evaluation."""

    name: PrunerName = "asha"
    """``asha`` (asynchronous successive halving), ``hyperband``, ``median``, ``patient`` (median, after ``patience``
    evaluations without a gain), ``none``."""
    first: int = Field(default=1, ge=1)
    """Evaluations a trial is given in any case."""
    reduction: int = Field(default=3, ge=2)
    """``asha``, ``hyperband``: one trial of so many goes on from each rung, and trains so many times longer."""
    startup: int = Field(default=5, ge=0)
    """``median``, ``patient``: trials that go to their end before any is stopped."""
    patience: int = Field(default=2, ge=0)
    """``patient``: evaluations without a gain that are waited for."""


class ObjectiveConfig(Settings):
    """What is sought, always on the validation split."""

    name: Literal["delta_m", "tasks", "cost"] = "delta_m"
    """``delta_m``: the mean relative gain over single-task networks. ``tasks``: every task's metric, for a Pareto
    front. ``cost``: Delta_m against ``of``, for a Pareto front."""
    of: Literal["trunk_passes", "seconds"] = "trunk_passes"
    """The cost beside Delta_m. Seconds differ from run to run, and with them what the sampler proposes."""

    @property
    def single(self) -> bool:
        """Whether there is one number, so that trials can be ordered and stopped."""
        return self.name == "delta_m"


class BudgetSpec(Settings):
    """What each contender may spend; whichever limit is reached first ends its search."""

    trials: int | None = Field(default=None, ge=1)
    """Trials, those that were stopped or that diverged included."""
    trunk_passes: float | None = Field(default=None, gt=0)
    """Trunk passes over all trials."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.trials is None and self.trunk_passes is None:
            raise ValueError("trials or trunk_passes is wanted")
        return self


class Contender(Settings):
    """One thing that is tuned: a method as a rule."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    """Short name."""
    label: str
    """As the table shows it."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Trial-config fields that make it what it is."""
    space: tuple[str, ...] = ()
    """Spaces of its own, by name, beside those common to all."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Axes of its own, written out: field path to values or range."""


class SearchSpec(Settings):
    """A search: contenders that are tuned with the same budget, sampler, pruner and common space."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    """Its name on the command line and in the records."""
    title: str
    """One line."""
    about: str = ""
    """What is asked, and what to keep in mind when reading the answer."""
    profile: str = "cpu"
    """The profile it runs at unless told otherwise."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Trial-config fields common to all contenders."""
    profiles: dict[str, SpecProfile] = Field(default_factory=dict)
    """Additions to single profiles; ``seeds`` is the number of replicates of the final table."""
    space: tuple[str, ...] = ()
    """Spaces common to all contenders, by name."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Axes common to all contenders, written out: field path to values or range."""
    contenders: tuple[Contender, ...] = Field(min_length=1)
    """What is tuned."""
    sampler: SamplerConfig = SamplerConfig()
    """Who proposes."""
    pruner: PrunerConfig = PrunerConfig()
    """Who stops."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What is sought."""
    budget: BudgetSpec
    """What each contender may spend."""
    budgets: dict[str, BudgetSpec] = Field(default_factory=dict)
    """The same at single profiles."""
    evaluations: int = Field(default=9, ge=1, le=1000)
    """Evaluations on the validation split over the length of a trial: the rungs at which it can be stopped."""
    trial_seed: int = Field(default=1000, ge=0, lt=2**31)
    """Of the search's trials. The final table's replicates have seeds 0, 1, ...: what was chosen is judged on fresh
    ones."""
    resources: Resources = Resources()
    """What each trial takes of the machines, as in a study."""
    points: tuple[dict[str, Any], ...] = ()
    """Points that are tried first, as field path to value, after each contender's own defaults."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [contender.id for contender in self.contenders]
        for index, name in enumerate(ids):
            if name in ids[:index]:
                raise ValueError(f"contenders.{index}.id: '{name}' is taken by another contender")
        if self.sampler.name == "pbt" and (self.pruner.name != "none" or not self.objective.single):
            raise ValueError(
                "sampler.name: 'pbt' ranks its members by Delta_m and stops the worst itself "
                "(wanted: pruner none, objective delta_m)"
            )
        if not self.objective.single and self.pruner.name != "none":
            raise ValueError(
                f"pruner.name: '{self.pruner.name}' orders trials by one number, objective '{self.objective.name}' "
                "has several (allowed: none)"
            )
        return self

    def at(self, profile_name: str) -> SearchSpec:
        """The search with the budget of a profile."""
        return self.model_copy(update={"budget": self.budgets.get(profile_name, self.budget), "budgets": {}})

    def changed(
        self,
        *,
        trials: int | None = None,
        trunk_passes: float | None = None,
        sampler: str | None = None,
        pruner: str | None = None,
        sampler_seed: int | None = None,
    ) -> SearchSpec:
        """The search with another budget, sampler or pruner, everything else as it was.

        Raises:
            ConfigError: there is no such sampler or pruner, or it does not go with the objective.
        """
        raw = self.model_dump(mode="json")
        if trials is not None or trunk_passes is not None:
            raw["budget"], raw["budgets"] = {"trials": trials, "trunk_passes": trunk_passes}, {}
        for field, name in (("sampler", sampler), ("pruner", pruner)):
            if name is not None:
                raw[field]["name"] = name
        if sampler_seed is not None:
            raw["sampler"]["seed"] = sampler_seed
        return SearchSpec.parse(raw)

    def restricted(self, ids: Iterable[str]) -> SearchSpec:
        """The search of some contenders; raises :class:`ConfigError` naming the nearest for one there is not."""
        wanted, known = list(ids), [contender.id for contender in self.contenders]
        for name in wanted:
            if name not in known:
                raise ConfigError(unknown("contender", name, known))
        chosen = tuple(contender for contender in self.contenders if contender.id in wanted)
        return self.model_copy(update={"contenders": chosen})

    def fields(self, profile_name: str) -> dict[str, Any]:
        """The trial-config fields common to all contenders at a profile."""
        own = self.profiles.get(profile_name)
        return merge(merge(profile(profile_name).set, self.base), own.set if own else {})

    def replicates(self, profile_name: str) -> int:
        """Seeds of the final table at a profile."""
        own = self.profiles.get(profile_name)
        return own.seeds if own and own.seeds else profile(profile_name).seeds

    def final(self, winners: Mapping[str, Mapping[str, Any]] | None = None) -> StudySpec:
        """The study that reports the search: single-task baseline, each contender at its defaults, and each that has
        one with its winner's values.

        Args:
            winners: contender id to field path to value.
        """
        rows: list[dict[str, Any]] = [
            {"id": "single_task", "label": "Single Task", "set": {"method": "single_task"}, "per_task": True}
        ]
        for contender in self.contenders:
            rows.append({"id": f"{contender.id}_default", "label": f"{contender.label}, default", "set": contender.set})
            point = (winners or {}).get(contender.id)
            if point is not None:
                tuned = apply(contender.set, point)
                rows.append({"id": f"{contender.id}_tuned", "label": f"{contender.label}, tuned", "set": tuned})
        return StudySpec.parse(
            {
                "id": self.id,
                "title": self.title,
                "about": self.about,
                "profile": self.profile,
                "base": self.base,
                "profiles": {name: own.model_dump(exclude_unset=True) for name, own in self.profiles.items()},
                "resources": self.resources.to_dict(),
                "baseline": "single_task",
                "rows": rows,
            }
        )


SEARCHES = yaml_files("search", "mtl_study.searches", "searches")
"""Searches by id."""


def search_names() -> tuple[str, ...]:
    """Ids of the searches there are."""
    return tuple(sorted(SEARCHES))


def load_search(name: str) -> SearchSpec:
    """A search by id, or from a YAML file by its path.

    Raises:
        ConfigError: the id is unknown (the nearest is named), or there is a mistake in the file.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            text, source = Path(name).read_text(encoding="utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"{name}: cannot be read: {reason}") from None
    else:
        source = f"{name}.yaml"
        text = SEARCHES[name].read_text(encoding="utf-8")
    try:
        spec = SearchSpec.parse(parse_yaml(text, source))
        check_profiles([*spec.profiles, *spec.budgets], spec.profile)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None
    return spec
