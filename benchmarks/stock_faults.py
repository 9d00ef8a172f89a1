"""Ray Tune with its stock MLflow callback under the faults of ``tests/chaos``: what is repeated, lost, left open.

``python -m benchmarks.stock_faults`` runs a sweep as long as that one's (four trials of eight steps, a checkpoint after
each) once for every fault, again with ``Tuner.restore`` where its driver did not end, and prints a row for each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from ray import tune

CELLS, STEPS = 4, 8
STEP_SECONDS = 0.2
ALONE = ("driver", "two drivers")
FAULTS = ("none", "driver", "worker", "nan", "lock", "refuse", "memory", "raise", "silent", "two drivers")
LOCK = (
    "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None);"
    "c.execute('BEGIN EXCLUSIVE'); print(flush=True); time.sleep(float(sys.argv[2]))"
)
LOCKED_SECONDS = 45.0


class Toy(tune.Trainable):
    """A trial that counts to :data:`STEPS`."""

    def setup(self, config: dict[str, Any]) -> None:
        self.cell, self.fault, self.count = config["cell"], config["fault"], 0
        self.log = Path(config["log"])

    def step(self) -> dict[str, Any]:
        time.sleep(STEP_SECONDS)
        self.count += 1
        with self.log.open("a") as file:
            file.write(f"{self.cell} {self.count}\n")
        sick = self.cell == 1 and self.count >= 4
        if sick and self.fault == "raise":
            raise ValueError("a bug")
        if sick and self.fault == "memory":
            raise MemoryError("not enough memory")
        if sick and self.fault == "silent":
            return {"done": True}
        loss = math.nan if sick and self.fault == "nan" else 1.0 / self.count
        return {"loss": loss, "done": self.count == STEPS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "count.json").write_text(json.dumps(self.count))

    def load_checkpoint(self, checkpoint_dir: str | None) -> None:
        if checkpoint_dir is not None:
            self.count = json.loads((Path(checkpoint_dir) / "count.json").read_text())


class Strike(tune.Callback):
    """The fault, at the 20th result of the 32."""

    def __init__(self, fault: str, folder: Path) -> None:
        self.fault, self.folder, self.results = fault, folder, 0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.results += 1
        if self.results != 20 or (self.folder / "struck").exists():
            return
        (self.folder / "struck").touch()
        if self.fault == "driver":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "worker":
            os.kill(result["pid"], signal.SIGKILL)
        elif self.fault == "lock":
            command = [sys.executable, "-c", LOCK, str(self.folder / "mlflow.db"), str(LOCKED_SECONDS)]
            holder = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert holder.stdout is not None
            holder.stdout.readline()
        elif self.fault == "refuse":
            _refuse_once()


def _refuse_once() -> None:
    """The store refuses the next metric, and takes the one after it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    original = MlflowClient.log_metric

    def call(*_: Any, **__: Any) -> Any:
        MlflowClient.log_metric = original
        raise MlflowException("server closed the connection")

    MlflowClient.log_metric = call


def drive(fault: str, folder: Path) -> str:
    """The sweep, as the documentation of both has it; what it raised, in a line."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    callbacks = [
        MLflowLoggerCallback(f"sqlite:///{folder / 'mlflow.db'}", experiment_name="toy"),
        Strike(fault, folder),
    ]
    storage = folder / (f"tune-{os.getpid()}" if fault == "two drivers" else "tune")
    if tune.Tuner.can_restore(storage / "toy"):
        tuner = tune.Tuner.restore(str(storage / "toy"), trainable=Toy, resume_errored=True)
    else:
        tuner = tune.Tuner(
            Toy,
            param_space={"cell": tune.grid_search(list(range(CELLS))), "fault": fault, "log": str(folder / "steps")},
            run_config=tune.RunConfig(
                name="toy",
                storage_path=str(storage),
                callbacks=callbacks,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )
    try:
        tuner.fit()
    except Exception as error:  # noqa: BLE001 - what a user would see
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return ""


def drivers(faults: list[str], folder: Path) -> None:
    """Be a driver: each fault's sweep, and again where it raised."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
    for fault in faults:
        for _ in range(2):
            said = drive(fault, folder / fault)
            with (folder / fault / "said").open("a") as file:
                file.write(f"{said or 'ended'}\n")
            if not said:
                break


def run(faults: list[str], folder: Path) -> None:
    """Sweeps of a driver (or two) of their own."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }
    command = [sys.executable, "-m", "benchmarks.stock_faults", "--be-driver", str(folder), *faults]
    for attempt in range(2):
        with (folder / f"log{attempt}").open("w") as log:
            count = 2 if faults == ["two drivers"] else 1
            running = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(count)]
            codes = [driver.wait() for driver in running]
            if not any(codes):
                return


def judge(folder: Path) -> dict[str, Any]:
    """Steps trained beside the 32, and what MLflow holds."""
    steps = (folder / "steps").read_text().splitlines()
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        runs = connection.execute(
            "SELECT p.value, r.status, r.run_uuid FROM runs r JOIN params p USING (run_uuid) WHERE p.key LIKE '%cell'"
        ).fetchall()
        last = dict(
            connection.execute(
                "SELECT run_uuid, max(step) FROM metrics WHERE key = 'loss' GROUP BY run_uuid"
            ).fetchall()
        )
    whole = Counter(cell for cell, status, run in runs if status == "FINISHED" and last.get(run, 0) == STEPS)
    return {
        "steps": len(steps),
        "steps trained again": sum(count - 1 for count in Counter(steps).values()),
        "runs": dict(Counter(status for _, status, _ in runs)),
        "cells with a finished run": len(whole),
        "cells with several": sum(count > 1 for count in whole.values()),
        "finished runs that lack steps": sum(s == "FINISHED" and last.get(run, 0) != STEPS for _, s, run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_faults", description=__doc__)
    parser.add_argument("faults", nargs="*", default=list(FAULTS), help="these only")
    parser.add_argument("--be-driver", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.be_driver is not None:
        drivers(given.faults, given.be_driver)
        return
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(prefix="stock-") as temporary:
        folder = Path(temporary)
        # Two that make their tables at once would fail by that alone.
        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").create_experiment("toy")
        for fault in given.faults:
            (folder / fault).mkdir()
            shutil.copy(folder / "mlflow.db", folder / fault)
        together = [fault for fault in given.faults if fault not in ALONE]
        for faults in [*([fault] for fault in given.faults if fault in ALONE), *([together] if together else [])]:
            run(faults, folder)
            for fault in faults:
                said = (folder / fault / "said").read_text().splitlines() if (folder / fault / "said").exists() else []
                print(json.dumps({"fault": fault, "runs of the driver": said, **judge(folder / fault)}), flush=True)


if __name__ == "__main__":
    main()
