"""GradDrop's sweep over blocks of columns, and its choice of a sign without branches, against the plain formula."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jacobians import LAW
from torch import Tensor

from trainables.config import data_set_of, load_trial
from trainables.methods import Update
from trainables.methods.graddrop import GradDrop, GradDropConfig, graddrop
from trainables.methods.gramian import Rows
from trainables.trainer import Trainer

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


def in_blocks(rows: Tensor, noise: Tensor, leak: float) -> Tensor:
    """As a step makes it: block by block of the rows."""
    with patch("trainables.methods.gramian.rows._BLOCK", BLOCK):
        stack = Rows(len(rows), [rows[0]])
    for task, row in enumerate(rows):
        stack.put(task, [row])
    parts = noise.flatten().split([block.shape[1] for block in stack.blocks])
    dropped = (graddrop(block, part, leak) for block, part in zip(stack.blocks, parts, strict=True))
    return stack.assembled(dropped)[0]


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
        found = in_blocks(rows, drawn, leak)
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
        assert torch.equal(bits(graddrop(rows, noise)), bits(plain(rows, noise, 0.0)))
        assert torch.equal(bits(in_blocks(rows, noise, 0.0)), bits(plain(rows, noise, 0.0)))


class TestMeasuring:
    """How often inner products are made changes curves alone."""

    @pytest.mark.parametrize("grad_space", ["shared", "representation"])
    def test_the_steps_are_the_same(self, tmp_path: Path, grad_space: str) -> None:
        trained = {}
        for every in (1, 3):
            trainer = small_trainer(tmp_path, {"grad_space": grad_space, "measure_every": every})
            trainer.advance()
            trained[every] = [p.detach().clone() for p in trainer.network.parameters()]
        assert all(torch.equal(one, other) for one, other in zip(trained[1], trained[3], strict=True))

    def test_a_gradient_that_is_not_finite_is_skipped_between_measurements(self) -> None:
        rows = torch.ones(2, 6)
        stack = Rows(2, [rows[0]])
        for task in range(2):
            stack.put(task, [rows[task]])
        method = GradDrop(GradDropConfig(), update_of(2), 0)
        for finite in (True, False, True):
            stack.put(1, [torch.full((6,), 1.0 if finite else torch.inf)])
            _, _, info = method.combine(stack, method.inner_products(stack).numpy())
            assert info.finite is finite


class TestFused:
    """One kernel over wide blocks changes no bit on a CPU."""

    @pytest.mark.parametrize("leak", [0.0, 0.25])
    @pytest.mark.parametrize("tasks", [1, 2, 11, 16])
    def test_the_sweep(self, tasks: int, leak: float) -> None:
        torch.compiler.reset()
        plainly, fused = (GradDrop(GradDropConfig(leak=leak, fused=one), update_of(tasks), 0) for one in (False, True))
        for kind in KINDS:
            # Two full blocks together, one by itself, and two that are too narrow for the kernel.
            rows = gradients(kind, tasks, 3 * 16384 + 100 + 7, 0.0, torch.float32, 3)
            sizes = [2 * 16384 + 100, 16384, 7]
            stack = Rows(tasks, rows[0].split(sizes))
            for task, row in enumerate(rows):
                stack.put(task, row.split(sizes))
            wanted, _, before = plainly.combine(stack, np.eye(tasks))
            with patch.object(fused, "_kernel", wraps=fused._kernel) as kernel:
                found, _, after = fused.combine(stack, np.eye(tasks))
            assert kernel.call_count == 2
            assert before.finite is after.finite
            assert [bits(part).tolist() for part in found] == [bits(part).tolist() for part in wanted]

    def test_steps(self, tmp_path: Path) -> None:
        torch.compiler.reset()
        trained = {}
        for one in (False, True):
            trainer = small_trainer(tmp_path, {"fused": one})
            assert isinstance(trainer.method, GradDrop)
            with patch.object(trainer.method, "_kernel", wraps=trainer.method._kernel) as kernel:
                trainer.advance()
            assert kernel.call_count > 0
            trained[one] = [p.detach().clone() for p in trainer.network.parameters()]
        assert all(torch.equal(one, other) for one, other in zip(trained[False], trained[True], strict=True))

    @pytest.mark.parametrize("wanted", ["method.fused", "train.compile"])
    def test_without_a_compiler(self, wanted: str, tmp_path: Path) -> None:
        small_trainer(tmp_path, {})
        section, field = wanted.split(".")
        program = (
            "import json, sys\nfrom pathlib import Path\n"
            "from trainables.config import load_trial\nfrom trainables.trainer import Trainer\n"
            "Trainer(load_trial(json.loads(sys.argv[1])), Path(sys.argv[2]))\n"
        )
        trial: dict[str, Any] = small_trial({})
        trial[section] |= {field: True}
        nowhere = {"CXX": str(tmp_path / "nothing"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(trial), str(tmp_path)],
            env={**os.environ, **nowhere},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        said = done.stderr.strip().splitlines()[-1]
        assert said.startswith(f"trainables.errors.ConfigError: {wanted}: torch.compile does not work here: ")
        assert "C++ compiler" in said
        assert said.endswith("(allowed: false)")


def update_of(tasks: int) -> Update:
    names = [str(task) for task in range(tasks)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    return Update(names, [], {name: [] for name in names}, optimizer)


def small_trial(method: dict[str, object]) -> dict[str, Any]:
    return {
        "data": {"name": "scenes", "image_size": 32, "train": 4, "val": 1, "test": 1},
        "tasks": {"set": "nyud"},
        "model": {"backbone": "vit_pico"},
        "train": {"batch_size": 2, "budget": {"amount": 7}},
        "record": {"eval_every": 0, "points": 7},
        "method": {"name": "graddrop", **method},
    }


def small_trainer(root: Path, method: dict[str, object]) -> Trainer:
    config = load_trial(small_trial(method))
    data_set_of(config).prepare(config.data, root)
    return Trainer(config, root)
