"""Where trials run: Ray Tune, or plain worker processes. Both give the same records and the same bits."""

from __future__ import annotations

from study.executors.base import Executor, ExecutorSettings, Failure, Listed, OnEvent, Source, Verdict
from study.executors.local import LocalExecutor
from study.executors.tune import TuneExecutor
from study.home import Home
from trainables.errors import ConfigError, unknown

NAMES = ("ray", "local")


def make_executor(name: str, settings: ExecutorSettings, home: Home) -> Executor:
    """The executor of that name; raises :class:`ConfigError` naming the nearest one."""
    if name == "ray":
        return TuneExecutor(settings, home)
    if name == "local":
        return LocalExecutor(settings)
    raise ConfigError(unknown("executor", name, NAMES))


__all__ = [
    "NAMES",
    "Executor",
    "ExecutorSettings",
    "Failure",
    "Listed",
    "LocalExecutor",
    "OnEvent",
    "Source",
    "TuneExecutor",
    "Verdict",
    "make_executor",
]
