"""What one step of every method costs, beside its floor: ``python -m benchmarks.step_cost --help``."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import click

from benchmarks.contestants import Contestant, contestants
from benchmarks.machine import machine
from benchmarks.table import Row, markdown, verdicts
from benchmarks.workbench import Memory, Setting, Step, Workbench, memory_of
from trainables.allocator import LARGEST, give_back_from, keep_freed
from trainables.kernels import Kernels, check_kernels, fastest
from trainables.methods import Method

SHORT = ("gd", "loss", "famo")
"""Families whose step is one or two passes through the trunk."""


@click.command(context_settings={"show_default": True})
@click.option("--tasks", default="nyud,pascal_context,taskonomy", help="task sets: 4, 5 and 11 tasks")
@click.option("--backbone", default="vit_pico")
@click.option("--image-size", default=64, help="side of an image, in pixels")
@click.option("--batch", default=8, help="samples of the batch")
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option(
    "--kernels",
    default="torch",
    type=click.Choice(["torch", "onednn", "fastest"]),
    help="what multiplies matrices on a CPU; fastest: as this processor likes",
)
@click.option(
    "--comparisons-on",
    default="stock",
    type=click.Choice(["stock", "same"]),
    help="stock: torch's kernels, freed memory given back, as in what people write themselves; same: the trainer's",
)
@click.option("--rounds", default=5, help="each round measures one step of every contestant, in an order of its own")
@click.option(
    "--repeats",
    default=5,
    help="a short step, of gd, FAMO and loss-based methods, is measured so often in a round, and its median kept",
)
@click.option("--methods", default=None, help="names, with commas; all where not given. gd is always measured")
@click.option("--comparisons/--no-comparisons", default=True, help="the plain pattern and TorchJD")
@click.option("--comparison-every", default=1, help="measure comparisons in every so manieth round")
@click.option("--memory/--no-memory", default=True, help="peak memory, in steps of their own")
@click.option("--data", default=None, type=click.Path(path_type=Path), help="where the data set is kept")
@click.option("--seed", default=0, help="of the order in a round")
@click.option(
    "--raw",
    default=None,
    type=click.Path(path_type=Path),
    help="write every contestant's step of each round to this JSON file",
)
def main(
    tasks: str,
    backbone: str,
    image_size: int,
    batch: int,
    device: str,
    kernels: str,
    comparisons_on: str,
    rounds: int,
    repeats: int,
    methods: str | None,
    comparisons: bool,
    comparison_every: int,
    memory: bool,
    data: Path | None,
    seed: int,
    raw: Path | None,
) -> None:
    """Time one step of every method, in rounds that measure all of them, and print it beside gradient descent's.

    On a CPU, processor time of one thread; on a GPU, wall time between two waits for it. The network, the optimizer and
    the batch are the same for all; data loading and evaluation are left out.
    """
    # Of TorchJD, at its first step: attention without a batching rule, which costs it time, and cvxpy's about Nash-MTL.
    warnings.filterwarnings("ignore", message="There is a performance drop|You are solving a parameterized problem")
    chosen: Kernels = fastest() if kernels == "fastest" else "onednn" if kernels == "onednn" else "torch"
    check_kernels(chosen)
    print(machine(device))
    print(
        f"kernels {chosen}, comparisons on {comparisons_on}; {backbone}, {image_size} pixels, batch {batch}, "
        f"{rounds} rounds, short steps {repeats} times in each; "
        f"{'wall' if device == 'cuda' else 'processor'} time of a step"
    )
    only = None if methods is None else methods.split(",")
    written: dict[str, dict[str, list[dict[str, object]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = data if data is not None else Path(scratch)
        for task_set in tasks.split(","):
            setting = Setting(task_set, backbone, image_size, batch, device, chosen)
            stock = setting if comparisons_on == "same" else replace(setting, kernels="torch")
            bench = Workbench(setting, root)
            count, shared = len(bench.trainer.tasks), bench.shared_bytes
            everyone = contestants(count, only, comparisons=comparisons, device=device)
            # What people write themselves knows nothing of the layers here.
            settings = {
                who.label: stock if who.of else replace(setting, cut=who.family == "streamed") for who in everyone
            }
            benches = {setting: bench}
            benches |= {other: Workbench(other, root) for other in set(settings.values()) - {setting}}
            steps = _measure(
                {label: benches[its] for label, its in settings.items()},
                everyone,
                rounds,
                repeats,
                comparison_every,
                random.Random(seed),
                keep=comparisons_on == "same",
            )
            del bench, benches
            held = {
                who.label: memory_of(settings[who.label], root, who.make) for who in everyone if memory and who.memory
            }
            rows = [_row(who, count, steps, held, shared) for who in everyone]
            print(f"\n## K = {count} ({task_set})\n\n{markdown(rows)}\n\n{verdicts(rows)}", flush=True)
            written[task_set] = {
                label: [{"round": index, **asdict(step)} for index, step in taken.items()]
                for label, taken in steps.items()
            }
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.2f}")
    if raw is not None:
        raw.write_text(json.dumps(written, indent=1), encoding="utf-8")


def _measure(
    benches: Mapping[str, Workbench],
    everyone: list[Contestant],
    rounds: int,
    repeats: int,
    comparison_every: int,
    order: random.Random,
    *,
    keep: bool,
) -> dict[str, dict[int, Step]]:
    """A step by contestant and round, the median of its steps there.

    The first ones of all, in which memory is had and libraries are loaded, are not kept.
    """

    def step(who: Contestant) -> Step:
        if who.of and not keep:
            give_back_from(2 * LARGEST)
        else:
            keep_freed()
        return benches[who.label].step(built[who.label])

    built: dict[str, Method] = {who.label: who.make(benches[who.label].trainer.update) for who in everyone}
    for who in everyone:
        # The second step of selective updates is the first that clusters, the third the first with groups of the map.
        for _ in range(3 if who.family == "selective" else 1):
            step(who)
    steps: dict[str, dict[int, Step]] = {who.label: {} for who in everyone}
    for index in range(rounds):
        for mine in (True, False):
            now = [who for who in everyone if mine != bool(who.of) and (mine or index % comparison_every == 0)]
            # A step that differs from gd's by a hundredth, between steps that differ by five, is seen only in many.
            turns = [who for who in now for _ in range(repeats if who.family in SHORT else 1)]
            order.shuffle(turns)
            if turns:
                # One step that is not kept: the allocator may just have been told otherwise.
                step(turns[0])
            taken: dict[str, list[Step]] = {who.label: [] for who in now}
            for who in turns:
                taken[who.label].append(step(who))
            for label, measured in taken.items():
                steps[label][index] = sorted(measured, key=lambda one: one.seconds)[len(measured) // 2]
    return steps


def _row(
    who: Contestant, tasks: int, steps: dict[str, dict[int, Step]], held: dict[str, Memory], shared_bytes: int
) -> Row:
    memory, least = held.get(who.label), held.get("gd")
    if memory is None or least is None:
        return Row(who, tasks, steps[who.label], steps["gd"])
    stack, over, own = tasks * shared_bytes, memory.peak - least.peak, memory.state - least.state
    return Row(
        who,
        tasks,
        steps[who.label],
        steps["gd"],
        peak=memory.peak,
        stacks_over_gd=over / stack,
        peak_to_gd=memory.peak / least.peak,
        own_bytes=own,
        stacks_beside_own=(over - own) / stack,
    )


if __name__ == "__main__":
    sys.exit(main())
