"""The Nash bargaining weights by damped Newton."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainables.methods.gramian.problem import Array, Problem, SolverInfo

_MAX_ITERATIONS = 60
_ACCEPTED = 1e-9
_RIDGE = 1e-5


def nash(problem: Problem) -> tuple[Array, SolverInfo]:
    """The w > 0 with ``(G w)_k w_k = 1`` for every task (Navon et al., ICML 2022, claim 3.1).

    It is where ``w^T G w / 2 - sum_k log w_k`` is least, a strictly convex, self-concordant function, so that damped
    Newton converges from anywhere; the authors' sequence of convex programs solves the same equation to a few percent.
    Written in w_k |g_k| the equation holds only cosines: the norms, and factors between them, drop out.

    A solution exists unless the gradients are Pareto stationary, that is some w >= 0 other than 0 makes J^T w vanish.
    Then 1e-5 is added to every cosine of a gradient with itself, and ``fallback`` says so.

    The residual is the largest ``|(G w)_k w_k - 1|``.
    """
    scaled, info = _newton(problem.correlation)
    if not info.residual <= _ACCEPTED:
        scaled, again = _newton(problem.correlation + _RIDGE * np.eye(problem.size))
        info = replace(again, iterations=info.iterations + again.iterations, fallback=True)
    return scaled / problem.norms, info


def _newton(matrix: Array) -> tuple[Array, SolverInfo]:
    size = len(matrix)
    # The solution for equal cosines; 1 where they are zero.
    point = np.full(size, 1.0 / np.sqrt(max(float(matrix.sum()) / size, 1.0 / size)))
    best, least, iterations = point, np.inf, 0
    while True:
        error = 1.0 - point * (matrix @ point)
        residual = float(np.abs(error).max())
        improved = residual < least
        if improved:
            best, least = point, residual
        # Beyond this size of the weights the gradients cancel to rounding: there is nothing to solve.
        if residual <= 1e-14 or iterations == _MAX_ITERATIONS or float(point.max()) > 3e4:
            break
        # In relative changes the Hessian is I + W G W: well conditioned from below.
        step = np.linalg.solve(np.eye(size) + point[:, None] * matrix * point, error)
        decrement = float(np.sqrt(max(float(step @ error), 0.0)))
        if decrement < 1e-6 and not improved:
            break
        point = point * (1.0 + step / (1.0 + decrement if decrement > 0.25 else 1.0))
        iterations += 1
    return best, SolverInfo(residual=least, iterations=iterations)
