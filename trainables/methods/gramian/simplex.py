"""Exact solvers over the simplex: the min-norm point of MGDA, and CAGrad's problem as a family of them."""

from __future__ import annotations

import numpy as np

from trainables.methods.gramian.problem import Array, Problem, SolverInfo

_MAX_PIECES = 100


def nonnegative_least_squares(a: Array, b: Array, start: Array | None = None) -> tuple[Array, int]:
    """The x >= 0 nearest to solving ``a x = b``, and the number of least-squares problems solved on the way.

    The active-set method of Lawson & Hanson ("Solving Least Squares Problems", 1974, chapter 23): finite and exact. It
    never takes in a column that depends on those it has, so duplicated gradients do no harm.

    Args:
        a: (m, K), columns of about norm 1.
        b: (m,).
        start: (K,) a point to start from, whose positive entries name independent columns.
    """
    size = a.shape[1]
    x = np.zeros(size)
    passive = np.zeros(size, dtype=bool)
    refused = np.zeros(size, dtype=bool)
    tolerance = 1e-14 * (1.0 + float(np.abs(b).max()))
    solved = 0
    if start is not None:
        passive = start > 0.0
        x = np.where(passive, start, 0.0)
    entering = -1
    # Far above what it takes, and an end to cycling by rounding.
    for _ in range(10 * size + 10):
        if passive.any():
            trial = np.zeros(size)
            trial[passive] = np.linalg.lstsq(a[:, passive], b, rcond=None)[0]
            solved += 1
            if entering >= 0 and trial[entering] <= 0.0:
                # Its gradient was positive by rounding only: it depends on the columns already in.
                passive[entering] = False
                refused[entering] = True
                entering = -1
                continue
            negative = passive & (trial <= 0.0)
            if negative.any():
                share = x[negative] / (x[negative] - trial[negative])
                step = float(share.min())
                x = x + step * (trial - x)
                leaving = negative & (x <= 1e-15 * float(np.abs(x).max()))
                leaving[np.flatnonzero(negative)[int(share.argmin())]] = True
                passive &= ~leaving
                x[~passive] = 0.0
                entering = -1
                continue
            x = trial
            if entering >= 0:
                refused[:] = False
        gradient = a.T @ (b - a @ x)
        gradient[passive | refused] = -np.inf
        entering = int(gradient.argmax())
        if gradient[entering] <= tolerance:
            break
        passive[entering] = True
    return x, solved


def min_norm_point(rows: Array, start: Array | None = None) -> tuple[Array, int]:
    """Weights (K,) >= 0, of sum 1, of the point of least norm in the convex hull of ``rows`` (K, m).

    With columns r_k and any c > 0, ``min |sum_k x_k r_k|^2 + c^2 (sum_k x_k - 1)^2`` over x >= 0 has the same
    multipliers up to a factor: x / sum(x) is the min-norm point. Here c is the smallest norm and every column is
    divided by its own, so that the least-squares problem has columns of norm 1 to sqrt(2), however the norms differ.
    """
    norms = np.linalg.norm(rows, axis=1)
    smallest = float(norms.min())
    if smallest == 0.0:
        weights = (norms == 0.0).astype(np.float64)
        return weights / weights.sum(), 0
    relative = smallest / norms
    a = np.vstack([(rows / norms[:, None]).T, relative])
    b = np.zeros(len(a))
    b[-1] = 1.0
    x, solved = nonnegative_least_squares(a, b, None if start is None else start / relative)
    weights = x * relative
    return weights / weights.sum(), solved


def mgda(problem: Problem) -> tuple[Array, SolverInfo]:
    """argmin over the simplex of ``w^T G w`` (Desideri 2012; Sener & Koltun, NeurIPS 2018, eq. 3).

    The residual is that of the KKT conditions: g_k . d >= |d|^2, with equality where w_k > 0, relative to
    ``|g_k| sum_j w_j |g_j|``.
    """
    norms = problem.norms
    weights, solved = min_norm_point(problem.directions * norms[:, None])
    products = problem.correlation @ (weights * norms)
    square = float(weights * norms @ products)
    gap = square / norms - products
    violation = np.where(weights > 0.0, np.abs(gap), np.maximum(gap, 0.0)).max() / float(weights @ norms)
    return weights, SolverInfo(residual=float(violation), iterations=solved)


