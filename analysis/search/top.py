"""The best trials as files that can be trained as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from analysis.escape import clean
from analysis.files import write_whole
from analysis.search.records import WHOLE, SearchRecords
from trainables.errors import ConfigError

Shorten = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A resolved trial config without what is default in it (analysis does not know the defaults); raises
:class:`ConfigError` where this version refuses it."""


def top_configs(records: SearchRecords, folder: Path, count: int, shorten: Shorten) -> list[Path]:
    """Write the best whole trials of each contender: ``selective-1.yaml`` is its best.

    A search does not test its trials; these files have ``record.test`` set, so that training one does.

    Args:
        records: of the search.
        folder: made where needed.
        count: of each contender.
        shorten: leaves out of a resolved config what is default.

    Raises:
        StoreError: a config is not there, or a file cannot be written.
    """
    written = []
    for contender in records.plan.contenders:
        trials = records.of_contender(contender.id)
        whole = trials[trials["status"].isin(WHOLE) & trials["delta_m"].notna()]
        best = whole.sort_values(["delta_m", "number"], ascending=[False, True], kind="stable").head(count)
        for place, trial in enumerate(best.to_dict("records"), start=1):
            text = trial_yaml(records, {str(name): value for name, value in trial.items()}, shorten)
            written.append(write_whole(folder / f"{contender.id}-{place}.yaml", text.encode(), "trial config"))
    return written


def trial_yaml(records: SearchRecords, trial: Mapping[str, Any], shorten: Shorten) -> str:
    """One trial's config as YAML, with where it is from at its head.

    Args:
        records: of the search.
        trial: a row of :attr:`SearchRecords.trials`.
        shorten: leaves out what is default.
    """
    config = records.config(str(trial["run_id"]))
    config["record"] = {**config.get("record", {}), "test": True}
    plan = records.plan
    # A comment must stay one: what comes from the records has no line breaks left in it.
    head = [
        f"Trial {trial['number']} of search {plan.search} ({plan.way}, profile {plan.profile}), {trial['label']}",
        f"MLflow run {trial['run_id']}: Delta_m {trial['delta_m']:+.2f} % on the validation split",
        *([f"varied: {', '.join(trial['point'])}"] if trial["point"] else []),
    ]
    try:
        plain: Mapping[str, Any] = shorten(config)
    except ConfigError as error:
        # Recorded by another version; what was trained is still worth knowing.
        plain = config
        head.append(f"every field as recorded, because this version refuses the config: {error}")
    body = yaml.safe_dump(dict(plain), sort_keys=False, default_flow_style=None, width=120)
    return "".join(f"# {clean(line)}\n" for line in head) + body
