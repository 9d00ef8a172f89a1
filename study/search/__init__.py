"""Hyperparameter search with Optuna: specs, contests, the engine that trains their trials."""

from study.search.engine import SearchOptions, SearchOutcome, run_search
from study.search.limits import Limits
from study.search.plan import SearchPlan, plan_search
from study.search.spec import SearchSpec, load_search, search_names

__all__ = [
    "Limits",
    "SearchOptions",
    "SearchOutcome",
    "SearchPlan",
    "SearchSpec",
    "load_search",
    "plan_search",
    "run_search",
    "search_names",
]
