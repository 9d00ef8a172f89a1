"""The one description of a training run: frozen, typed, validated, serialisable, hashable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator

from trainables.data import DATA_SETS
from trainables.data.base import DataConfig, DataSet
from trainables.data.loader import LoadingConfig
from trainables.data.scenes import ScenesConfig
from trainables.errors import ConfigError
from trainables.kernels import Kernels
from trainables.methods import METHODS, Method, MethodConfig
from trainables.methods.gd import GDConfig
from trainables.models import BACKBONES
from trainables.models.config import ModelConfig
from trainables.models.config import check as check_model
from trainables.models.weights import AbsentWeightsError, weights_fingerprint
from trainables.presets import expand_preset
from trainables.registry import Registry
from trainables.settings import Settings, component, to_json
from trainables.task_sets import TASK_SETS, TasksConfig, make_tasks
from trainables.tasks import Task

RESULT_VERSION = 1
"""Of the code as far as it decides results. Raised whenever the same config would give other bits; part of every
trial key."""


class BudgetConfig(Settings):
    """How long a trial trains. Equal iterations are not equal compute: the unit says what is held equal."""

    amount: int = Field(default=40_000, ge=1)
    """How many of ``unit``. The learning-rate schedule runs over the same span."""
    unit: Literal["iterations", "optimizer_steps", "trunk_passes"] = "iterations"
    """What is counted: batches, optimizer steps, or forward and backward passes through the trunk."""


class OptimConfig(Settings):
    """The optimizer and its schedule (paper, Table C.1)."""

    name: Literal["adam"] = "adam"
    """Adam with L2-style weight decay."""
    lr: float = Field(default=2e-5, gt=0)
    """Learning rate at the start."""
    weight_decay: float = Field(default=1e-6, ge=0)
    """L2 coefficient added to the gradient."""
    schedule: Literal["polynomial", "constant"] = "polynomial"
    """``polynomial``: (1 - progress) ** power, advanced once per iteration whatever number of steps the method makes
    in it."""
    power: float = Field(default=0.9, ge=0)
    """Exponent of the polynomial decay."""
    lr_steps: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(gt=0)]], ...] = ()
    """Pairs of an iteration and a factor, in order: from that iteration on, the learning rate of the schedule is
    multiplied by the factor. What a population based search of schedules finds is written here."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient of one optimizer step over all parameters that have one; ``null`` clips nothing."""
    head_lr_scale: Annotated[float, Field(gt=0)] | Literal["tasks"] = 1.0
    """Factor on the decoders' learning rate; ``tasks`` is the number of tasks, which the released configs set for the
    proposed method alone."""

    @field_validator("lr_steps")
    @classmethod
    def _in_order(cls, steps: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        if any(later[0] <= earlier[0] for earlier, later in pairwise(steps)):
            raise ValueError("iterations that grow are wanted")
        return steps


class TrainConfig(Settings):
    """Batches, length, arithmetic."""

    batch_size: int = Field(default=8, ge=1)
    """Samples of a batch."""
    budget: BudgetConfig = BudgetConfig()
    """How long."""
    precision: Literal["float32", "bf16"] = "float32"
    """``bf16`` runs the forward under bfloat16 autocast; parameters, losses and metrics stay float32."""
    compile: bool = False
    """Compile the network with ``torch.compile``."""
    threads: int = Field(default=1, ge=1, le=256)
    """Torch threads on a CPU. Part of the trial: the order of summation, and so the last bits, depend on it."""
    kernels: Kernels = "torch"
    """What multiplies matrices in float32 on a CPU. ``torch``: the BLAS that torch was built with. ``onednn``: oneDNN,
    in linear layers and of task gradients; with torch's builds for x86 more than twice as fast on AMD processors with
    AVX-512, and nothing to gain on others. Other last bits, no larger errors. A GPU, bf16 and compiled networks take no
    notice."""
    data_order: Literal["seed", "fixed"] = "seed"
    """``seed``: shuffled by the trial's seed. ``fixed``: every seed sees the same order, as the released code does."""
    loss_limit: float | None = Field(default=None, gt=0)
    """A trial of which a task's loss is above this in any iteration ends as diverged there; ``null`` takes every
    finite loss. On a GPU, each iteration then waits for its losses."""


class RecordConfig(Settings):
    """What is written down while it trains. Changes no result, so it is no part of the trial key."""

    eval_every: int = Field(default=5000, ge=0)
    """Iterations between evaluations on the validation split; 0 evaluates at the end only."""
    eval_batch_size: int = Field(default=32, ge=1)
    """Samples of an evaluation batch."""
    test: bool = True
    """Evaluate the final iterate on the test split. A search does not: only what it chose is tested."""
    points: int = Field(default=200, ge=2, le=2000)
    """About how many points a training curve or the affinity history has; each is the mean over its iterations."""
    phases: bool = False
    """Wait for a GPU at the ends of each phase of a step, so that seconds by phase are right. Costs throughput; on a
    CPU they are right anyway."""


def _data(value: Any) -> Any:
    return component(DATA_SETS, value, "data")


def _method(value: Any) -> Any:
    return component(METHODS, value, "method")


class TrialConfig(Settings):
    """One training run. Equal trial keys (:func:`trial_key`) mean equal results."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of everything random: initial weights, data order, drop path, the method's draws."""
    data: Annotated[SerializeAsAny[DataConfig], BeforeValidator(_data)] = ScenesConfig()
    """The data set and its parameters, chosen by ``name``."""
    tasks: TasksConfig = TasksConfig()
    """Which tasks, and the conventions of their losses and metrics."""
    model: ModelConfig = ModelConfig()
    """Backbone and decoders."""
    optim: OptimConfig = OptimConfig()
    """Optimizer and schedule."""
    train: TrainConfig = TrainConfig()
    """Batches, length, arithmetic."""
    method: Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_method)] = GDConfig()
    """The multi-task optimization method and its hyperparameters, chosen by ``name``."""
    record: RecordConfig = RecordConfig()
    """What is written down."""
    loading: LoadingConfig = LoadingConfig()
    """How samples are brought from disk."""

    def with_seed(self, seed: int) -> TrialConfig:
        """The same cell under another seed."""
        return self.model_copy(update={"seed": seed})


