"""What a search knows of its trials: the attributes of Optuna's, those that are open, and what the records hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import optuna

from study import schema
from study.plan import Trial
from study.search.objective import Judgement

# Attributes of an Optuna trial.
ORDINAL, POINT, TRIAL_KEY, RUN_ID = "ordinal", "point", "trial_key", "mlflow_run_id"
STATUS, REASON, DELTA_M, PASSES, SECONDS, REPEATS, STOPPED = (
    "status",
    "reason",
    "delta_m",
    "trunk_passes",
    "seconds",
    "repeats",
    "stopped_at",
)


@dataclass(frozen=True)
class Past:
    """A trial that the records hold already.

    Attributes:
        run_id: MLflow's.
        status: as :mod:`study.schema` names it.
        reason: why it ended, where it did not just finish.
        metrics: the last value of each.
    """

    run_id: str
    status: str
    reason: str
    metrics: Mapping[str, float]

    def costs(self) -> dict[str, float]:
        """Work it took."""
        prefix = schema.cost("")
        return {name.removeprefix(prefix): value for name, value in self.metrics.items() if name.startswith(prefix)}


Lookup = Callable[[str], Past | None]
"""Trial key to what the records hold of it."""


class Decision(Enum):
    """What becomes of a trial after an evaluation."""

    GO = "go"
    STOP = "stop"
    PAUSE = "pause"
    """It goes on later, from a checkpoint of this evaluation."""


@dataclass
class Open:
    """A trial that was given out, or will be, and has not ended."""

    trial: Trial
    optuna: optuna.Trial
    reported: set[int]
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    judgement: Judgement | None = None
    seen: int = 0
    inherited: dict[str, float] = field(default_factory=dict)
    """Costs of the trial it was started from, up to there."""
