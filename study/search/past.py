"""What the records hold of trials that a search might train: found instead of trained, or learnt from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import schema
from study.search.entries import Past
from study.tracking import search

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_STATUSES = (schema.COMPLETE, schema.VALIDATED, schema.DIVERGED, schema.PRUNED)
_RANK = {status: rank for rank, status in enumerate(_STATUSES)}


class PastTrials:
    """Trials of the records by key, whole ones before diverged ones before stopped ones.

    Args:
        client: of the records.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._runs: dict[str, Run] = {}
        self.read()

    def read(self) -> None:
        """Read the records (again)."""
        for run in search(self._client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"):
            status = run.data.tags.get(schema.STATUS, "")
            ended = run.info.status == ("FAILED" if status == schema.DIVERGED else "FINISHED")
            key = run.data.tags.get(schema.TRIAL_KEY, "")
            if status in _RANK and ended and (key not in self._runs or _rank(run) < _rank(self._runs[key])):
                self._runs[key] = run

    def __call__(self, key: str) -> Past | None:
        """The trial of this key."""
        return _past(self._runs[key]) if key in self._runs else None

    def whole(self) -> Iterator[tuple[dict[str, Any], Past]]:
        """Config, as plain data, and outcome of every trial that went to its end."""
        for run in self._runs.values():
            if run.data.tags[schema.STATUS] in (schema.COMPLETE, schema.VALIDATED):
                path = self._client.download_artifacts(run.info.run_id, schema.CONFIG_FILE)
                yield json.loads(Path(path).read_text(encoding="utf-8")), _past(run)


def _rank(run: Run) -> int:
    return _RANK[run.data.tags[schema.STATUS]]


def _past(run: Run) -> Past:
    tags = run.data.tags
    return Past(str(run.info.run_id), tags[schema.STATUS], tags.get(schema.STATUS_REASON, ""), dict(run.data.metrics))