def cagrad(problem: Problem, c: float) -> tuple[Array, SolverInfo]:
    """Weights of ``d = g0 + c |g0| g_w / |g_w|``, g0 the mean over all tasks, w on the simplex of the active ones
    minimising ``g_w . g0 + c |g0| |g_w|`` (Liu et al., NeurIPS 2021, eq. 4 and algorithm 1).

    ``|g_w| = min over t of (|g_w|^2 / t + t) / 2`` turns the problem into that of the point of least norm in the hull
    of the rows ``g_k + s g0``, with the one number s that satisfies ``|g_w| = c |g0| s``. The ratio ``|g_w| / s`` falls
    as s grows; on the support found at one s the matching s is known in closed form, so few hulls are looked at, each
    solved exactly.

    Where g_w = 0 is optimal (Pareto-stationary gradients) w does not tell d. As the rule ``d in the ball |d - g0| <= c
    |g0| with the largest min over k of g_k . d``, from which the paper derives it, d is then taken nearest to g0: the
    limit of ``g0 + g_w / s`` for s to 0, with ``|d - g0| < c |g0|``; ``fallback`` says so. The authors' code returns
    g0.

    The residual is that of the KKT conditions: g_k . d equal for all w_k > 0 and not smaller for the others, relative
    to ``(1 + c) |g_k| |g0|``.
    """
    norms, count = problem.norms, len(problem.active)
    rows = problem.directions * norms[:, None]
    mean = rows.sum(axis=0) / count
    length_of_mean = float(np.linalg.norm(mean))
    radius = c * length_of_mean
    plain = np.full(problem.size, 1.0 / count)
    largest = float(norms.max())
    if radius <= 1e-15 * largest:
        return plain, SolverInfo()
    low, high = 0.0, largest / radius
    # Below it, all of a hull that holds the origin is one linear piece, as far as rounding lets it be told.
    least = 1e-5 * high
    shift, solved, degenerate = high, 0, False
    weights = plain
    for piece in range(_MAX_PIECES):
        weights, more = min_norm_point(rows + shift * mean, start=weights if piece else None)
        solved += more
        if float(np.linalg.norm(weights @ rows)) > radius * shift:
            low = shift
        else:
            high = shift
        proposal = _matching_shift(rows[weights > 0.0], mean, radius)
        if proposal is not None and abs(proposal - shift) <= 1e-14 * shift:
            break
        if proposal is not None and proposal <= 1e-4 * least and high <= least:
            degenerate = True
            break
        if high - low <= 1e-15 * high:
            break
        if proposal is None or not low < proposal < high:
            proposal = 0.5 * (low + high) if low > 0.0 else 0.1 * high
        shift = max(proposal, least) if low < least < high else proposal
    combined = weights @ rows
    factor = 1.0 / shift if degenerate else radius / float(np.linalg.norm(combined))
    gain = rows @ (mean + factor * combined)
    level = float(weights @ gain)
    gap = np.where(weights > 0.0, np.abs(gain - level), np.maximum(level - gain, 0.0))
    residual = float((gap / norms).max()) / (length_of_mean + radius)
    return plain + factor * weights, SolverInfo(residual=residual, iterations=solved, fallback=degenerate)


def _matching_shift(rows: Array, mean: Array, radius: float) -> float | None:
    """The s with ``|g_w| = radius s`` where w is the point of least norm in the affine hull of ``rows + s mean``;
    ``None`` where there is none.

    There g_w = a - s e: a the hull's own point of least norm, e the part of ``mean`` along the hull, which is
    orthogonal to a.
    """
    base, others = rows[0], rows[1:] - rows[0]
    if len(others):
        # Singular vectors, not coefficients: nearly parallel rows span the hull all the same.
        _, sizes, along = np.linalg.svd(others, full_matrices=False)
        along = along[sizes > 1e-14 * sizes[0]]
        nearest = base - along.T @ (along @ base)
        square = radius**2 - float(((along @ mean) ** 2).sum())
    else:
        nearest, square = base, radius**2
    if square <= 0.0:
        return None
    return float(np.linalg.norm(nearest)) / square**0.5
