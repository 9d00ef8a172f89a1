"""From Ray Tune's callbacks to the driver's events. Imports Ray, so it is imported only where a cluster is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import tune

from study.executors.base import Failure, OnEvent
from trainables.session import Report


class Relay(tune.Callback):
    """Passes reports and failures on.

    An exception in a Tune callback aborts the sweep with Tune's own error on top of it. It is kept here instead, what
    follows is dropped, and :meth:`raise_pending` raises it once Tune has returned.

    Args:
        on_event: of the run.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event: OnEvent | None = on_event
        self.pending: Exception | None = None
        self.ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into the experiment's snapshot, which is never restored here.
        return {"_on_event": None, "pending": None, "ended": set()}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A chunk of a trial is through."""
        report: Report = result["report"]
        if report.over:
            self.ended.add(report.key)
        self._pass(report)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is given up, after its retries."""
        key = trial.config["trial"]["key"]
        error = trial.get_error()
        self.ended.add(key)
        self._pass(Failure(key, reason_of(error), str(error)))

    def raise_pending(self) -> None:
        """Raise what ``on_event`` raised, if it did."""
        if self.pending is not None:
            raise self.pending

    def fail_silent(self, keys: Sequence[str]) -> None:
        """A trial that ended without a last word looks finished to Tune; here it is a failure."""
        for key in keys:
            if key not in self.ended:
                self._pass(Failure(key, "ended without reporting its final metrics"))
        self.raise_pending()

    def _pass(self, event: Report | Failure) -> None:
        if self.pending is not None or self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - raised again by raise_pending
            self.pending = error


def reason_of(error: BaseException | None) -> str:
    """A remote error in one line. Ray wraps the original and its traceback into one text."""
    if error is None:
        return "failed without an error"
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        first = str(cause).splitlines()[0] if str(cause) else ""
        return f"{type(cause).__name__}: {first}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
