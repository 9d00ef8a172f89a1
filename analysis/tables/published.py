"""The places the paper prints a plan's rows at, and which of them may stand in one column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from analysis import reference
from analysis.plan import Plan, PlanRow
from trainables.errors import ConfigError

_DATASETS = {"taskonomy": "Taskonomy", "nyud": "NYUD-v2", "pascal_context": "PASCAL-Context"}


@dataclass(frozen=True)
class Place:
    """One row of one published table.

    Attributes:
        table: as :mod:`analysis.reference` keys it.
        row: as the paper names it.
        dataset: what it was measured on.
        backbone: ``ViT-L``; empty where the paper does not name it.
    """

    table: str
    row: str
    dataset: str
    backbone: str

    @property
    def paper_table(self) -> str:
        """The table's number: ``4`` for ``4:grouping``."""
        return self.table.partition(":")[0]

    @property
    def dataset_name(self) -> str:
        """As the field writes it."""
        return _DATASETS.get(self.dataset, self.dataset)

    @property
    def setting(self) -> str:
        """What published numbers must share to be compared: ``Taskonomy ViT-L``."""
        return f"{self.dataset_name} {self.backbone}".strip()

    @property
    def delta_m(self) -> float:
        """Printed, in percent; NaN for a dash."""
        return reference.published_delta_m(self.table, self.row, self.dataset)

    @property
    def spread(self) -> float:
        """Printed; NaN where there is none."""
        return reference.published_spread(self.table, self.row, self.dataset)

    @property
    def recomputed(self) -> float:
        """From the printed task numbers, in percent; NaN where they are not printed."""
        return reference.recomputed_delta_m(self.table, self.row, self.dataset)


def places_of(plan: Plan, row: PlanRow) -> tuple[list[Place], list[str]]:
    """Every place a row is printed at, and what is wrong with references that lead nowhere, one line each.

    A wrong reference must not hide what was measured, so it is told and not raised. The reference names the data set,
    or the plan's task set does; a table that covers one needs neither.
    """
    places: list[Place] = []
    problems: list[str] = []
    for published in row.published:
        try:
            datasets = reference.published_datasets(published.table)
            dataset = published.dataset or (plan.task_set if plan.task_set in datasets else None)
            backbone = reference.published_backbone(published.table, published.row, dataset)
        except ConfigError as error:
            problems.append(f"{row.label}: {error}")
        else:
            places.append(Place(published.table, published.row, dataset or datasets[0], backbone))
    return places, problems


def settings_of(plan: Plan) -> dict[str, str]:
    """The settings of all published numbers of a plan, in order of appearance, and what to call each.

    Where there is one data set, the backbone names the setting: ``Taskonomy ViT-L`` to ``ViT-L``.
    """
    places = [place for row in plan.rows for place in places_of(plan, row)[0]]
    one_dataset = len({place.dataset for place in places}) < 2
    return {place.setting: (place.backbone if one_dataset else "") or place.setting for place in places}


def suffix(setting: str) -> str:
    """Of the columns of a setting: ``ViT-L`` to ``_vit_l``."""
    return "_" + re.sub(r"[^a-z0-9]+", "_", setting.lower())
