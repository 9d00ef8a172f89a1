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
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine
from benchmarks.workbench import Setting, Workbench
from trainables.kernels import Kernels, has_onednn, product

SIDES = (512, 1024, 2048)
"""Of square matrices; the best rate over them, and over the kernels, is taken for the machine's."""


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
    everyone: list[Kernels] = ["torch", "onednn"] if has_onednn() else ["torch"]
    rates = {kernels: max(_rate(kernels, side, rounds) for side in SIDES) for kernels in everyone}
    best = max(rates.values())
    told = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items())
    print(f"best square product, billion operations per second: {told}")
    operations = 0
    for kernels in everyone:
        row = _row(Setting("taskonomy", backbone, image_size, batch, "cpu", kernels))
        if not operations:
            # It knows torch's operators; the other kernels make the same products.
            with FlopCounterMode(display=False) as counter:
                row()
            operations = counter.get_total_flops()
            print(f"{backbone}, {image_size} pixels, batch {batch}: {operations / 1e9:.1f} billion of a row pass")
        seconds = _median(row, rounds)
        print(
            f"{kernels}: {1000 * seconds:.0f} ms, {operations / seconds / 1e9:.0f} billion operations per second; with "
            f"nothing but them, all at the best rate, {1000 * operations / best:.0f} ms: "
            f"{100 * (1 - operations / best / seconds):.0f} % less"
        )


def _row(setting: Setting) -> Callable[[], tuple[Tensor, ...]]:
    with tempfile.TemporaryDirectory() as scratch:
        network = Workbench(setting, Path(scratch)).trainer.network
    shared = list(network.shared_parameters())
    features = network.features(torch.randn(setting.batch, 3, setting.image_size, setting.image_size))
    direction = torch.randn_like(features)

    def row() -> tuple[Tensor, ...]:
        return torch.autograd.grad(features, shared, direction, retain_graph=True, allow_unused=True)

    row()
    return row


def _median(run: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def _rate(kernels: Kernels, side: int, rounds: int) -> float:
    """Operations per second of the product of two square matrices."""
    one, other = torch.randn(side, side), torch.randn(side, side)
    times = max(1, round((2048 / side) ** 3 / 4))

    def products() -> None:
        for _ in range(times):
            product(one, other, kernels)

    products()
    return 2 * side**3 * times / _median(products, rounds)


if __name__ == "__main__":
    sys.exit(main())
