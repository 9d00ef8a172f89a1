"""``aggregate``: the laws its directions obey, the edges, and TorchJD as a second opinion."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jacobians import LAW, REGULAR, jacobians, make
from torch import Tensor
from torchjd.aggregation import IMTLG as JDIMTLG
from torchjd.aggregation import MGDA as JDMGDA
from torchjd.aggregation import AlignedMTL as JDAlignedMTL
from torchjd.aggregation import GradDrop as JDGradDrop
from torchjd.aggregation import PCGrad as JDPCGrad

from trainables.errors import ConfigError
from trainables.methods import aggregate
from trainables.methods.aggregate import AGGREGATORS

NAMES = sorted(AGGREGATORS)
DETERMINISTIC = sorted(set(NAMES) - {"graddrop", "pcgrad"})
KINDS = ("independent", "zero row", "duplicate", "opposite", "stationary")


def size(jacobian: Tensor) -> float:
    return float(jacobian.norm())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gives_a_finite_vector_of_the_same_kind(name: str, count: int, kind: str, dtype: torch.dtype) -> None:
    jacobian = make(kind, count, 9, 0.0, 1).to(dtype)
    before = jacobian.clone()
    out = aggregate(name, jacobian)
    assert out.shape == jacobian[0].shape
    assert out.dtype == dtype
    assert bool(out.isfinite().all())
    assert torch.equal(jacobian, before)


@pytest.mark.parametrize("name", NAMES)
def test_one_task_gets_its_own_gradient(name: str) -> None:
    jacobian = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    expected = {"cagrad": jacobian[0] * 1.4, "nash_mtl": jacobian[0] / 5.0}.get(name, jacobian[0])
    torch.testing.assert_close(aggregate(name, jacobian), expected)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_make_zero(name: str) -> None:
    assert aggregate(name, torch.zeros(3, 4)).tolist() == [0.0] * 4
    assert aggregate(name, torch.zeros(3, 0)).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_makes_nan(name: str, bad: float) -> None:
    jacobian = torch.ones(3, 4)
    jacobian[1, 2] = bad
    assert bool(aggregate(name, jacobian).isnan().all())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"gd", "cagrad"}))
def test_a_zero_row_takes_no_part(name: str) -> None:
    jacobian = make("independent", 4, 9, 0.0, 2)
    with_zero = torch.cat([jacobian, torch.zeros(1, jacobian.shape[1], dtype=torch.float64)])
    if name == "pcgrad":
        jacobian, with_zero = jacobian[:2], with_zero[[0, 1, 4]]  # no order to draw among two
    torch.testing.assert_close(aggregate(name, with_zero), aggregate(name, jacobian))


def test_a_zero_row_counts_in_the_mean_of_cagrad() -> None:
    jacobian = make("zero row", 4, 9, 0.0, 2)
    mean = jacobian.mean(0)
    direction = aggregate("cagrad", jacobian, c=0.5)
    torch.testing.assert_close((direction - mean).norm(), 0.5 * mean.norm())


@pytest.mark.parametrize("name", ["gd", "mgda", "pcgrad", "cagrad", "imtl_g", "aligned_mtl", "nash_mtl"])
def test_opposite_gradients_cancel(name: str) -> None:
    jacobian = torch.randn(1, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert size(aggregate(name, torch.cat([jacobian, -jacobian]))) <= 1e-12 * size(jacobian)


@pytest.mark.parametrize("name", NAMES)
@LAW
@given(jacobian=jacobians(*REGULAR, max_tasks=8), exponent=st.floats(-8.0, 8.0))
def test_is_homogeneous(name: str, jacobian: Tensor, exponent: float) -> None:
    factor = 10.0**exponent
    expected = aggregate(name, jacobian) * (1.0 if name == "nash_mtl" else factor)
    found = aggregate(name, jacobian * factor)
    # A task 10,000 times smaller decides Aligned-MTL's direction, with as many digits less.
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-8 * size(expected))


@pytest.mark.parametrize("name", [*DETERMINISTIC, "graddrop"])
@LAW
@given(jacobian=jacobians(*REGULAR, "duplicate", "zero row", max_tasks=8), seed=st.integers(0, 1000))
def test_the_order_of_tasks_does_not_matter(name: str, jacobian: Tensor, seed: int) -> None:
    order = torch.randperm(len(jacobian), generator=torch.Generator().manual_seed(seed))
    expected = aggregate(name, jacobian)
    torch.testing.assert_close(aggregate(name, jacobian[order]), expected, rtol=0.0, atol=1e-7 * size(expected))


@pytest.mark.parametrize("name", [*DETERMINISTIC, "pcgrad"])
@LAW
@given(jacobian=jacobians("independent", "common", max_tasks=8), seed=st.integers(0, 1000))
def test_a_rotation_of_the_gradients_rotates_the_direction(name: str, jacobian: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(jacobian.shape[1], jacobian.shape[1], generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(square).Q
    expected = aggregate(name, jacobian) @ rotation
    torch.testing.assert_close(aggregate(name, jacobian @ rotation), expected, rtol=0.0, atol=1e-7 * size(expected))


def test_graddrop_depends_on_coordinates() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    rotation = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)
    turned = {tuple((aggregate("graddrop", jacobian, seed=s) @ rotation).tolist()) for s in range(20)}
    other = {tuple(aggregate("graddrop", jacobian @ rotation, seed=s).tolist()) for s in range(20)}
    assert turned.isdisjoint(other)


@pytest.mark.parametrize("name", NAMES)
@LAW
@given(jacobian=jacobians("independent", "common", "zero row", "duplicate", max_tasks=8))
def test_float32_gradients_are_aggregated_as_their_values_are(name: str, jacobian: Tensor) -> None:
    single = jacobian.float()
    expected = aggregate(name, single.double())
    found = aggregate(name, single).double()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6 * size(expected))


@pytest.mark.parametrize("name", ["graddrop", "pcgrad"])
def test_draws_come_from_the_seed_or_the_generator_alone(name: str) -> None:
    jacobian = make("stationary", 6, 30, 0.0, 3)
    torch.manual_seed(1)
    first = aggregate(name, jacobian, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first, aggregate(name, jacobian, seed=5))
    assert torch.equal(first, aggregate(name, jacobian, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(first, aggregate(name, jacobian, seed=6))
    generator = torch.Generator().manual_seed(5)
    draws = [aggregate(name, jacobian, generator=generator) for _ in range(2)]
    assert not torch.equal(*draws)


def test_scales_by_hand() -> None:
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    root2 = math.sqrt(2)
    expected = {
        "gd": [2.0, 1.0],
        "graddrop": [2.0, 1.0],
        "pcgrad": [2.0, 1.0],
        # (1 - t) (2, 0) + t (0, 1) is shortest at t = 4/5.
        "mgda": [0.4, 0.8],
        # Equal projections onto the axes, weights of sum 1: (s, s) with s/2 + s = 1.
        "imtl_g": [2 / 3, 2 / 3],
        # Both stretched to length 1.
        "aligned_mtl": [1.0, 1.0],
        # w_k |g_k|^2 = 1 / w_k.
        "nash_mtl": [1.0, 1.0],
    }
    for name, direction in expected.items():
        assert aggregate(name, jacobian).tolist() == pytest.approx(direction), name
    assert aggregate("nash_mtl", jacobian, max_norm=1.0).tolist() == pytest.approx([1 / root2, 1 / root2])
    assert aggregate("mgda", jacobian, scale="sum").tolist() == pytest.approx([0.8, 1.6])
    assert aggregate("pcgrad", jacobian, scale="mean").tolist() == pytest.approx([1.0, 0.5])
    plain = aggregate("cagrad", jacobian, c=0.5)
    assert float((plain - jacobian.mean(0)).norm()) == pytest.approx(0.5 * float(jacobian.mean(0).norm()))
    assert aggregate("cagrad", jacobian, c=0.5, rescale=1).tolist() == pytest.approx((plain / 1.25).tolist())
    assert aggregate("cagrad", jacobian, c=0.5, rescale=2, scale="sum").tolist() == pytest.approx(
        (2 * plain / 1.5).tolist()
    )


def test_mistakes_are_named() -> None:
    jacobian = torch.ones(2, 3)
    with pytest.raises(ConfigError, match=r"^aggregate: unknown aggregator 'mgdaa'; did you mean 'mgda'\?"):
        aggregate("mgdaa", jacobian)
    with pytest.raises(ConfigError, match=r"^aggregate\.cagrad\.cc: unknown field 'cc'"):
        aggregate("cagrad", jacobian, cc=1.0)
    with pytest.raises(ConfigError, match=r"^aggregate\.cagrad\.c: .* greater than or equal to 0, got -1"):
        aggregate("cagrad", jacobian, c=-1.0)
    for wrong in (torch.ones(3), torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.int64), torch.ones(0, 3)):
        with pytest.raises(ConfigError, match=r"^jacobian: a \(K, d\) floating tensor"):
            aggregate("gd", wrong)


@pytest.mark.parametrize("kind", ["independent", "common"])
@pytest.mark.parametrize("tasks", [2, 3, 6])
def test_torchjd_agrees(kind: str, tasks: int) -> None:
    jacobian = make(kind, tasks, 12, 0.0, tasks)
    everyone = torch.ones(tasks, dtype=torch.float64)
    pairs = [
        ("imtl_g", JDIMTLG()(jacobian)),
        ("aligned_mtl", JDAlignedMTL(pref_vector=everyone)(jacobian)),
    ]
    if tasks == 2:
        pairs.append(("pcgrad", JDPCGrad()(jacobian)))
    for name, theirs in pairs:
        torch.testing.assert_close(aggregate(name, jacobian), theirs, rtol=0.0, atol=1e-6 * size(theirs))
    # Theirs approaches the shortest vector of the hull, ours is it: by its definition no other is closer than this.
    ours, theirs = aggregate("mgda", jacobian), JDMGDA(epsilon=1e-6, max_iters=500)(jacobian)
    assert size(ours) <= size(theirs) * (1 + 1e-12)
    assert size(ours - theirs) ** 2 <= size(theirs) ** 2 - size(ours) ** 2 + 1e-12 * size(theirs) ** 2
    assert size(ours - theirs) <= 0.1 * size(theirs)


def test_torchjd_s_graddrop_draws_as_often() -> None:
    columns = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    jacobian = columns.repeat(1, 4000)
    torch.manual_seed(0)
    theirs = JDGradDrop()(jacobian).view(4000, 6)
    ours = aggregate("graddrop", jacobian).view(4000, 6)
    # Two means of 4000 draws each, five standard deviations apart at most.
    spread = columns.abs().sum(0) / 2 * math.sqrt(2 / 4000) * 5
    assert bool(((ours.mean(0) - theirs.mean(0)).abs() < spread).all())
