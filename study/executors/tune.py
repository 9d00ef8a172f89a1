"""Trials on Ray Tune: trials from our own source, verdicts from our own driver, actors reused, our own records instead
of Tune's loggers."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator

from study import environment
from study.executors.base import ExecutorSettings, OnEvent, Source
from study.home import Home

logger = logging.getLogger(__name__)

_SNAPSHOT_SECONDS = "30"


class TuneExecutor:
    """Trials on a Ray cluster of this machine, started for the run and stopped after it.

    Args:
        settings: how trials are run.
        home: for the token file and Ray's scratch.
    """

    name = "ray"

    def __init__(self, settings: ExecutorSettings, home: Home) -> None:
        self.settings = settings
        self.home = home

    def run(self, source: Source, on_event: OnEvent) -> None:
        """Run all that ``source`` gives; see :class:`study.executors.base.Executor`."""
        environment.quiet()
        # Tune's own experiment snapshots serve nobody here: a run is resumed from the records and the trials'
        # checkpoints.
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", _SNAPSHOT_SECONDS)
        # Trials that are made ready ahead of time, so that an actor that is free has one at once.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.settings.workers)
        import ray
        from ray import tune

        from study.executors.relay import Feed, Judge, Relay
        from trainables.trainable import TrialTrainable

        relay = Relay(on_event)
        scratch = self.home.scratch / f"tune-{os.getpid()}-{time.monotonic_ns()}"
        gpu = self.settings.gpus_per_trial if source.cuda else 0.0
        started_here = not ray.is_initialized()
        if started_here:
            environment.ray_token(self.home.path)
            with _quiet_output():
                ray.init(
                    num_cpus=self.settings.workers * source.threads,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                )
        chunks = {
            "chunk_seconds": self.settings.chunk_seconds,
            "checkpoint_seconds": self.settings.checkpoint_seconds,
        }
        try:
            tuner = tune.Tuner(
                tune.with_resources(TrialTrainable, {"cpu": source.threads, "gpu": gpu}),
                tune_config=tune.TuneConfig(
                    num_samples=-1,
                    search_alg=Feed(source, relay, self.settings.workers, chunks),
                    scheduler=Judge(relay),
                    max_concurrent_trials=None,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: trial.config["trial"]["key"][:16],
                    trial_dirname_creator=lambda trial: trial.config["trial"]["key"][:16],
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=str(scratch),
                    callbacks=[relay],
                    verbose=0,
                    # Trials keep checkpoints of their own, by trial key; a retried one takes up the last of them.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=self.settings.max_failures),
                ),
            )
            with _quiet_output():
                tuner.fit()
            relay.raise_pending()
            relay.fail_silent()
        finally:
            if started_here:
                ray.shutdown()
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _quiet_output() -> Iterator[None]:
    """Tune prints boxes and hints even at verbose=0; the command line has its own words."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
