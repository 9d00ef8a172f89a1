"""GradDrop's sweep over blocks of columns, and its choice of a sign without branches, against the plain formula."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jacobians import LAW
from torch import Tensor

from trainables.methods.graddrop import graddrop

BLOCK = 64
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
KINDS = ("normal", "zeros", "signed zeros", "signs", "one sign", "not a number", "infinite", "overflowing")


def plain(rows: Tensor, noise: Tensor, leak: float) -> Tensor:
    """The formula, in full passes over everything."""
    positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
    drawn = torch.where(positive > noise * (positive - negative), positive, negative)
    return drawn if leak == 0.0 else drawn.lerp(positive + negative, leak)


def bits(tensor: Tensor) -> Tensor:
    """What must not differ: every bit, but for which of the many numbers that are none it is."""
    return torch.where(tensor.isnan(), torch.nan, tensor).contiguous().view(BITS[tensor.element_size()])


def gradients(kind: str, tasks: int, width: int, exponent: float, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, width, generator=generator, dtype=torch.float64) * 10.0**exponent
    half = torch.rand(tasks, width, generator=generator) < 0.5
    task, column = seed % tasks, seed % width
    if kind == "zeros":
        rows[half] = 0.0
    if kind == "signed zeros":
        rows = torch.where(half, -0.0, 0.0).double()
    if kind == "signs":
        # Sums of equal size, so that thresholds are met exactly.
        rows = rows.sign()
    if kind == "one sign":
        rows = -rows.abs()
    if kind == "not a number":
        rows[task] = torch.nan
    if kind == "infinite":
        rows[task, column] = torch.inf
        rows[-1, column // 2] = -torch.inf
    rows = rows.to(dtype)
    if kind == "overflowing":
        rows = rows.sign() * torch.finfo(dtype).max
    return rows


class TestBlocks:
    """Not a bit of a result depends on how it was cut."""

    @given(
        kind=st.sampled_from(KINDS),
        tasks=st.integers(1, 16),
        width=st.one_of(
            st.integers(1, 6 * BLOCK), st.sampled_from([k * BLOCK + d for k in (2, 3) for d in (-1, 0, 1)])
        ),
        exponent=st.floats(-8.0, 4.0),
        dtype=st.sampled_from(DTYPES),
        leak=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]),
        noise=st.sampled_from(["uniform", "coarse"]),
        seed=st.integers(0, 2**32 - 1),
    )
    @LAW
    def test_the_plain_formula(
        self,
        kind: str,
        tasks: int,
        width: int,
        exponent: float,
        dtype: torch.dtype,
        leak: float,
        noise: str,
        seed: int,
    ) -> None:
        rows = gradients(kind, tasks, width, exponent, dtype, seed)
        drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
        if noise == "coarse":
            drawn = (4 * drawn).floor() / 4
        before = rows.clone()
        with patch("trainables.methods.graddrop._BLOCK", BLOCK):
            found = graddrop(rows, drawn, leak)
        wanted = plain(rows, drawn, leak)
        assert found.dtype == wanted.dtype
        assert torch.equal(bits(found), bits(wanted))
        assert torch.equal(bits(rows), bits(before))

    @pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (7, 3, 11), (192, 400)])
    def test_parameters_of_any_shape(self, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(11, *shape, generator=generator)
        noise = torch.rand(shape, generator=generator)
        found = graddrop(rows, noise)
        assert found.shape == shape
        assert torch.equal(bits(found), bits(plain(rows, noise, 0.0)))

    def test_rows_that_do_not_lie_side_by_side(self) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(500, 4, 40, generator=generator).transpose(0, 1)
        noise = torch.rand(500, 40, generator=generator)
        with patch("trainables.methods.graddrop._BLOCK", BLOCK):
            found = graddrop(rows, noise)
        assert torch.equal(bits(found), bits(plain(rows, noise, 0.0)))
