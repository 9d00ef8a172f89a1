"""What can be named on the command line and in a config."""

from __future__ import annotations

import inspect

from study.spec import bundles, load_spec, profiles, spec_names
from trainables.data import DATA_SETS
from trainables.methods import METHODS
from trainables.models import BACKBONES
from trainables.task_sets import TASK_SETS


def catalogue() -> dict[str, dict[str, str]]:
    """Kind to name to one line about it."""
    return {
        "studies": {name: load_spec(name).title for name in spec_names()},
        "bundles": {name: bundle.about for name, bundle in bundles().items()},
        "profiles": {name: profile.about for name, profile in profiles().items()},
        "methods": {name: _first_line(method) for name, method in METHODS.items()},
        "data sets": {name: _first_line(data_set) for name, data_set in DATA_SETS.items()},
        "task sets": {name: ", ".join(tasks) for name, tasks in TASK_SETS.items()},
        "backbones": {name: spec.about for name, spec in BACKBONES.items()},
    }


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]
