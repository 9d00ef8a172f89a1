"""Settings of other people's software that a run depends on, made before that software is imported.

Ray and MLflow report usage unless told otherwise; here they are told otherwise, unless the user has said something.
Ray's token authentication is on by default in some entry points and off in others (since 2.59), so it is set the same
way on every side.
"""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from trainables.errors import StoreError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Ray Tune: no result files of its own (the records are MLflow's), trials stay in the driver's folder.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ctrl-C reaches the run as KeyboardInterrupt, which closes the open records, instead of ending in Tune's own
    # handler.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial that asked for no GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Of a server that is away, MLflow's own defaults ask eight times over four minutes, and the driver with its trials
    # would wait for that; the spool (:mod:`study.spool`) tries again without anybody waiting.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
    # Nothing is downloaded at run time.
    "HF_HUB_OFFLINE": "1",
}

TOKEN_FILE = "ray_auth_token"


def quiet() -> None:
    """Turn off telemetry and noise; what the user has set in the environment stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def ray_token(home: Path) -> Path:
    """The private token file of this home's own Ray cluster (mode 0600), made on first use; puts Ray in token mode.

    A token the user has configured is left alone.
    """
    path = home.absolute() / TOKEN_FILE
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if "RAY_AUTH_MODE" in os.environ and ("RAY_AUTH_TOKEN" in os.environ or (given and Path(given).name != TOKEN_FILE)):
        return Path(given or "")
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        path.chmod(0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    if "ray" in sys.modules:
        # Ray reads mode and token once, when it is first imported, and there is no public way to have it read them
        # again.
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    return path
