"""The solvers by the conditions that define their weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jacobians import LAW, REGULAR, jacobians
from torch import Tensor

from trainables.methods.gramian import aligned_mtl, cagrad, imtl_g, mgda, nash, pcgrad, solve
from trainables.methods.gramian.problem import Array
from trainables.methods.gramian.simplex import min_norm_point, nonnegative_least_squares

KKT = 1e-9


def gramian(jacobian: Tensor) -> Array:
    return (jacobian @ jacobian.T).numpy()


@LAW
@given(jacobians())
def test_mgda_meets_the_kkt_conditions(jacobian: Tensor) -> None:
    weights, info = solve(gramian(jacobian), mgda)
    assert (weights >= 0.0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    rows = jacobian.numpy()
    norms = np.linalg.norm(rows, axis=1)
    active = norms > 0.0
    direction = weights @ rows
    # Of G over its trace, and, much sharper where norms differ, over the sizes of what is compared.
    slack = rows @ direction - direction @ direction
    for scale in (norms @ norms, norms[active] * (weights @ norms)):
        relative = slack[active] / scale
        assert relative.min() >= -KKT
        assert np.abs(relative[weights[active] > 0.0]).max() <= KKT
    assert info.residual <= KKT
    assert info.inactive == int((~active).sum())


@pytest.mark.parametrize("seed", range(5))
def test_mgda_is_the_best_of_all_supports(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(4, 6)) + 0.3
    least = np.inf
    for size in range(1, 5):
        for support in itertools.combinations(range(4), size):
            part = rows[list(support)]
            system = np.block([[part @ part.T, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            found = np.linalg.solve(system, np.r_[np.zeros(size), 1.0])[:size]
            if (found >= 0.0).all():
                least = min(least, float(np.linalg.norm(found @ part)))
    weights, _ = solve(rows @ rows.T, mgda)
    assert np.linalg.norm(weights @ rows) == pytest.approx(least, rel=1e-12)


@LAW
@given(jacobians(), st.sampled_from([0.0, 1e-2, 0.4, 0.9, 1.0, 3.0]))
def test_cagrad_serves_the_worst_served_task_best(jacobian: Tensor, c: float) -> None:
    coefficients, info = solve(gramian(jacobian), lambda problem: cagrad(problem, c))
    rows = jacobian.numpy()
    norms = np.linalg.norm(rows, axis=1)
    active = norms > 0.0
    mean = rows.mean(axis=0)
    length = np.linalg.norm(mean)
    if length <= 1e-7 * norms.max():
        # Their mean is rounding, and so is the direction.
        assert np.linalg.norm(coefficients @ rows) <= 1e-6 * norms.max()
        return
    direction = coefficients @ rows
    # g0 + c |g0| u with u in the unit ball and of the cone of the gradients; on its sphere unless they are stationary.
    step = np.linalg.norm(direction - mean)
    assert step <= c * length * (1.0 + 1e-6) + 1e-14 * norms.max()
    if not info.fallback:
        assert step == pytest.approx(c * length, rel=1e-6, abs=1e-9 * length)
    weights = coefficients[active] - 1.0 / len(rows)
    assert weights.min() >= -1e-9 * np.abs(coefficients).max()
    if c > 0.0:
        # Those that pull are those served worst; the maximum of the least is 0 where no direction serves all.
        gain = (rows @ direction / norms.clip(1e-300))[active] / length
        worst = (rows @ direction)[active].min()
        support = weights > 1e-9 * np.abs(weights).max()
        tied = ((rows @ direction)[active] - worst)[support] / norms[active][support] / length
        assert np.abs(tied).max() <= 1e-6
        if info.fallback:
            assert gain.min() >= -1e-6
    assert info.residual <= KKT


@LAW
@given(jacobians(*REGULAR, "close", "zero row"))
def test_nash_weights_solve_their_equation(jacobian: Tensor) -> None:
    matrix = gramian(jacobian)
    weights, info = solve(matrix, nash, degree=0)
    active = np.diagonal(matrix) > 0.0
    assert (weights[active] > 0.0).all()
    assert (weights[~active] == 0.0).all()
    np.testing.assert_allclose((matrix @ weights * weights)[active], 1.0, rtol=0.0, atol=KKT)
    assert weights @ matrix @ weights == pytest.approx(active.sum(), rel=1e-9)
    assert info.residual <= KKT
    assert not info.fallback
    assert info.iterations <= 30


@LAW
@given(jacobians("stationary", "opposite", "few dimensions", min_tasks=2))
def test_nash_says_when_there_is_no_solution(jacobian: Tensor) -> None:
    weights, info = solve(gramian(jacobian), nash, degree=0)
    assert (weights > 0.0).all()
    assert info.residual <= KKT
    if len(jacobian) == 2:
        stationary = torch.nn.functional.cosine_similarity(jacobian[0], jacobian[1], dim=0) < -1 + 1e-15
        assert info.fallback or not stationary


@LAW
@given(jacobians(*REGULAR, "duplicate", "zero row"))
def test_imtl_g_has_equal_projections(jacobian: Tensor) -> None:
    weights, info = solve(gramian(jacobian), imtl_g)
    assert weights.sum() == pytest.approx(1.0, abs=1e-9 * np.abs(weights).sum())
    rows = jacobian.numpy()
    norms = np.linalg.norm(rows, axis=1)
    active = norms > 0.0
    projections = (rows @ (weights @ rows))[active] / norms[active]
    scale = np.abs(weights) @ norms
    np.testing.assert_allclose(projections / scale, projections.mean() / scale, atol=1e-9)
    assert info.residual <= KKT


@LAW
@given(jacobians("opposite", min_tasks=2))
def test_imtl_g_of_opposite_gradients_is_zero(jacobian: Tensor) -> None:
    weights, _ = solve(gramian(jacobian), imtl_g)
    assert (
        np.linalg.norm(weights @ jacobian.numpy()) <= 1e-9 * float(jacobian.norm(dim=1).max()) * np.abs(weights).sum()
    )


def test_imtl_g_counts_what_cannot_be_scaled_to_sum_1() -> None:
    # Equal projections need w |g| ~ (-0.15, 0.1, 0.1), and these norms make the weights' sum 0.
    cosines = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, 0.65], [0.9, 0.65, 1.0]])
    norms = np.array([0.75, 1.0, 1.0])
    weights, info = solve(cosines * np.outer(norms, norms), imtl_g)
    assert info.fallback
    assert weights.tolist() == [1 / 3] * 3
    weights, info = solve(cosines, imtl_g)
    assert not info.fallback
    np.testing.assert_allclose(weights, [-3.0, 2.0, 2.0], rtol=1e-10)


@LAW
@given(jacobians(*REGULAR))
def test_aligned_gradients_are_orthogonal_and_of_the_smallest_length(jacobian: Tensor) -> None:
    weights, info = solve(gramian(jacobian), aligned_mtl)
    left, sizes, right = torch.linalg.svd(jacobian, full_matrices=False)
    expected = sizes[-1] * (left @ right).sum(0)
    found = torch.from_numpy(weights) @ jacobian
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6 * float(expected.norm()))
    assert info.residual <= 1e-6


@LAW
@given(jacobians(*REGULAR), st.sampled_from(["median", "rmse"]))
def test_aligned_scale_modes(jacobian: Tensor, mode: str) -> None:
    sizes = torch.linalg.svdvals(jacobian)
    weights, _ = solve(gramian(jacobian), lambda problem: aligned_mtl(problem, mode))  # type: ignore[arg-type]
    least, _ = solve(gramian(jacobian), aligned_mtl)
    chosen = sizes.square().median().sqrt() if mode == "median" else sizes.square().mean().sqrt()
    np.testing.assert_allclose(weights, least * float(chosen / sizes[-1]), rtol=1e-5)


@LAW
@given(jacobians("duplicate", "few dimensions", min_tasks=2))
def test_aligned_drops_what_has_no_rank(jacobian: Tensor) -> None:
    weights, info = solve(gramian(jacobian), aligned_mtl)
    rank = int(torch.linalg.matrix_rank(jacobian))
    left, sizes, right = torch.linalg.svd(jacobian, full_matrices=False)
    if float(sizes[rank - 1] / sizes[0]) < 1e-3:
        return
    expected = sizes[rank - 1] * (left[:, :rank] @ right[:rank]).sum(0)
    found = torch.from_numpy(weights) @ jacobian
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6 * float(sizes[rank - 1]) * len(jacobian))
    assert np.isfinite(info.residual)


@LAW
@given(jacobians(max_tasks=6), st.integers(0, 1000))
def test_pcgrad_is_the_surgery_on_vectors(jacobian: Tensor, seed: int) -> None:
    count = len(jacobian)
    keys = np.random.default_rng(seed).random((count, count))
    weights, _ = solve(gramian(jacobian), lambda problem: pcgrad(problem, keys))
    rows = jacobian / jacobian.norm(dim=1).max()
    total = torch.zeros_like(rows[0])
    for task in range(count):
        projected = rows[task].clone()
        for other in keys[task].argsort(kind="stable"):
            inner = float(projected @ rows[other])
            # Exact ties differ by rounding between the two ways to compute them, and then by nothing.
            if other != task and inner < 0.0:
                projected -= inner / float(rows[other] @ rows[other]) * rows[other]
        total += projected
    found = torch.from_numpy(weights) @ rows
    torch.testing.assert_close(found, total, rtol=1e-7, atol=1e-7)


@LAW
@given(jacobians(*REGULAR, "close", min_tasks=2, max_tasks=2))
def test_two_gradients_after_surgery_hurt_neither_task(jacobian: Tensor) -> None:
    weights, info = solve(gramian(jacobian), lambda problem: pcgrad(problem, np.zeros((2, 2))))
    direction = torch.from_numpy(weights) @ jacobian
    norms = jacobian.norm(dim=1)
    assert float((jacobian @ direction / norms / norms.max()).min()) >= -1e-12
    assert info.conflicts == int(float(jacobian[0] @ jacobian[1]) < 0.0)


@pytest.mark.parametrize("core", [mgda, nash, imtl_g, aligned_mtl, lambda problem: cagrad(problem, 0.4)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_said_and_gives_zeros(core: object, bad: float) -> None:
    matrix = np.eye(3)
    matrix[1, 2] = matrix[2, 1] = bad
    weights, info = solve(matrix, core)  # type: ignore[arg-type]
    assert not info.finite
    assert (weights == 0.0).all()


@pytest.mark.parametrize("core", [mgda, nash, imtl_g, aligned_mtl, lambda problem: cagrad(problem, 0.4)])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_gramians_that_only_rounding_could_make_are_solved(core: object, count: int) -> None:
    """float32 sums of float32 products, of dependent gradients: indefinite, and not quite symmetric."""
    rng = np.random.default_rng(count)
    rows = rng.normal(size=(count, max(1, count // 2)))
    noise = 1e-6 * rng.normal(size=(count, count)) * np.outer(*2 * (np.linalg.norm(rows, axis=1),))
    weights, info = solve(rows @ rows.T + noise, core, epsilon=1.2e-7)  # type: ignore[arg-type]
    assert np.isfinite(weights).all()
    assert info.finite
    if core is mgda:
        assert info.residual < 1e-5


def test_a_solver_that_fails_falls_back_to_the_mean() -> None:
    def fails(problem: object) -> tuple[Array, object]:
        raise np.linalg.LinAlgError

    weights, info = solve(np.eye(4), fails)  # type: ignore[arg-type]
    assert weights.tolist() == [0.25] * 4
    assert info.fallback


@LAW
@given(st.integers(1, 10), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_nonnegative_least_squares_meets_its_conditions(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(height, width)), rng.normal(size=height)
    x, _ = nonnegative_least_squares(a, b)
    gradient = a.T @ (b - a @ x)
    assert (x >= 0.0).all()
    assert gradient.max() <= 1e-10
    assert np.abs(gradient[x > 0.0]).max(initial=0.0) <= 1e-10


def test_the_least_point_of_a_hull_with_the_origin_among_its_rows() -> None:
    weights, _ = min_norm_point(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    assert weights.tolist() == [0.0, 0.5, 0.5]
