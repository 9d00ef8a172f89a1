"""Who is measured, and the least that each can cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from benchmarks.comparisons import TORCHJD_NAMES, PlainPattern, has_torchjd, torchjd_pattern
from benchmarks.workbench import Make
from trainables.errors import ConfigError
from trainables.kernels import check_compiles
from trainables.methods import METHODS, Method, Update

Family = Literal["gd", "loss", "famo", "gradient", "streamed", "selective", "plain", "stacked", "torchjd"]

GRADIENT_BASED = tuple(TORCHJD_NAMES)
"""In the order in which they are measured; memory and the stacked pattern are measured for the first one asked for."""
LOSS_BASED = ("uw", "dtp", "dwa", "imtl_l")


@dataclass(frozen=True)
class Contestant:
    """One method, or one way to write it.

    Attributes:
        label: its row in the table.
        family: what its floor and targets are.
        make: builds it.
        of: for a comparison, the method it does the same as.
        memory: whether its peak memory is measured; that of one comparison stands for its kind.
    """

    label: str
    family: Family
    make: Make
    of: str = ""
    memory: bool = True

    def floor(self, tasks: int, groups: float) -> float:
        """Least cost in steps of gradient descent, from passes through the trunk alone, a backward counted as two
        forwards; decoders, losses, optimizer steps and the aggregation itself come on top."""
        if self.family == "famo":
            return 4 / 3
        if self.family in {"gradient", "plain", "stacked", "torchjd"}:
            return (1 + 2 * tasks) / 3
        if self.family == "streamed":
            return (3 + 2 * tasks) / 3
        return groups if self.family == "selective" else 1.0


def contestants(tasks: int, only: Sequence[str] | None, *, comparisons: bool, device: str = "cpu") -> list[Contestant]:
    """All of them for K tasks; ``only`` names methods to keep beside gradient descent, with their comparisons. One
    that has to be compiled for ``device`` is left out where nothing does."""
    kept = [name for name in (*LOSS_BASED, "famo", *GRADIENT_BASED, "selective") if only is None or name in only]
    out = [Contestant("gd", "gd", _method("gd"))]
    out += [Contestant(name, "loss", _method(name)) for name in kept if name in LOSS_BASED]
    out += [Contestant("famo", "famo", _method("famo")) for name in kept if name == "famo"]
    gradient = [name for name in kept if name in GRADIENT_BASED]
    out += [Contestant(name, "gradient", _method(name)) for name in gradient]
    if "mgda" in gradient:
        out.append(Contestant("mgda, streamed rows", "streamed", _method("mgda", rows="streamed")))
    if "graddrop" in gradient and compiles(device):
        out.append(Contestant("graddrop, fused", "gradient", _method("graddrop", fused=True)))
    if "selective" in kept:
        out += _selective(tasks)
    if comparisons:
        for name in gradient:
            first = name == gradient[0]
            out.append(Contestant(f"{name} (plain)", "plain", _plain(name), name, first))
            if first:
                # What it costs more than the plain pattern is the same whatever is made of the rows.
                stacked = _plain(name, stacked=True)
                out.append(Contestant(f"{name} (plain, stacked)", "stacked", stacked, name))
            if has_torchjd():
                out.append(Contestant(f"{name} (TorchJD)", "torchjd", _torchjd(name), name, first))
        if "mgda" in gradient and has_torchjd():
            out.append(Contestant("mgda (TorchJD, lean)", "torchjd", _torchjd("mgda", lean=True), "mgda"))
    return out


def compiles(device: str) -> bool:
    """Whether ``torch.compile`` works here."""
    try:
        check_compiles("graddrop, fused", torch.device(device))
    except ConfigError:
        return False
    return True


def _selective(tasks: int) -> list[Contestant]:
    groupings: dict[str, dict[str, Any]] = {
        f"M={count}": {"grouping": {"name": "random", "groups": count}}
        for count in sorted({2, round(tasks / 3), tasks} - {1})
    }
    groupings["adaptive"] = {"grouping": "adaptive"}
    propagated = {"grouping": {"name": "adaptive", "clusterer": "affinity_propagation"}}
    groupings["affinity propagation, last group unmeasured"] = {**propagated, "last_group": "unmeasured"}
    return [
        Contestant(f"selective, {label}", "selective", _method("selective", **fields))
        for label, fields in groupings.items()
    ]


def _method(name: str, **fields: Any) -> Make:
    def make(update: Update) -> Method:
        cls = METHODS[name]
        return cls(cls.Config.parse({"name": name, **fields}, "method"), update, 0)

    return make


def _plain(name: str, *, stacked: bool = False) -> Make:
    return lambda update: PlainPattern("imtl_g" if name == "imtl" else name, update, stacked=stacked)


def _torchjd(name: str, *, lean: bool = False) -> Make:
    return lambda update: torchjd_pattern(name, update, lean=lean)
