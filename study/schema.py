"""The names in the records: what ``study`` writes into MLflow and ``analysis`` reads. Nothing else may spell them
out."""

from __future__ import annotations

SCHEMA_VERSION = 1
"""Of the records' layout. Written into every run; older homes are refused by name."""

# Kinds of run
KIND = "kind"
STUDY_RUN = "study"
SEARCH_RUN = "search"
TRIAL_RUN = "trial"

# Tags of every run
SCHEMA = "schema"
STUDY = "study"
PROFILE = "profile"
STATUS = "status"
"""``complete`` once every final metric is in, ``running`` before; ``diverged``, ``failed``, ``interrupted`` say why
it ended; ``validated`` is a whole trial of a search, which has no test metrics, ``pruned`` one that it stopped."""
STATUS_REASON = "status_reason"

COMPLETE = "complete"
RUNNING = "running"
VALIDATED = "validated"
PRUNED = "pruned"
DIVERGED = "diverged"
FAILED = "failed"
INTERRUPTED = "interrupted"

# Tags of a trial run
TRIAL_KEY = "trial_key"
CELL = "cell"
"""The cell's label, readable: ``selective | beta=0.001``."""
CELL_KEY = "cell_key"
SEED = "seed"
METHOD = "method"
BACKBONE = "backbone"
DATA = "data"
TASK_SET = "task_set"
DATA_FINGERPRINT = "data_fingerprint"
RESULT_VERSION = "result_version"
EXECUTOR = "executor"
DEVICE = "device"
HOST = "host"
PROCESSES = "processes"
"""How many trained the trial together."""
HELD = "held"
"""What the trial took of its machines while it trained: GPUs, or the share of one, on a GPU; CPU cores otherwise."""
GIT_COMMIT = "git_commit"
GIT_DIRTY = "git_dirty"
VERSIONS = "versions"
"""JSON: package name to version."""
ATTEMPT = "attempt"
SPOOL_ID = "spool.id"
"""The driver's own id of a run, by which one whose creation was cut short is found again."""
IMPORTED = "imported.run"
"""Id the run had in the home it was imported from, at the first time; written last."""

# Tags of a trial run of a search
CONTENDER = "contender"
"""Id of the search's row it belongs to."""
OPTUNA_STUDY = "optuna_study"
OPTUNA_NUMBER = "optuna_number"
POINT = "point"
"""JSON: field path to the value that was tried."""

# Tags of a study run or search run
PLAN_DIGEST = "plan_digest"

# Artifacts
PLAN_FILE = "plan.json"
"""Of a study run: the rows, their cells and trial keys, the tasks, and where the published numbers are."""
SEARCH_FILE = "search.json"
"""Of a search run: the contenders with their spaces, sampler, pruner, budget and objective."""
CONFIG_FILE = "config.json"
"""Of a trial run: the resolved trial config, defaults included."""
HISTORY_FILE = "history.npz"
"""Of a trial run with groups: ``iteration`` (T,), ``affinity`` (T, K, K), ``group`` (T, K) the position of each
task's group in that iteration's order, ``count`` (T,) the number of groups; ``tasks`` (K,) names."""
TRACEBACK_FILE = "traceback.txt"
LOG_FILE = "log.txt"
"""Of a trial run: the lines its worker logged."""
MODEL_FOLDER = "model"
"""Of a trial run, where it was asked for: the trained network as an MLflow model."""
IMAGES_FOLDER = "images"
"""Of a trial run with groups: affinity maps over training, as MLflow names images that belong to a step."""
REPORT_FILE = "report.html"
"""Of a study run: its report as it was after the last invocation."""

# Metrics
VAL = "val"
TEST = "test"
TRAIN_LOSS = "train/loss"
GROUP_COUNT = "groups/count"
OBJECTIVE = "objective"
"""``objective/delta_m``, ...: what a search judges a trial by, at every evaluation; its step is the iteration."""
DELTA_M = f"{TEST}/delta_m"
"""Of a trial run: Delta_m on the test split against the baseline of the study that trained it, as far as that is
finished; an overview for the MLflow UI, which tables do not read."""
SYSTEM = "system"
"""``system/process_memory_megabytes``, ...: what the trial took of its machine; MLflow shows it apart."""
COST = "cost"
COSTS = ("iterations", "optimizer_steps", "forward_passes", "backward_passes", "trunk_passes", "samples", "seconds")
PHASES = ("forward", "backward", "gradient_manipulation", "optimizer_step", "clustering_and_affinity")
"""Seconds of each phase are recorded as the cost ``seconds_<phase>``."""
PEAK_MEMORY = "peak_memory_bytes"
"""Of the device, as a cost; not recorded on a CPU."""
MEAN_GROUPS = "mean_groups"
"""The number of groups, mean over all iterations, as a cost: one number, with a complete trial's last report."""
ALL_COSTS = (*COSTS, *(f"seconds_{phase}" for phase in PHASES), PEAK_MEMORY)


def decided(name: str) -> bool:
    """Whether the trial key decides the metric: time, memory, and what is computed from the metrics of several trials
    are not."""
    return name != DELTA_M and not name.startswith((f"{COST}/", f"{OBJECTIVE}/", f"{SYSTEM}/"))


def metric(split: str, task: str, name: str) -> str:
    """``val/depth_euclidean/l1``: an evaluation metric of one task."""
    return f"{split}/{task}/{name}"


def train_loss(task: str) -> str:
    """``train/loss/depth_euclidean``: a training loss."""
    return f"{TRAIN_LOSS}/{task}"


def system(name: str) -> str:
    """``system/process_memory_megabytes``: what a trial took of its machine."""
    return f"{SYSTEM}/{name}"


def cost(name: str) -> str:
    """``cost/trunk_passes``: one of :data:`COSTS`."""
    return f"{COST}/{name}"
