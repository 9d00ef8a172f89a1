"""The measurements as a table, and what they say about each target."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.contestants import Contestant
from benchmarks.workbench import Step
from trainables.clock import BACKWARD, CLUSTERING, FORWARD, MANIPULATION, OPTIMIZER

Measure = Callable[["Row"], float]

COLUMNS = (
    "method",
    "floor",
    "ratio",
    "min-max",
    "of floor",
    "ms",
    "forward",
    "backward",
    "manipulation",
    "optimizer",
    "clustering",
    "to plain",
    "to stacked",
    "to TorchJD",
    "peak MB",
    "rows over GD",
    "published",
)
_SHOWN = (FORWARD, BACKWARD, MANIPULATION, OPTIMIZER, CLUSTERING)
_PUBLISHED = Path(__file__).parent.parent / "analysis" / "published" / "step_seconds.csv"
_PUBLISHED_NAMES = {
    "gd": "GD",
    "uw": "UW",
    "dtp": "DTP",
    "dwa": "DWA",
    "famo": "FAMO",
    "graddrop": "GradDrop",
    "mgda": "MGDA",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "aligned_mtl": "Aligned-MTL",
    "nash_mtl": "Nash-MTL",
    "imtl": "IMTL",
}
_PUBLISHED_TASKS = 11


@dataclass(frozen=True)
class Row:
    """One contestant at one number of tasks.

    Attributes:
        who: the contestant.
        tasks: K.
        steps: measured, by round.
        gd: gradient descent's, by round.
        peak: bytes; ``None`` where not measured.
        stacks_over_gd: peak memory above gradient descent's, in stacks of one gradient of the trunk per task.
        peak_to_gd: peak memory as a share of gradient descent's.
        own_bytes: what the method remembers between steps beside what gradient descent does.
        stacks_beside_own: ``stacks_over_gd`` without those.
    """

    who: Contestant
    tasks: int
    steps: Mapping[int, Step]
    gd: Mapping[int, Step]
    peak: int | None = None
    stacks_over_gd: float | None = None
    peak_to_gd: float | None = None
    own_bytes: int = 0
    stacks_beside_own: float | None = None

    @property
    def ratios(self) -> list[float]:
        """To gradient descent of the same round."""
        return [step.seconds / self.gd[index].seconds for index, step in self.steps.items()]

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return median(self.ratios)

    @property
    def groups(self) -> float:
        """Mean number of groups."""
        return fmean(step.groups for step in self.steps.values())

    @property
    def floor(self) -> float:
        """Least cost; see :meth:`benchmarks.contestants.Contestant.floor`."""
        return self.who.floor(self.tasks, self.groups)

    @property
    def of_floor(self) -> float:
        """Median over the rounds of the ratio to the floor; the number of groups is the round's own."""
        floors = [self.who.floor(self.tasks, step.groups) for step in self.steps.values()]
        return median(ratio / floor for ratio, floor in zip(self.ratios, floors, strict=True))

    def share(self, phase: str) -> float:
        """Of the step's time, median over the rounds."""
        return median(step.phases[phase] / step.seconds for step in self.steps.values())

    def milliseconds(self, phase: str | None = None) -> float:
        """Of the step or a phase, median over the rounds."""
        values = (step.seconds if phase is None else step.phases[phase] for step in self.steps.values())
        return 1e3 * median(values)

    def to(self, other: Row) -> float:
        """Median over the rounds both were measured in of this one's time to the other's."""
        common = self.steps.keys() & other.steps.keys()
        return median(self.steps[index].seconds / other.steps[index].seconds for index in common)


