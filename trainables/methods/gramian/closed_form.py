"""Weights that need no iteration: IMTL-G, Aligned-MTL, PCGrad."""

from __future__ import annotations

from typing import Literal

import numpy as np

from trainables.methods.gramian.problem import Array, Problem, SolverInfo

ScaleMode = Literal["min", "median", "rmse"]


def imtl_g(problem: Problem) -> tuple[Array, SolverInfo]:
    """Weights of sum 1 whose d has equal projections onto all gradients (Liu et al., ICLR 2021, section 3.1).

    In closed form ``w ~ G^+ diag(G)^(1/2)``, here on cosines. Dependent gradients that leave no equal projections but 0
    (opposite ones) get the w with d = 0. Where the solution has weights of sum 0, it cannot be scaled to sum 1: the
    weights are then 1/K, and ``fallback`` says so.

    The residual is the largest difference between a projection and their mean, relative to ``sum_k |w_k| |g_k|``.
    """
    values, vectors = problem.spectrum
    null = problem.size - problem.rank
    ones = vectors.sum(axis=0)
    if float(ones[:null] @ ones[:null]) > 1e-8 * problem.size:
        scaled = vectors[:, :null] @ ones[:null]
    else:
        scaled = vectors[:, null:] @ (ones[null:] / values[null:])
    weights = scaled / problem.norms
    total = float(weights.sum())
    if abs(total) <= 1e-12 * float(np.abs(weights).sum()):
        return np.full(problem.size, 1.0 / problem.size), SolverInfo(residual=1.0, fallback=True)
    projections = problem.correlation @ scaled
    residual = float(np.abs(projections - projections.mean()).max() / np.abs(scaled).sum())
    return weights / total, SolverInfo(residual=residual)


def aligned_mtl(problem: Problem, scale_mode: ScaleMode = "min") -> tuple[Array, SolverInfo]:
    """Weights of the sum of the aligned gradients: ``w = s V L^(-1/2) V^T 1`` with ``G = V L V^T`` (Senushkin et al.,
    CVPR 2023, eq. 14 and algorithm 1).

    ``L`` holds as many eigenvalues as the gradients have rank. ``s`` is the root of the smallest of them (``min``, the
    paper's), of their median or of their mean, the two further modes of the released code. That code reads the rank off
    G in float32 and so drops tasks whose gradients are some thousand times smaller than others; here it is read off the
    cosines, and no task is dropped for being small.

    The residual is the largest deviation from 1 among the aligned gradients' singular values over ``s``.
    """
    rows = problem.directions * problem.norms[:, None]
    # Roots of the eigenvalues of G, but not taken of them: that would cost half of the digits.
    left, sizes, _ = np.linalg.svd(rows)
    left, sizes = left[:, : problem.rank], sizes[: problem.rank]
    # The median of an even number is the lower of the middle two, torch's and so the released code's.
    squares = sizes[::-1] ** 2
    chosen = {"min": squares[0], "median": squares[(len(squares) - 1) // 2], "rmse": squares.mean()}[scale_mode]
    balance = left / sizes @ left.T
    aligned = np.linalg.svd(balance @ rows, compute_uv=False)[: problem.rank]
    residual = float(np.abs(aligned - 1.0).max())
    return np.sqrt(chosen) * balance.sum(axis=1), SolverInfo(residual=residual)


def pcgrad(problem: Problem, keys: Array) -> tuple[Array, SolverInfo]:
    """Weights of the sum of the gradients after gradient surgery (Yu et al., NeurIPS 2020, algorithm 1).

    Every gradient is projected onto the normal plane of every other one it conflicts with, in an order of its own. The
    projections act on coefficients: row i of C makes p_i = sum_j C_ij g_j, and only ``C G`` is needed to see conflicts.

    Args:
        problem: K active tasks out of N.
        keys: (N, N) row i ranks the tasks in the order in which g_i meets them.
    """
    size, matrix = problem.size, problem.gramian
    order = keys[np.ix_(problem.active, problem.active)].argsort(axis=1, kind="stable")
    tasks = np.arange(size)
    coefficients = np.eye(size)
    products = matrix.copy()
    for other in order.T:
        # All tasks meet their next one at once; no row depends on another.
        inner = products[tasks, other]
        part = np.where((inner < 0.0) & (other != tasks), inner / matrix[other, other], 0.0)
        coefficients[tasks, other] -= part
        products -= part[:, None] * matrix[other]
    weights: Array = coefficients.sum(axis=0)
    return weights, SolverInfo()