class TrialReader:
    """Validates trial configs, and computes their keys, that share most of their parts, as those of a plan do: every
    distinct part is validated, checked and hashed once.

    It keeps what it has read, the fingerprints of files included: one reader is for one plan.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Any, Any]] = {}
        self._parts: dict[tuple[str, str], Any] = {}
        # Parts are known by identity, which equal ones of a reader share: 0.0 equals -0.0, and has another key.
        self._facts: dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]] = {}

    def load(self, value: Mapping[str, Any], where: str = "") -> TrialConfig:
        """Validate a trial config given as plain data, across its parts too; see :func:`load_trial`."""
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where or 'config'}: a mapping of fields is wanted, got {value!r}")
        try:
            config = self._read(expand_preset(value))
            parts = (config.data, config.tasks, config.model, config.method)
            self._once(check, config, *parts, config.train.batch_size, config.train.compile)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}" if where else str(error)) from None
        return config

    def tasks(self, config: TrialConfig) -> tuple[Task, ...]:
        """:func:`tasks_of`."""
        tasks: tuple[Task, ...] = self._once(tasks_of, config, config.tasks, config.data)
        return tasks

    def keys(self, config: TrialConfig, seeds: Iterable[int]) -> tuple[str, list[str]]:
        """The cell key of ``config``, and the trial key of its replicate under each of ``seeds``."""
        parts = {field: getattr(config, field) for field in ("data", "method", "model", "optim", "tasks", "train")}
        fields = {field: self._once(_text_of, config, part, of=field) for field, part in parts.items()}
        fields = {field: text for field, text in fields.items() if text}
        around: dict[str, str] = self._once(_around, config, config.data, config.tasks, config.model, config.method)

        def key(seed: Mapping[str, str]) -> str:
            return hashlib.sha256(_object({**around, "config": _object({**fields, **seed})}).encode()).hexdigest()

        return key({}), [key({"seed": _json(seed)}) for seed in seeds]

    def _read(self, value: Mapping[str, Any]) -> TrialConfig:
        try:
            return TrialConfig.model_validate({field: self._part(field, given) for field, given in value.items()})
        except (ConfigError, ValidationError):
            # Of several mistakes, the first in the order of the fields is the one to give.
            return TrialConfig.parse(value)

    def _part(self, field: str, given: Any) -> Any:
        """One field validated; cells of a grid share those they do not vary, down to the same mapping."""
        last, part = self._last.get(field, (self, None))
        if last is given:
            return part
        name = (field, to_json({field: given}))
        if name not in self._parts:
            self._parts[name] = getattr(TrialConfig.parse({field: given}), field)
        self._last[field] = (given, self._parts[name])
        return self._parts[name]

    def _once(self, function: Callable[..., Any], config: TrialConfig, *parts: Any, of: str = "") -> Any:
        """``function(config)``, which reads no more of it than ``parts``; ``of`` is its second argument, if any."""
        name = (function, of, *map(id, parts))
        if name not in self._facts:
            self._facts[name] = parts, function(config, of) if of else function(config)
        return self._facts[name][1]


def load_trial(value: Mapping[str, Any], where: str = "") -> TrialConfig:
    """Validate a trial config given as plain data, across its parts too.

    ``preset: paper | released`` at the top fills in fields that are not given (:mod:`trainables.presets`).

    Raises:
        ConfigError: one line with the field's path and what is allowed.
    """
    return TrialReader().load(value, where)


def check(config: TrialConfig) -> None:
    """Raise :class:`ConfigError` where fields contradict each other: labels the data lacks, a size the backbone
    refuses, ..."""
    data_set = data_set_of(config)
    tasks = tasks_of(config)
    for task in tasks:
        if task.label not in data_set.labels:
            raise ConfigError(
                f"tasks.set: task '{task.name}' needs the label '{task.label}', "
                f"which data set '{config.data.name}' does not have"
            )
    size = data_set.sizes(config.data)["train"]
    if config.train.batch_size > size:
        raise ConfigError(
            f"train.batch_size: at most the {size} training samples of the data set, got {config.train.batch_size}"
        )
    check_model(config.model, data_set.image_shape(config.data), data_set.inputs)
    method = method_of(config)
    method.check(config.method, [task.name for task in tasks])
    if config.train.compile and method.cuts_trunk(config.method):
        raise ConfigError("train.compile: a compiled trunk is passed back whole, and method.rows is 'streamed'")


def data_set_of(config: TrialConfig) -> type[DataSet]:
    """The data set's class."""
    return DATA_SETS[config.data.name]