def markdown(rows: Sequence[Row]) -> str:
    """The rows of one number of tasks as a table; times in milliseconds, medians over the rounds."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|:---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(_cells(row, rows)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    others = [counterparts(row, rows, family) for family in ("plain", "stacked", "torchjd")]
    published = _published(row)
    return [
        row.who.label,
        f"{row.floor:.2f}",
        f"{row.ratio:.3f}",
        f"{min(row.ratios):.2f}-{max(row.ratios):.2f}",
        f"{row.of_floor:.3f}",
        f"{row.milliseconds():.1f}",
        *(f"{row.milliseconds(phase):.1f}" for phase in _SHOWN),
        *(_number(max((row.to(other) for other in kind), default=None), 3) for kind in others),
        _number(None if row.peak is None else row.peak / 1e6, 1),
        _number(row.stacks_over_gd, 3),
        _number(published, 2),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def counterparts(row: Row, rows: Sequence[Row], family: str) -> list[Row]:
    """The comparisons of one kind that do what ``row`` does, whichever way."""
    name = row.who.label.partition(",")[0]
    return [other for other in rows if other.who.family == family and other.who.of == name]


def _published(row: Row) -> float | None:
    """Seconds of a step to gradient descent's in the paper's Table E.1, eleven tasks on a GPU."""
    name = _PUBLISHED_NAMES.get(row.who.label)
    if row.tasks != _PUBLISHED_TASKS:
        return None
    with _PUBLISHED.open(encoding="utf-8", newline="") as file:
        totals = {line["row"]: float(line["seconds"]) for line in csv.DictReader(file) if line["phase"] == "total"}
    return totals[name] / totals["GD"] if name in totals else None


@dataclass(frozen=True)
class Target:
    """A bound on one number of every row it concerns."""

    text: str
    bound: float
    values: Sequence[tuple[str, float]]

    def verdict(self) -> str:
        """Met or missed, with the worst number and every row that misses."""
        if not self.values:
            return f"- {self.text}: not measured"
        worst = max(self.values, key=lambda item: item[1])
        missed = [f"{label} {value:.3f}" for label, value in self.values if value > self.bound]
        if missed:
            return f"- {self.text}: **missed** by {len(missed)} of {len(self.values)}: {', '.join(missed)}"
        return f"- {self.text}: met by all {len(self.values)}, largest {worst[1]:.3f} ({worst[0]})"


def verdicts(rows: Sequence[Row]) -> str:
    """One line per target."""
    tasks = rows[0].tasks
    by_family = {family: [row for row in rows if row.who.family == family] for family in ("loss", "famo", "gradient")}
    gradient = by_family["gradient"]
    selective, streamed = ([row for row in rows if row.who.family == family] for family in ("selective", "streamed"))
    targets = [
        Target("loss-based: time to GD at most 1.02", 1.02, _each(by_family["loss"], lambda row: row.ratio)),
        Target("FAMO: time to GD at most 1.40", 1.40, _each(by_family["famo"], lambda row: row.ratio)),
        Target("gradient-based: time to floor at most 1.05", 1.05, _each(gradient, lambda row: row.of_floor)),
        Target("gradient-based: time to the plain pattern at most 0.85", 0.85, _against(gradient, rows, "plain")),
        Target(
            "gradient-based: time to it with stacked losses at most 0.85", 0.85, _against(gradient, rows, "stacked")
        ),
        Target("gradient-based: time to TorchJD at most 0.85", 0.85, _against(gradient, rows, "torchjd")),
        Target("streamed rows: time to (3 + 2K)/3 at most 1.00", 1.0, _each(streamed, lambda row: row.of_floor)),
        Target("selective: time to M x GD at most 1.03", 1.03, _each(selective, lambda row: row.of_floor)),
        Target(
            "selective: affinity and clustering at most 0.02 of the step",
            0.02,
            _each(selective, lambda row: row.share(CLUSTERING)),
        ),
        Target(
            f"gradient-based: peak memory at most GD and 1 stack of K rows{_own(gradient)}",
            1.0,
            [(row.who.label, row.stacks_beside_own) for row in gradient if row.stacks_beside_own is not None],
        ),
        Target(
            "selective: peak memory to GD at most 1.05",
            1.05,
            [(row.who.label, row.peak_to_gd) for row in selective if row.peak_to_gd is not None],
        ),
    ]
    if tasks == _PUBLISHED_TASKS:
        share = _each(gradient, lambda row: row.share(MANIPULATION))
        targets.insert(6, Target("gradient-based: manipulation at most 0.03 of the step", 0.03, share))
    return "\n".join(target.verdict() for target in targets)


def _own(rows: Iterable[Row]) -> str:
    """What the comparison of memory leaves out: numbers that are the method itself, not its way to them."""
    own = [f"{row.who.label} {row.own_bytes} bytes" for row in rows if row.own_bytes]
    return f", beside what a method remembers ({', '.join(own)})" if own else ""


def _each(rows: Iterable[Row], value: Measure) -> list[tuple[str, float]]:
    return [(row.who.label, value(row)) for row in rows]


def _against(rows: Iterable[Row], all_rows: Sequence[Row], family: str) -> list[tuple[str, float]]:
    """Each row's time to the fastest counterpart of one kind."""
    out = []
    for row in rows:
        others = counterparts(row, all_rows, family)
        if others:
            out.append((row.who.label, max(row.to(other) for other in others)))
    return out
