"""What every solver does first and last: check, scale, leave out inactive tasks, put their zeros back.

All weights are computed in float64 on the CPU from ``G = J J^T``, (K, K), the inner products of the task gradients. The
solvers see ``G`` divided by its trace, and as a correlation matrix beside the norms, so that neither the gradients'
common scale nor a factor between tasks costs digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

INACTIVE = 1e-12
"""A task whose gradient norm is at most this share of the largest one is inactive."""


@dataclass(frozen=True)
class SolverInfo:
    """How a solver fared.

    Attributes:
        residual: largest violation of the conditions that define the weights, relative to the size of their terms.
        iterations: of the solver; 0 for a closed form.
        inactive: tasks left out because their gradient is zero beside the largest.
        conflicts: pairs of active tasks whose gradients have a negative inner product.
        finite: whether all gradients were finite; where not, the weights are zero and the step is to be skipped.
        fallback: whether the method's own definition has no solution here, and its documented substitute was taken.
    """

    residual: float = 0.0
    iterations: int = 0
    inactive: int = 0
    conflicts: int = 0
    finite: bool = True
    fallback: bool = False


@dataclass(frozen=True)
class Problem:
    """The Gramian of the active tasks, scaled.

    Attributes:
        correlation: (K, K) cosines between the gradients, positive semidefinite, unit diagonal.
        norms: (K,) gradient norms, in units in which their squares add up to 1.
        active: (N,) bool: which of all N tasks these are.
        epsilon: rounding of one entry of ``correlation``.
    """

    correlation: Array
    norms: Array
    active: npt.NDArray[np.bool_]
    epsilon: float

    @property
    def size(self) -> int:
        """Active tasks."""
        return len(self.norms)

    @property
    def gramian(self) -> Array:
        """(K, K) of trace 1."""
        scaled: Array = self.correlation * np.outer(self.norms, self.norms)
        return scaled

    @cached_property
    def directions(self) -> Array:
        """(K, K) rows with the Gramian ``correlation``: the unit gradients, in a basis of their own."""
        values, vectors = self.spectrum
        # Where gradients are dependent, rounding leaves eigenvalues of either sign instead of zeros, and their roots
        # would be no rounding any more.
        rounding = 2.0 * self.size * float(np.finfo(np.float64).eps) * values[-1]
        rows: Array = vectors * np.sqrt(np.where(values > rounding, values, 0.0))
        return rows

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """(K,) eigenvalues of ``correlation``, ascending, and its eigenvectors (K, K) as columns."""
        values, vectors = np.linalg.eigh(self.correlation)
        return values, vectors

    @cached_property
    def rank(self) -> int:
        """Of the gradients, as far as the rounding of their inner products lets it be told."""
        values = self.spectrum[0]
        return int((values > 8.0 * self.size * self.epsilon * values[-1]).sum())


Core = Callable[[Problem], tuple[Array, SolverInfo]]
"""Weights (K,) of the active tasks, for gradients whose Gramian has trace 1."""


def solve(
    gramian: Array | Tensor, core: Core, *, degree: int = 1, epsilon: float | None = None
) -> tuple[Array, SolverInfo]:
    """Weights (N,) of all tasks by ``core``, and how it went. Raises nothing, whatever the numbers are.

    Args:
        gramian: (N, N) inner products of the task gradients, of any scale.
        core: the solver for the active tasks.
        degree: d is homogeneous of this degree in the gradients; the weights are so of one less.
        epsilon: relative rounding of the Gramian's entries; of float64 where not given.
    """
    full = gramian.detach().cpu().double().numpy() if isinstance(gramian, Tensor) else np.asarray(gramian, np.float64)
    weights = np.zeros(len(full))
    if not np.isfinite(full).all():
        return weights, SolverInfo(finite=False)
    squares = np.maximum(np.diagonal(full), 0.0)
    norms = np.sqrt(squares)
    active = norms > INACTIVE * norms.max(initial=0.0)
    inactive = int(len(full) - active.sum())
    if inactive == len(full):
        return weights, SolverInfo(inactive=inactive)
    kept = norms[active]
    correlation = full[np.ix_(active, active)] / kept / kept[:, None]
    # Two roundings of one product need not agree, and a cosine may come out above 1.
    correlation = np.clip(0.5 * (correlation + correlation.T), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    unit = float(np.linalg.norm(kept))
    problem = Problem(correlation, kept / unit, active, float(np.finfo(np.float64).eps) if epsilon is None else epsilon)
    try:
        found, info = core(problem)
    except np.linalg.LinAlgError:
        found, info = np.full(len(kept), np.nan), SolverInfo()
    if not np.isfinite(found).all():
        # No solver here is known to end so; training goes on as gradient descent on the mean, and it is counted.
        found, info = np.full(len(kept), 1.0 / len(full)), SolverInfo(residual=1.0, fallback=True)
    weights[active] = found * unit ** (degree - 1)
    conflicts = int((np.triu(correlation, 1) < 0.0).sum())
    return weights, replace(info, inactive=inactive, conflicts=conflicts)


def epsilon_of(dtype: torch.dtype) -> float:
    """Relative rounding of a Gramian accumulated in ``dtype``."""
    return float(torch.finfo(dtype).eps)