def method_of(config: TrialConfig) -> type[Method]:
    """The method's class."""
    return METHODS[config.method.name]


def tasks_of(config: TrialConfig) -> tuple[Task, ...]:
    """The tasks, in the order that gives them their indices."""
    data_set = data_set_of(config)
    return make_tasks(config.tasks, data_set.classes, data_set.ignoring(config.data))


def data_fingerprint(config: TrialConfig) -> str:
    """Hex digest of what decides the data's bits."""
    return data_set_of(config).fingerprint(config.data)


def _stamps(config: TrialConfig) -> dict[str, Any]:
    """By field, what beside its name says which component a config chose; empty where all are this package's own."""
    chosen: dict[str, tuple[Registry[Any], str]] = {
        "data": (DATA_SETS, config.data.name),
        "tasks.set": (TASK_SETS, config.tasks.set),
        "method": (METHODS, config.method.name),
        **method_of(config).components(config.method),
    }
    if config.model.backbone in BACKBONES:
        chosen["model.backbone"] = (BACKBONES, config.model.backbone)
    stamps = {path: registry.stamp(name) for path, (registry, name) in chosen.items()}
    return {path: stamp for path, stamp in stamps.items() if stamp}


def _weights(config: TrialConfig) -> str | None:
    try:
        return weights_fingerprint(config.model)
    except AbsentWeightsError:
        # Planned where they are not: as with data that is not there, the trials have keys of their own.
        return None


def _text_of(config: TrialConfig, field: str) -> str:
    """What a field contributes to the key of a cell, as JSON; empty where it is as by default."""
    if field == "data":
        return _json(data_set_of(config).identity(config.data))
    value = getattr(config, field)
    fields = value.canonical()
    if not fields and value == TrialConfig.model_fields[field].default:
        return ""
    if field == "model" and _weights(config) is not None:
        # The weights themselves count, not where this machine keeps them.
        fields.pop("pretrained", None)
    return _json(fields)


def _around(config: TrialConfig) -> dict[str, str]:
    """What decides the results of a cell beside its config, as JSON."""
    parts: dict[str, Any] = {
        "data": data_fingerprint(config),
        "weights": _weights(config),
        "result_version": RESULT_VERSION,
    }
    if stamps := _stamps(config):
        parts["components"] = stamps
    return {name: _json(value) for name, value in parts.items()}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _object(fields: Mapping[str, str]) -> str:
    """The JSON of a mapping from that of its values, as :func:`_json` would write it."""
    return "{" + ",".join(f'"{name}":{fields[name]}' for name in sorted(fields)) + "}"


def trial_key(config: TrialConfig) -> str:
    """SHA-256 (hex) of everything that decides the trial's results: config without ``record`` and
    ``loading``, data, weights, result version."""
    return TrialReader().keys(config, [config.seed])[1][0]


def cell_key(config: TrialConfig) -> str:
    """The same without the seed: replicates share it."""
    return TrialReader().keys(config, [])[0]
