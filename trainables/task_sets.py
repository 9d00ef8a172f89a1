"""The task sets of the paper and of the field: which tasks, on which labels, with which losses and metrics.

Task and metric names are those of the published tables. Percentages (mIoU, maxF, odsF) run from 0 to 100, as published.
All losses have weight 1 (paper, appendix C); weighting them is a method's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from trainables import losses, metrics
from trainables.data.qm9.properties import PROPERTIES
from trainables.errors import ConfigError, unknown
from trainables.registry import Registry
from trainables.settings import Settings
from trainables.task_options import READERS
from trainables.tasks import FurtherMetric, Loss, Metric, Task, task_set_complaint


class TasksConfig(Settings):
    """Which tasks are trained, and the conventions of their losses and metrics.

    An option that differs from its default where no task of this config reads it is refused: it would make two trials
    of one.
    """

    set: str = "taskonomy"
    """The task set: ``taskonomy``, ``nyud`` or ``pascal_context`` of the paper; ``qm9``; ``nyuv2`` (13 classes, depth,
    normals) or ``cityscapes`` (7 classes, disparity) as MTAN, LibMTL, Nash-MTL and FAMO train and measure them."""

    include: tuple[str, ...] | None = None
    """The tasks to train, in this order; ``None`` for all, in the set's order."""

    normal_loss: Literal["l1", "cosine", "width_axis"] | None = None
    """The loss of surface normals; ``None`` for the set's own: ``cosine`` for ``nyuv2``, ``l1`` for the others. ``l1``:
    L1, as the paper says (Taskonomy: mean over pixels and channels; NYUD-v2 and PASCAL-Context: prediction brought to
    unit length, summed over channels, mean over valid pixels). ``cosine``: one minus the cosine between the normals
    (Mod-Squad, Taskonomy, MTAN). ``width_axis``: the cosine taken along the image's width instead of the channels, a
    mistake of the code released with the paper; Taskonomy only."""

    taskonomy_metrics: Literal["paper", "released"] = "paper"
    """``paper``: L1 of every task, RMSE of curvature. ``released``: as the released code (and Mod-Squad) measures,
    curvature by ``mse`` without the root and Euclidean depth by ``rmse_display``, on an artificial scale from 1 to 80;
    here pooled over the set where that code averages over batches. Its metric of z-buffer depth is the constant 0; that
    stays L1."""

    edge_weight: float = Field(default=0.95, gt=0, lt=1)
    """Weight of an edge pixel in the edge loss; any other weighs one minus it. .95 in InvPT and the released code, .8
    in ATRC on NYUD-v2."""

    absent_classes: Literal["zero", "nan", "drop"] = "zero"
    """What a class that never occurs counts in mIoU: 0 (InvPT and the released code), NaN (MTAN, LibMTL), or nothing
    (torchmetrics). They agree where every class is labelled somewhere."""

    saliency_scores: Literal["softmax", "double_sigmoid"] = "softmax"
    """What maxF thresholds: the probability of salient (ATRC), or, by a mistake of InvPT and the released code, the
    sigmoid of it."""

    edge_thresholds: int = Field(default=19, ge=1, le=255)
    """How many thresholds odsF tries, evenly spaced; 101 for the benchmark's own list, of which 19 are every fifth."""

    edge_max_dist: float | None = Field(default=None, gt=0, lt=1)
    """Tolerance of odsF's matching, as a fraction of the image's diagonal; ``None`` for the benchmark's own: .011 for
    NYUD-v2, .0075 for PASCAL-Context."""

    edge_nms: bool = True
    """Suppress non-maxima before odsF's thresholds, as the benchmark does for ATRC and InvPT; MTI-Net's reader does
    not."""

    edge_truth: Literal["thin", "outline"] = "thin"
    """odsF's true lines: the label's edges thinned, or their outlines thinned, as SEISM's tools do on NYUD-v2 (two
    lines for one)."""

    @field_validator("set")
    @classmethod
    def _known_set(cls, value: str) -> str:
        if value not in TASK_SETS:
            raise ValueError(unknown("task set", value, TASK_SETS))
        return value

    @field_validator("include")
    @classmethod
    def _known_tasks(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is None or "set" not in info.data:
            return value
        entries = TASK_SETS[info.data["set"]]
        if not value:
            raise ValueError(f"at least one task is wanted (allowed: {', '.join(entries)})")
        for index, name in enumerate(value):
            if name not in entries:
                raise ValueError(unknown(f"{info.data['set']} task", name, entries))
            if name in value[:index]:
                raise ValueError(f"task '{name}' is given twice")
        # All tasks in the set's order is what None means; equal configs must be equal.
        return None if value == tuple(entries) else value

    @field_validator("taskonomy_metrics", "edge_weight", "absent_classes", "saliency_scores")
    @classmethod
    def _used_option(cls, value: Any, info: ValidationInfo) -> Any:
        return _used(cls, value, info)

    @field_validator("normal_loss")
    @classmethod
    def _own_normal_loss(cls, value: str | None, info: ValidationInfo) -> Any:
        # The set's own is what None means; equal configs must be equal.
        return _used(cls, None if value == _normal_loss(info.data.get("set", "")) else value, info)

    @field_validator("edge_thresholds", "edge_nms", "edge_truth")
    @classmethod
    def _used_edge_option(cls, value: Any, info: ValidationInfo) -> Any:
        return _used(cls, value, info)

    @field_validator("edge_max_dist")
    @classmethod
    def _own_max_dist(cls, value: float | None, info: ValidationInfo) -> float | None:
        used: float | None = _used(cls, value, info)
        return None if used == _MAX_DIST.get(info.data.get("set", "")) else used


def _normal_loss(task_set: str) -> str:
    """What ``None`` means for ``normal_loss`` in a task set."""
    return "cosine" if task_set == "nyuv2" else "l1"


def _used(cls: type[TasksConfig], value: Any, info: ValidationInfo) -> Any:
    """``value``, if it is the default or some task of the config reads the field."""
    name = cast(str, info.field_name)
    # Where an earlier field is wrong, its own message is the one to give.
    if value == cls.model_fields[name].default or not {"set", "include"} <= info.data.keys():
        return value
    chosen = info.data["set"]
    names = info.data["include"] or tuple(TASK_SETS[chosen])
    readers = READERS[name]
    if value == "width_axis" and chosen != "taskonomy":
        raise ValueError("'width_axis' is a mistake made on task set 'taskonomy' only")
    if not any((chosen, task) in readers for task in names):
        used = ", ".join(sorted({f"{of}.{task}" for of, task in readers}))
        raise ValueError(f"no task of this config reads it (read by: {used})")
    return value


Build = Callable[[TasksConfig, Mapping[str, int]], Task]
"""(config, classes by label) -> the task."""


def task_names(config: TasksConfig) -> tuple[str, ...]:
    """The names of the config's tasks, in their order."""
    return config.include or tuple(TASK_SETS[config.set])


def make_tasks(
    config: TasksConfig, classes: Mapping[str, int], ignoring: Collection[str] = frozenset()
) -> tuple[Task, ...]:
    """The tasks of a config, in their order.

    Args:
        config: which ones, and their conventions.
        classes: the number of classes of each class label that the data set gives: ``semseg``, ``human_parts``,
            ``saliency``.
        ignoring: dense labels that have 255 where a pixel does not count (Taskonomy with a mask).

    Raises:
        ConfigError: a task's class label is missing from ``classes``, or has a number of classes that does not fit; or
            a loss cannot leave out pixels.
    """
    entries = TASK_SETS[config.set]
    tasks = (entries[name](config, classes) for name in task_names(config))
    return tuple(_leaving_out(task) if task.label in ignoring else task for task in tasks)


def _leaving_out(task: Task) -> Task:
    """The dense task whose loss and metric leave out the pixels with 255."""
    if task.loss is losses.cosine_along_width:
        raise ConfigError("tasks.normal_loss: 'width_axis' compares whole rows of pixels and cannot leave out any")
    loss = partial(cast(Callable[..., Tensor], task.loss), ignore=losses.IGNORE)
    further = tuple(replace(each, make=_labelled(each.make)) for each in task.further)
    return replace(task, loss=loss, make_metric=_labelled(task.make_metric), further=further)


def _labelled(make: Callable[[], Metric]) -> Callable[[], Metric]:
    return partial(cast(Callable[..., Metric], make), valid="labelled")


# What MTAN, LibMTL, Nash-MTL and FAMO print beside the metrics of the paper's tables.
_ABSOLUTE_ERROR = FurtherMetric("abs_err", partial(metrics.L1, valid="positive"), higher_is_better=False)
_RELATIVE_ERROR = FurtherMetric("rel_err", metrics.RelativeError, higher_is_better=False)
_ANGLES = (
    FurtherMetric("median_angular_error", metrics.MedianAngularError, higher_is_better=False),
    *(
        FurtherMetric(f"within_{degrees:g}", partial(metrics.WithinAngle, degrees), higher_is_better=True)
        for degrees in (11.25, 22.5, 30.0)
    ),
)


def _dense(config: TasksConfig, classes: Mapping[str, int], *, name: str, short: str, channels: int = 1) -> Task:
    loss: Loss = losses.l1
    metric: str = "l1"
    make_metric: Callable[[], Metric] = metrics.L1
    if name == "principal_curvature":
        loss = losses.mse
        metric, make_metric = ("rmse", metrics.RMSE) if config.taskonomy_metrics == "paper" else ("mse", metrics.MSE)
    elif name == "normal":
        chosen = config.normal_loss or _normal_loss(config.set)
        loss = {"l1": losses.l1, "cosine": losses.cosine, "width_axis": losses.cosine_along_width}[chosen]
    elif name == "depth_euclidean" and config.taskonomy_metrics == "released":
        metric, make_metric = "rmse_display", partial(metrics.RMSE, transform=metrics.display_depth)
    return Task(
        name=name,
        label=name,
        channels=channels,
        loss=loss,
        metric=metric,
        make_metric=make_metric,
        higher_is_better=False,
        short=short,
    )


def _depth(config: TasksConfig, classes: Mapping[str, int]) -> Task:
    return Task(
        name="depth",
        label="depth",
        channels=1,
        loss=losses.depth_l1,
        metric="rmse",
        make_metric=partial(metrics.RMSE, valid="positive"),
        higher_is_better=False,
        short="Depth",
        further=(_ABSOLUTE_ERROR, _RELATIVE_ERROR),
    )


def _absolute_depth(config: TasksConfig, classes: Mapping[str, int]) -> Task:
    return replace(
        _depth(config, classes),
        metric=_ABSOLUTE_ERROR.name,
        make_metric=_ABSOLUTE_ERROR.make,
        further=(_RELATIVE_ERROR,),
    )


def _normals(config: TasksConfig, classes: Mapping[str, int], *, name: str = "normals") -> Task:
    chosen = config.normal_loss or _normal_loss(config.set)
    return Task(
        name=name,
        label="normal",
        channels=3,
        loss=losses.normal_l1 if chosen == "l1" else losses.cosine,
        metric="mean_angular_error",
        make_metric=metrics.MeanAngularError,
        higher_is_better=False,
        short="Normal",
        further=_ANGLES,
    )


def _edge(config: TasksConfig, classes: Mapping[str, int]) -> Task:
    return Task(
        name="edge",
        label="edge",
        channels=1,
        loss=partial(losses.edge_bce, positive_weight=config.edge_weight),
        metric="odsf",
        make_metric=partial(
            metrics.OdsF,
            max_dist=_MAX_DIST[config.set] if config.edge_max_dist is None else config.edge_max_dist,
            thresholds=config.edge_thresholds,
            nms=config.edge_nms,
            truth=config.edge_truth,
        ),
        higher_is_better=True,
        short="Edge",
    )


def _classes(config: TasksConfig, classes: Mapping[str, int], *, name: str, short: str) -> Task:
    count = _class_count(classes, name)
    return Task(
        name=name,
        label=name,
        channels=count,
        loss=losses.cross_entropy,
        metric="miou",
        make_metric=partial(metrics.MeanIoU, classes=count, absent_classes=config.absent_classes),
        higher_is_better=True,
        short=short,
        further=(
            FurtherMetric("pixel_accuracy", partial(metrics.PixelAccuracy, classes=count), higher_is_better=True),
        ),
    )


def _saliency(config: TasksConfig, classes: Mapping[str, int]) -> Task:
    if _class_count(classes, "saliency") != 2:
        raise ConfigError(f"task 'saliency' wants labels of 2 classes, the data set gives {classes['saliency']}")
    return Task(
        name="saliency",
        label="saliency",
        channels=2,
        loss=losses.balanced_cross_entropy,
        metric="maxf",
        make_metric=partial(metrics.MaxF, scores=config.saliency_scores),
        higher_is_better=True,
        short="Saliency",
    )


def _property(config: TasksConfig, classes: Mapping[str, int], *, name: str, short: str) -> Task:
    return Task(
        name=name,
        label=name,
        channels=1,
        loss=losses.standardized_mse,
        metric="mae",
        make_metric=metrics.MAE,
        higher_is_better=False,
        short=short,
    )


def _class_count(classes: Mapping[str, int], label: str) -> int:
    """How many classes a label has; raises :class:`ConfigError` where the data set does not give it."""
    if label not in classes:
        given = ", ".join(sorted(classes)) or "none"
        raise ConfigError(
            f"task '{label}' wants class labels '{label}', which the data set does not give (given: {given})"
        )
    if classes[label] < 2:
        raise ConfigError(f"task '{label}' wants labels of at least 2 classes, the data set gives {classes[label]}")
    return classes[label]


_SEMSEG = partial(_classes, name="semseg", short="Semseg")

_MAX_DIST = {"nyud": 0.011, "pascal_context": 0.0075}
"""The benchmark's tolerance of edges, as a fraction of the image's diagonal."""

# In the order of the published tables.
_TASKONOMY: dict[str, Build] = {
    name: partial(_dense, name=name, short=short, channels=channels)
    for name, short, channels in (
        ("depth_euclidean", "DE", 1),
        ("depth_zbuffer", "DZ", 1),
        ("edge_occlusion", "EO", 1),
        ("edge_texture", "ET", 1),
        ("keypoints2d", "K2", 1),
        ("keypoints3d", "K3", 1),
        ("normal", "N", 3),
        ("principal_curvature", "C", 2),
        ("reshading", "R", 3),
        ("segment_unsup2d", "S2", 1),
        ("segment_unsup25d", "S2.5", 1),
    )
}
_NYUD: dict[str, Build] = {
    "semseg": _SEMSEG,
    "depth": _depth,
    "normals": _normals,
    "edge": _edge,
}
_PASCAL_CONTEXT: dict[str, Build] = {
    "semseg": _SEMSEG,
    "human_parts": partial(_classes, name="human_parts", short="Parsing"),
    "saliency": _saliency,
    "normals": _normals,
    "edge": _edge,
}
_QM9: dict[str, Build] = {p.name: partial(_property, name=p.name, short=p.short) for p in PROPERTIES}
# MTAN (Liu et al. 2019), whose conventions LibMTL, Nash-MTL and FAMO keep. Of its several metrics a task, the first is
# the one that Delta_m rests on.
_NYUV2: dict[str, Build] = {
    "semseg": _SEMSEG,
    "depth": _absolute_depth,
    "normal": partial(_normals, name="normal"),
}
_CITYSCAPES: dict[str, Build] = {
    "semseg": _SEMSEG,
    "depth": _absolute_depth,
}

TASK_SETS: Registry[Mapping[str, Build]] = Registry("task set", "mtl_study.task_sets", task_set_complaint)
"""Task set to its tasks, each with what builds it, in the set's order."""
TASK_SETS.register("taskonomy", _TASKONOMY)
TASK_SETS.register("nyud", _NYUD)
TASK_SETS.register("pascal_context", _PASCAL_CONTEXT)
TASK_SETS.register("nyuv2", _NYUV2)
TASK_SETS.register("cityscapes", _CITYSCAPES)
TASK_SETS.register("qm9", _QM9)
