"""One run of the records, as it is read: plain, and small enough for ten thousand of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """A run that MLflow holds. Its parameters, which few readers want, are read apart.

    Attributes:
        run_id: MLflow's.
        experiment_id: MLflow's.
        status: as MLflow has it: ``RUNNING``, ``FINISHED``, ``FAILED``, ``KILLED``, ...
        start_time: milliseconds since 1970; ``None`` where it was not recorded.
        end_time: the same; ``None`` while it runs.
        artifact_uri: URI of the folder of its artifacts.
        tags: by name, as :mod:`study.schema` names them.
        metrics: the last value of each by name, as stored: an infinity is the largest float.
    """

    run_id: str
    experiment_id: str
    status: str
    start_time: int | None
    end_time: int | None
    artifact_uri: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def moment(self) -> tuple[int, str]:
        """When it ended, or began where it has not ended; with its id, which decides between runs of one moment."""
        return self.end_time or self.start_time or 0, self.run_id
