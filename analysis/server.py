"""The records of a store that an MLflow server keeps, read with MLflow's client, page by page."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from analysis.addresses import first_line
from analysis.run import Run
from study import schema
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as Entity

_PAGE = 1000


class Server:
    """What :class:`analysis.database.Database` reads of a database.

    Args:
        client: MLflow's.
        name: of the store, for messages.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name
        self._params: dict[str, dict[str, str]] = {}

    def experiments(self) -> dict[str, str]:
        """As :meth:`analysis.store.Store.experiments`."""
        with self._reading():
            found: list[Experiment] = _pages(
                lambda token: self._client.search_experiments(max_results=_PAGE, page_token=token)
            )
        return {experiment.name: experiment.experiment_id for experiment in found}

    def runs(self, kind: str) -> list[Run]:
        """Every run of a kind that is not deleted, oldest first.

        Oldest first, so that runs begun while the pages are read come after those still to be read.
        """
        experiments = list(self.experiments().values())
        with self._reading():
            found: list[Entity] = _pages(
                lambda token: self._client.search_runs(
                    experiments,
                    filter_string=f"tags.{schema.KIND} = '{kind}'",
                    max_results=_PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
            )
        # They come with every page; asked for later, each run would be a request.
        self._params |= {run.info.run_id: run.data.params for run in found}
        return list({run.info.run_id: plain(run) for run in found}.values())

    def params(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """As :meth:`analysis.store.Store.params`."""
        with self._reading():
            for run_id in run_ids:
                if run_id not in self._params:
                    self._params[run_id] = self._client.get_run(run_id).data.params
        return {run_id: dict(self._params[run_id]) for run_id in run_ids}

    def points(self, run_ids: Sequence[str], names: Sequence[str]) -> list[tuple[Any, ...]]:
        """As :meth:`analysis.database.Database.points`."""
        with self._reading():
            return [
                (run, place, point.step, point.timestamp, point.value)
                for (run, run_id), (place, name) in itertools.product(enumerate(run_ids), enumerate(names))
                for point in self._client.get_metric_history(run_id, name)
            ]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what MLflow raises into one line that names the store."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise StoreError(f"{self._name}: the records cannot be read ({first_line(error)})") from error


def plain(run: Entity) -> Run:
    """MLflow's run without what nothing here reads."""
    info, data = run.info, run.data
    folder = info.artifact_uri
    return Run(
        info.run_id, info.experiment_id, info.status, info.start_time, info.end_time, folder, data.tags, data.metrics
    )


def _pages(query: Callable[[str | None], Any]) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = query(token)
        found.extend(page)
        token = page.token
        if not token:
            return found
