"""Selective task group updates (Jeong & Yoon, ICLR 2025). A new grouping or clusterer is one class and one line
here."""

from trainables.methods.selective.affinity import AffinityMap, credited_values, relative_change
from trainables.methods.selective.clusterers import (
    CLUSTERERS,
    AffinityPropagation,
    Clusterer,
    ClustererConfig,
    PositiveAffinity,
)
from trainables.methods.selective.grouping import (
    GROUPINGS,
    Adaptive,
    Fixed,
    Grouping,
    GroupingConfig,
    Heterogeneous,
    Joint,
    RandomGroups,
    Separate,
)
from trainables.methods.selective.method import Selective, SelectiveConfig
from trainables.methods.selective.partition import Groups
from trainables.methods.selective.presets import PAPER, RELEASED

CLUSTERERS.register("affinity_propagation", AffinityPropagation)
CLUSTERERS.register("positive_affinity", PositiveAffinity)

GROUPINGS.register("adaptive", Adaptive)
GROUPINGS.register("fixed", Fixed)
GROUPINGS.register("heterogeneous", Heterogeneous)
GROUPINGS.register("joint", Joint)
GROUPINGS.register("random", RandomGroups)
GROUPINGS.register("separate", Separate)

__all__ = [
    "CLUSTERERS",
    "GROUPINGS",
    "PAPER",
    "RELEASED",
    "AffinityMap",
    "Clusterer",
    "ClustererConfig",
    "Grouping",
    "GroupingConfig",
    "Groups",
    "Selective",
    "SelectiveConfig",
    "credited_values",
    "relative_change",
]
