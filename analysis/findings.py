"""One thing found wrong in the published numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.rounding import Interval

IMPOSSIBLE = "impossible"
"""No numbers that round to what is printed agree."""

IMPROBABLE = "improbable"
"""Numbers that agree exist, but rounding errors would have to conspire, or two methods
to agree in every digit."""

CARE = "care"
"""May be right, and is not what a reader would take it for."""

NOTHING = Interval(math.nan, math.nan)
"""No interval."""


@dataclass(frozen=True)
class Finding:
    """One thing that cannot be right.

    Attributes:
        table: of the paper, or ``text``.
        dataset: empty where it matters not.
        row: as the paper names it; empty for the whole table or text.
        kind: ``delta_m``, ``repeated``, ``base``, ``text`` as in ``published/README.md``; ``total`` where parts do not
            add up; ``elsewhere`` where a run printed twice has two results.
        note: one line.
        certainty: :data:`IMPOSSIBLE`, :data:`IMPROBABLE` or :data:`CARE`.
        printed: the printed number, where there is one.
        recomputed: what the other printed numbers give.
        range: what they give for all numbers that round to them.
        chance: at most how probable rounding makes the gap, after Holm's correction over all rows.
    """

    table: str
    dataset: str
    row: str
    kind: str
    note: str
    certainty: str = IMPOSSIBLE
    printed: float = math.nan
    recomputed: float = math.nan
    range: Interval = NOTHING
    chance: float = math.nan
