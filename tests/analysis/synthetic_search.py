"""Records of searches with invented numbers, by the names of ``study.schema``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from synthetic_records import SyntheticStore, baseline_row, plan

from study import schema

SPACE: dict[str, Any] = {
    "optim.lr": {"float": [1e-4, 1e-2], "log": True, "source": "made up"},
    "method.order": {"choice": ["forward", "random"]},
    "method.window": {"int": [1, 9], "when": {"method.order": "random"}},
}

CONFIG: dict[str, Any] = {
    "seed": 1000,
    "optim": {"lr": 0.001, "name": "adam"},
    "method": {"name": "toy", "order": "random", "window": 3},
    "record": {"test": False, "eval_every": 5},
}


def document(search: str = "tune", **changes: Any) -> dict[str, Any]:
    sampler = changes.pop("sampler", "tpe")
    pruner = changes.pop("pruner", "asha")
    seed = changes.pop("seed", 0)
    study = changes.pop("optuna_study", f"{search}/{sampler}/{seed}")
    return {
        "schema": 1,
        "search": search,
        "title": "A <toy> search",
        "about": "What is best?",
        "profile": "cpu",
        "objective": {"name": "delta_m", "of": "trunk_passes"},
        "sampler": {"name": sampler, "seed": seed},
        "pruner": {"name": pruner},
        "budget": {"trials": 10, "trunk_passes": None},
        "contenders": [{"id": "toy", "label": "Toy & co", "optuna_study": study, "config": CONFIG, "space": SPACE}],
        **changes,
    }


class SearchStore:
    """Writes searches into a synthetic store."""

    def __init__(self, store: SyntheticStore) -> None:
        self.store = store

    def search(self, made: Mapping[str, Any], *, start: int = 1000) -> str:
        tags = {
            schema.KIND: schema.SEARCH_RUN,
            schema.SCHEMA: "1",
            schema.STUDY: made["search"],
            schema.PROFILE: made["profile"],
            schema.STATUS: schema.COMPLETE,
        }
        run = self.store.client.create_run(self.store.experiment(made["search"]), start_time=start, tags=tags)
        self.store.artifact(run.info.run_id, schema.SEARCH_FILE, json.dumps(made).encode())
        self.store.client.set_terminated(run.info.run_id, "FINISHED", start + 1)
        return run.info.run_id

    def trial(
        self,
        made: Mapping[str, Any],
        number: int,
        values: Sequence[float],
        point: Mapping[str, Any],
        *,
        status: str = schema.VALIDATED,
        passes: float = 10.0,
        end: int | None = None,
        start: int = 1000,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """``values`` are of the objective's evaluations, at iterations 5, 10, ..."""
        tags = {
            schema.CONTENDER: "toy",
            schema.OPTUNA_STUDY: made["contenders"][0]["optuna_study"],
            schema.OPTUNA_NUMBER: str(number),
            schema.POINT: json.dumps(point),
        }
        ended = {schema.DIVERGED: "FAILED", schema.FAILED: "FAILED", schema.INTERRUPTED: "KILLED"}
        metrics = {
            "objective/delta_m": [(5 * (place + 1), value) for place, value in enumerate(values)],
            "cost/trunk_passes": [(10, passes)],
            "cost/seconds": [(10, passes / 10)],
            "cost/iterations": [(10, 10.0)],
        }
        run = self.store.trial(
            f"key-{made['search']}-{tags[schema.OPTUNA_STUDY]}-{number}",
            {},
            study=made["search"],
            status=status,
            mlflow_status=ended.get(status, "FINISHED"),
            start=start,
            end=end if end is not None else 2000 + 10 * number,
            tags=tags,
            metrics={name: points for name, points in metrics.items() if points},
        )
        self.store.artifact(run, schema.CONFIG_FILE, json.dumps(config or CONFIG).encode())
        return run


FORWARD = {"optim.lr": 1e-3, "method.order": "forward"}
RANDOM = {"optim.lr": 1e-3, "method.order": "random", "method.window": 3}


def every_ending(store: SearchStore) -> dict[str, Any]:
    """A search with a trial of each kind: whole ones of -5 (defaults), 2 and 4 percent."""
    made = document()
    store.search(made)
    store.trial(made, 0, [-30.0, -5.0], RANDOM, passes=20)
    store.trial(made, 1, [-90.0], {**FORWARD, "optim.lr": 1e-4}, status=schema.PRUNED, passes=5)
    store.trial(made, 2, [-20.0, 2.0], {**FORWARD, "optim.lr": 2e-3}, passes=15)
    store.trial(made, 3, [-40.0], {**RANDOM, "optim.lr": 1e-2}, status=schema.DIVERGED, passes=7)
    store.trial(made, 4, [], {**FORWARD, "optim.lr": 3e-3}, status=schema.FAILED, passes=0)
    store.trial(made, 5, [-10.0, 4.0], {**RANDOM, "method.window": 5}, passes=20)
    store.trial(made, 7, [-12.0, 1.0], {**RANDOM, "method.window": 7}, passes=20)
    return made


def single_tasks(store: SyntheticStore, study: str) -> None:
    """The study of a search's baseline: depth/rmse 2 and semseg/miou 40 on the validation split."""
    store.study(plan([baseline_row((0,))], study=study, seeds=[0]))
    for name, value in (("depth/rmse", 2.0), ("semseg/miou", 40.0)):
        key = f"single-{name.partition('/')[0]}-0"
        store.trial(key, {name: 1.0}, study=study, metrics={f"val/{name}": [(10, value)]})
