"""The two readings of the method, as values of its config fields.

What differs outside the method (the decoders' learning rate, the sampler's seed, the batch size) belongs to the trial
config. What is a defect and not a choice (nothing saved for a resume, a division by zero that raises) is not
reproduced.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

PAPER: Final[Mapping[str, Any]] = MappingProxyType({})
"""Jeong & Yoon, ICLR 2025, sections 3.2 and 3.3: the defaults."""

RELEASED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "beta": 1e-3,
        "grouping.name": "adaptive",
        "grouping.clusterer.name": "affinity_propagation",
        "grouping.clusterer.preference": "median",
        "grouping.normalize": "self_upper",
        "grouping.regroup_every": 1,
        "grouping.warmup": 101,
        "order": "random",
        "credit": "next",
        "last_group": "unmeasured",
        "scale": "group_size",
        "self_entries": "nonnegative",
        "opposite_signs": "negative_maximum",
        "single_group": "twice",
        "frozen_heads": "momentum",
        "group_loss": "sum",
    }
)
"""github.com/wooseong97/sel-update-mtl at 53a8ba2: dotted path of a field, from the method's config, to the value it
has there."""
