"""Trials on Ray Tune: trials from our own source, verdicts from our own driver, actors reused, our own records instead
of Tune's loggers."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from typing import Any

from study import environment
from study.cluster.connect import LOCAL, connect, quiet_output
from study.executors.base import ExecutorSettings, OnEvent, Source, gpus_of, share
from study.home import Home

_SNAPSHOT_SECONDS = "30"


class TuneExecutor:
    """Trials on a Ray cluster: one of this machine, started for the run and stopped after it, or one that is joined.

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
        from ray import tune

        from study.executors.relay import Feed, Judge, Relay
        from trainables.trainable import TrialTrainable

        relay = Relay(on_event)
        scratch = self.home.scratch / f"tune-{os.getpid()}-{time.monotonic_ns()}"
        share_of = partial(gpus_of, self.settings)
        threads, processes = source.threads, self.settings.processes

        def place(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            # Goes to the workers with the trainable: nothing of the driver may be in it.
            # The first process is Tune's actor; those that it starts go to the other bundles, one to each.
            return tune.PlacementGroupFactory([{"CPU": threads, "GPU": config["gpus"] / processes}] * processes)

        chunks = {
            "chunk_seconds": self.settings.report_seconds,
            "checkpoint_seconds": self.settings.checkpoint_seconds,
            "session": self.settings.session,
        }
        try:
            with connect(
                self.settings.cluster,
                self.home,
                cpus=self.settings.workers * processes * source.threads,
                store=self.home.tracking_uri,
            ):
                tuner = tune.Tuner(
                    tune.with_resources(TrialTrainable, place),
                    tune_config=tune.TuneConfig(
                        num_samples=-1,
                        search_alg=Feed(
                            source,
                            relay,
                            self.settings.workers,
                            chunks,
                            self._cores(source.threads),
                            share_of,
                            processes,
                        ),
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
                with quiet_output():
                    tuner.fit()
                relay.raise_pending()
                relay.fail_silent()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _cores(self, threads: int) -> int:
        """A trial's share; of a cluster that is joined, of all its machines."""
        import ray

        # A cluster started here says how many trials it runs at a time, not what the machine has.
        there = None if self.settings.cluster == LOCAL else int(ray.cluster_resources().get("CPU", 0))
        return share(self.settings, threads, there)
