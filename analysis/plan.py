"""A plan of a study as its run records it (``plan.json``): rows, trials, tasks, and where the published numbers are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trainables.errors import StoreError


class _Record(BaseModel):
    """Frozen and strict about what it knows; fields a later writer adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PlanTask(_Record):
    """One task of the study's task set."""

    name: str
    """As metrics are named by it."""
    metric: str
    """The metric tables report."""
    higher_is_better: bool
    """Its direction."""
    short: str
    """Its abbreviation in tables."""


class PublishedRow(_Record):
    """Where the paper prints a row."""

    table: str
    """``4:grouping``, ``D.5``, ...; see ``published/README.md``."""
    row: str
    """As the paper names it."""
    dataset: str | None = None
    """Needed only for a table that covers several; the study's task set otherwise."""


class PlanCell(_Record):
    """One trial of a row."""

    seed: int
    """Of the trial."""
    trial_key: str
    """What its run is found by, whichever study trained it."""
    cell_key: str
    """The same for all seeds of the cell."""
    tasks: tuple[str, ...]
    """What it trains: one task for a single-task baseline, all of them for the rest."""


class PlanRow(_Record):
    """One row of the table: a cell at every seed, or one per task at every seed."""

    id: str
    """Unique in the plan."""
    label: str
    """As tables show it."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """What was varied, by axis."""
    published: tuple[PublishedRow, ...] = ()
    """Where the paper prints it, perhaps in several tables."""
    cells: tuple[PlanCell, ...]
    """Every trial; a seed's result is the union of its cells' tasks."""

    @field_validator("published", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """One reference may stand without its list, none as null."""
        if value is None:
            return ()
        return (value,) if isinstance(value, dict) else value


class Plan(_Record):
    """A study, expanded."""

    schema_version: Literal[1] = Field(alias="schema")
    """Of ``plan.json``."""
    study: str
    """Its id."""
    title: str
    """One line."""
    about: str = ""
    """What it asks, in a few sentences."""
    profile: str
    """The scale it ran at."""
    seeds: tuple[int, ...]
    """Of every row."""
    task_set: str
    """Its name: ``taskonomy``, ``nyud``, ..."""
    tasks: tuple[PlanTask, ...] = Field(min_length=1)
    """In the order of the table."""
    baseline: str | None = None
    """The row Delta_m is taken against; without one there is no Delta_m."""
    rows: tuple[PlanRow, ...]
    """In the order of the table."""

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        ids = [row.id for row in self.rows]
        names = [task.name for task in self.tasks]
        for what, found in (("row", ids), ("task", names)):
            twice = [name for name, count in Counter(found).items() if count > 1]
            if twice:
                raise ValueError(f"{what} '{twice[0]}' is listed twice")
        if self.baseline is not None and self.baseline not in ids:
            raise ValueError(f"baseline '{self.baseline}' is no row of it")
        for row in self.rows:
            trained = Counter((cell.seed, task) for cell in row.cells for task in cell.tasks)
            for (seed, task), count in trained.items():
                if task not in names:
                    raise ValueError(f"row '{row.id}' trains '{task}', which is no task of it")
                if count > 1:
                    raise ValueError(f"row '{row.id}' trains '{task}' twice at seed {seed}")
        return self

    def row(self, row_id: str) -> PlanRow:
        """The row of that id; ``KeyError`` where there is none."""
        return {row.id: row for row in self.rows}[row_id]


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        StoreError: it cannot be read, or is not a plan of a layout known here.
    """
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path.name}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path.name}: {where + ': ' if where else ''}{first['msg']}") from error
