"""How much faster one task's backward pass through the trunk could be: ``python -m benchmarks.bound --help``.

A method that wants one gradient per task makes one such pass for each. Whatever it does beside them, it makes the same
products of matrices as anybody who makes them one by one, so how near these are to the best this machine does bounds
what can be gained.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine
from benchmarks.workbench import Setting, Workbench

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu_backward")
"""Operations that are products of matrices, or are made of them."""
SIDES = (512, 1024, 2048)
"""Of square matrices; the best rate over them is taken for the machine's."""


@click.command(context_settings={"show_default": True})
@click.option("--backbone", default="vit_tiny")
@click.option("--image-size", default=128, help="side of an image, in pixels")
@click.option("--batch", default=16, help="samples of the batch")
@click.option("--rounds", default=7, help="the median of so many passes counts")
def main(backbone: str, image_size: int, batch: int, rounds: int) -> None:
    """Time one row pass of the trunk, and say how near it is to its products of matrices at this machine's best rate.

    On a CPU, processor time of one thread.
    """
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        bench = Workbench(Setting("taskonomy", backbone, image_size, batch, "cpu"), Path(scratch))
    network = bench.trainer.network
    shared = list(network.shared_parameters())
    images = torch.randn(batch, 3, image_size, image_size)
    features = network.features(images)
    direction = torch.randn_like(features)

    def row() -> tuple[Tensor, ...]:
        return torch.autograd.grad(features, shared, direction, retain_graph=True, allow_unused=True)

    row()
    seconds = _median(row, rounds)
    with FlopCounterMode(display=False) as counter:
        row()
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        row()
    spent = {event.key: event.self_cpu_time_total for event in taken.key_averages()}
    in_products = sum(spent.get(name, 0.0) for name in PRODUCTS) / sum(spent.values())
    operations = counter.get_total_flops()
    best = max(_rate(side, rounds) for side in SIDES)
    print(
        f"{backbone}, {image_size} pixels, batch {batch}: one row pass takes {1000 * seconds:.0f} ms, "
        f"{100 * in_products:.0f} % of it in products of matrices\n"
        f"{operations / 1e9:.1f} billion operations in products: {operations / seconds / 1e9:.0f} billion per second "
        f"of the pass, {operations / (seconds * in_products) / 1e9:.0f} of the products alone; "
        f"{best / 1e9:.0f} in the best square product\n"
        f"with nothing but its products, all at that rate, a pass would take {1000 * operations / best:.0f} ms: "
        f"{100 * (1 - operations / best / seconds):.0f} % less"
    )


def _median(run: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def _rate(side: int, rounds: int) -> float:
    """Operations per second of the product of two square matrices."""
    one, other, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
    times = max(1, round((2048 / side) ** 3 / 4))

    def products() -> None:
        for _ in range(times):
            torch.mm(one, other, out=out)

    products()
    return 2 * side**3 * times / _median(products, rounds)


if __name__ == "__main__":
    sys.exit(main())
