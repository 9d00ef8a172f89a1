"""Optuna's samplers and pruners by name, each made afresh for every trial from a seed of its own.

A sampler that draws on from where it stands proposes other trials after a restart than it would have without one. Made
anew from ``(seed, number of trials proposed)``, it proposes the same: what it knows of the past it reads from the
storage.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from study.search.entries import ORDINAL
from study.search.spec import PrunerConfig, SamplerConfig
from trainables.seeding import derive


def make_sampler(config: SamplerConfig, ordinal: int) -> optuna.samplers.BaseSampler:
    """The sampler for the ``ordinal``-th proposal.

    ``grid`` and ``brute_force`` enqueue their points; a random sampler fills in what a point leaves open.
    """
    seed = derive(config.seed, "sampler", ordinal) % 2**32
    with warnings.catch_warnings():
        # Several of these are "experimental" to Optuna, which says so at each construction.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.name:
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=config.startup,
                    multivariate=True,
                    group=True,
                    # Trials that still run count as bad ones, so that parallel workers do not propose one point twice.
                    constant_liar=True,
                )
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=seed,
                    n_startup_trials=config.startup,
                    deterministic_objective=False,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                )
            case "cmaes":
                # Its own state is in the storage; the seed is of the draws from it.
                return optuna.samplers.CmaEsSampler(
                    seed=seed, n_startup_trials=max(1, config.startup), warn_independent_sampling=False
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=config.population)
            case "nsga3":
                return optuna.samplers.NSGAIIISampler(seed=seed, population_size=config.population)
            case "qmc":
                # The sequence is one for the whole search; the storage keeps the place in it.
                return optuna.samplers.QMCSampler(
                    qmc_type="sobol",
                    scramble=True,
                    seed=config.seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
            case "random" | "grid" | "brute_force" | "pbt":
                return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(config: PrunerConfig, evaluations: int, ordinal: int) -> optuna.pruners.BasePruner:
    """The pruner; a trial's resource is the number of its evaluations, at most ``evaluations``. ``ordinal`` is that of
    the trial which is proposed next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.name:
            case "none":
                return optuna.pruners.NopPruner()
            case "asha":
                return optuna.pruners.SuccessiveHalvingPruner(
                    min_resource=config.first, reduction_factor=config.reduction
                )
            case "hyperband":
                return _Hyperband(config, evaluations, ordinal)
            case "median":
                return _median(config)
            case "patient":
                return optuna.pruners.PatientPruner(_median(config), patience=config.patience)


def _median(config: PrunerConfig) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=config.first)


class _Hyperband(optuna.pruners.HyperbandPruner):
    """Hyperband, whose brackets go by trials' ordinals.

    Optuna's go by its own numbers, of which a trial takes one that is dropped, and are known only from the first
    verdict of a process on; a sampler learns from the trials of a bracket alone.
    """

    def __init__(self, config: PrunerConfig, evaluations: int, ordinal: int) -> None:
        super().__init__(min_resource=config.first, max_resource=evaluations, reduction_factor=config.reduction)
        self._next = ordinal
        study: Any = None  # It is asked for the most evaluations alone, which are known.
        self._try_initialization(study)

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        counted = copy.copy(trial)
        counted.number = trial.user_attrs.get(ORDINAL, self._next)
        return super()._get_bracket_id(study, counted)
