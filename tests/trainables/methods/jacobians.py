"""Task gradients to test aggregation on: of any scale, with dependent, opposite, equal and missing ones."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

LAW = settings(deadline=None, max_examples=150, derandomize=True)

KINDS = (
    "independent",
    "common",
    "unequal",
    "duplicate",
    "opposite",
    "stationary",
    "few dimensions",
    "zero row",
    "close",
)


def make(kind: str, tasks: int, width: int, exponent: float, seed: int) -> Tensor:
    """(K, d) float64 of norm about ``10 ** exponent``."""
    rng = np.random.default_rng(seed)
    width = 2 if kind == "few dimensions" else max(width, tasks + 2)
    rows = rng.normal(size=(tasks, width))
    if kind == "common":
        rows += 2.0 * rng.normal(size=width)
    if kind == "unequal":
        rows *= 10.0 ** rng.uniform(-4.0, 0.0, size=(tasks, 1))
    if tasks > 1:
        if kind == "duplicate":
            rows[-1] = rows[0]
        if kind == "opposite":
            rows[-1] = -rows[0]
        if kind == "stationary":
            rows[-1] = -(rng.uniform(0.5, 1.5, size=(tasks - 1, 1)) * rows[:-1]).sum(axis=0)
        if kind == "zero row":
            rows[-1] = 0.0
        if kind == "close":
            rows[-1] = rows[0] + 1e-3 * rng.normal(size=width)
    return torch.from_numpy(rows * 10.0**exponent)


def jacobians(*kinds: str, max_tasks: int = 16, min_tasks: int = 1) -> st.SearchStrategy[Tensor]:
    """Of the given kinds, or of all, with gradient norms from 1e-8 to 1e8."""
    return st.builds(
        make,
        st.sampled_from(kinds or KINDS),
        st.integers(min_tasks, max_tasks),
        st.integers(2, 40),
        st.floats(-8.0, 8.0),
        st.integers(0, 2**32 - 1),
    )


REGULAR = ("independent", "common", "unequal")
"""Kinds of linearly independent rows."""
