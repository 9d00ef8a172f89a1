"""Two processes on half a batch each write the gradient that one writes on the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.testing import SplitBench

CONFIGS: dict[str, dict[str, Any]] = {
    "nash": {"name": "nash_mtl", "max_norm": 0.0},
    "nash of the representation": {"name": "nash_mtl", "grad_space": "representation", "max_norm": 0.0},
    "cagrad": {"name": "cagrad", "decoder_grads": "weighted"},
    "pcgrad": {"name": "pcgrad"},
    "imtl": {"name": "imtl", "lr": 0.1},
    "graddrop": {"name": "graddrop"},
    "streamed": {"name": "cagrad", "rows": "streamed"},
    "weights kept": {"name": "nash_mtl", "update_weights_every": 2},
}


class HalfBench(SplitBench):
    """Sees every other sample of a batch of six, or all of it."""

    share: tuple[int, int] = (0, 1)

    def batch(self) -> tuple[Tensor, Tensor]:
        first, second = self.share
        generator = torch.Generator().manual_seed(self.counters.iterations)
        inputs = torch.randn(6, 6, generator=generator)
        targets = torch.randn(len(self.tasks), 6, 2, generator=generator)
        return inputs[first::second], targets[:, first::second]


def gradients(share: tuple[int, int]) -> dict[str, list[Tensor]]:
    """By config, what two steps wrote."""
    out = {}
    for name, config in CONFIGS.items():
        bench = HalfBench(config, 3)
        bench.share = share
        out[name] = []
        for _ in range(2):
            bench.iterate()
            out[name].append(torch.cat([bench.written(), *bench.written_heads()]))
    bench = HalfBench(CONFIGS["cagrad"], 3)
    bench.share = share
    if share[0] == 0:
        bench.spoil = lambda losses: {**losses, "task0": losses["task0"] * float("nan")}
    (log,) = bench.iterate()
    out["skipped"] = [torch.tensor(log.scalars["grads/skipped"])]
    return out


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(gradients((rank, 2)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_half_batches_make_the_gradient_of_the_whole(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    whole = gradients((0, 1))
    for name in CONFIGS:
        for ours, theirs, expected in zip(first[name], second[name], whole[name], strict=True):
            assert torch.equal(ours, theirs), name
            # IMTL's and PCGrad's later steps start from parameters that are equal to rounding only.
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    # One process's fault is everyone's: they stay together.
    assert first["skipped"] == second["skipped"] == [torch.tensor(1.0)]
