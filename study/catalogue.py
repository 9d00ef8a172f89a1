"""What can be named on the command line and in a config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from search_spaces import about, space_names
from study.search.spec import load_search, search_names
from study.spec import bundles, load_spec, profiles, spec_names
from trainables.data import DATA_SETS
from trainables.errors import ExtensionError
from trainables.methods import METHODS
from trainables.models import BACKBONES
from trainables.task_sets import TASK_SETS


def catalogue() -> dict[str, dict[str, str]]:
    """Kind to name to one line about it."""
    return {
        "studies": {name: load_spec(name).title for name in spec_names()},
        "searches": {name: load_search(name).title for name in search_names()},
        "search spaces": {name: about(name) for name in space_names()},
        "bundles": {name: bundle.about for name, bundle in bundles().items()},
        "profiles": {name: profile.about for name, profile in profiles().items()},
        "methods": _lines(METHODS),
        "data sets": _lines(DATA_SETS),
        "task sets": {name: ", ".join(tasks) for name, tasks in TASK_SETS.items()},
        "backbones": {name: spec.about for name, spec in BACKBONES.items()},
    }


def _lines(registry: Mapping[str, object]) -> dict[str, str]:
    """The first line of each entry's documentation; of one that another package adds and that is broken, why."""
    out = {}
    for name in registry:
        try:
            out[name] = (inspect.getdoc(registry[name]) or "").split("\n", 1)[0]
        except ExtensionError as error:
            out[name] = f"BROKEN: {error}"
    return out
