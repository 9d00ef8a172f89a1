"""What a sweep costs beside its training, and how that grows: ``python -m benchmarks.sweep --help``."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click

from benchmarks.step_cost import machine
from benchmarks.sweepers import SWEEPERS, Ended, Load, Sweep, grid_of, sweep

OURS = tuple(name for name in SWEEPERS if name.startswith("mtl-study"))
STOCK = ("Ray Tune, actors reused", "Ray Tune")
_ALONE = "bare loop"
_CELLS_SECONDS = 10.0


@click.command(context_settings={"show_default": True})
@click.option("--trials", default=100)
@click.option("--seconds", default=5.0, help="of a trial that sleeps")
@click.option("--reports", default=20, help="of a trial")
@click.option("--slots", default=2, help="trials at a time")
@click.option("--iterations", default=0, help="of a trial that trains, instead of sleeping")
@click.option("--only", default=None, help="sweepers, with semicolons; all where not given")
@click.option("--growth", default="10,100,1000", help="numbers of no-op trials of one report, for our own; empty: none")
@click.option("--cells", default=100_000, help="of a plan that is timed, all different; 0: none")
@click.option("--raw", default=None, type=click.Path(path_type=Path), help="write every trial's end to this JSON file")
def main(
    trials: int,
    seconds: float,
    reports: int,
    slots: int,
    iterations: int,
    only: str | None,
    growth: str,
    cells: int,
    raw: Path | None,
) -> None:
    """Sweep equal trials with each sweeper, one after another, and print efficiency and overhead beside each other.

    Start-up and the first trials are excluded. Efficiency is training seconds to slots times wall time; overhead is
    the wall time per trial that is no training.
    """
    names = list(SWEEPERS) if only is None else [name.strip() for name in only.split(";")]
    unknown = [name for name in names if name not in SWEEPERS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]}: one of {'; '.join(SWEEPERS)} is wanted", param_hint="--only")
    print(machine("cpu"))
    idle = iterations == 0
    load = Load(trials, seconds / reports, iterations or reports, slots, idle)
    print(f"{trials} trials, {f'{seconds:g} s asleep' if idle else f'{iterations} iterations'}, {slots} slots\n")
    print(
        "| sweeper | trials | efficiency | overhead, s per trial | driver MB | load |\n|:---|---:|---:|---:|---:|---:|"
    )
    overheads: dict[str, float] = {}
    efficiencies: dict[str, float] = {}
    written: dict[str, object] = {}
    for name in names:
        done = sweep(name, load)
        used = 1 if name == _ALONE else slots
        efficiencies[name], overheads[name] = measure(done.ended, used)
        print(
            f"| {name} | {len(done.ended)} | {efficiencies[name]:.3f} | {overheads[name]:.4f} | "
            f"{done.memory / 2**20:.0f} | {os.getloadavg()[0]:.1f} |",
            flush=True,
        )
        written[name] = asdict(done)
    counts = [int(count) for count in growth.split(",") if count]
    grown = {name: _growth(name, counts, slots, written) for name in names if name in OURS and counts}
    planned = _plan(cells) if cells else None
    print("\n" + "\n".join(verdicts(efficiencies, overheads, grown, planned)))
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.2f}")
    if raw is not None:
        raw.write_text(json.dumps(written, indent=1), encoding="utf-8")


def measure(ended: list[Ended], slots: int) -> tuple[float, float]:
    """Efficiency, and overhead in seconds per trial, after warm-up: from the end of the trial that is the last of the
    first two of each slot (or of a tenth, where that is more) to the end of the last.

    Raises:
        ValueError: too few trials to leave any out.
    """
    warm = max(2 * slots, len(ended) // 10)
    if len(ended) <= warm:
        raise ValueError(f"more than {warm} trials are wanted, got {len(ended)}")
    counted = ended[warm:]
    wall = ended[-1].at - ended[warm - 1].at
    trained = sum(one.seconds for one in counted)
    return trained / (slots * wall), (wall - trained / slots) / len(counted)


def _growth(name: str, counts: list[int], slots: int, written: dict[str, object]) -> dict[int, tuple[float, Sweep]]:
    # In turns, since a machine is faster at one time than at another; few trials are over in a moment.
    times = {count: 5 if count <= 100 else 3 if count <= 1000 else 1 for count in counts}
    swept: dict[int, list[Sweep]] = {count: [] for count in counts}
    for turn in range(max(times.values())):
        for count in counts:
            if turn < times[count]:
                swept[count].append(sweep(name, Load(count, 0.0, 1, slots, idle=True)))
    print(f"\n{name}: no-op trials of one report")
    print("\n| trials | sweeps | overhead, s per trial | least-most | driver MB |\n|---:|---:|---:|---:|---:|")
    found = {}
    for count, sweeps in swept.items():
        each = [measure(done.ended, slots)[1] for done in sweeps]
        largest = max(sweeps, key=lambda done: done.memory)
        found[count] = (median(each), largest)
        extremes = f"{min(each):.4f}-{max(each):.4f}"
        print(f"| {count} | {len(each)} | {median(each):.4f} | {extremes} | {largest.memory / 2**20:.0f} |", flush=True)
        written[f"{name}, {count}"] = [asdict(done) for done in sweeps]
    return found


def _plan(cells: int) -> float:
    started = time.perf_counter()
    plan = grid_of(cells)
    seconds = time.perf_counter() - started
    print(f"\nplan of {len(plan.rows)} cells that all differ: {seconds:.2f} s")
    return seconds


def verdicts(
    efficiencies: dict[str, float],
    overheads: dict[str, float],
    grown: dict[str, dict[int, tuple[float, Sweep]]],
    planned: float | None,
) -> list[str]:
    """A line for every target that was measured."""
    lines = []
    for name in OURS:
        if name in overheads:
            lines.append(_line(f"{name}: efficiency at least 0.90", efficiencies[name], efficiencies[name] >= 0.90))
            lines.append(_line(f"{name}: overhead at most 0.10 s", overheads[name], overheads[name] <= 0.10))
        stock = [overheads[other] for other in STOCK if other in overheads]
        if name in overheads and stock:
            ratio = min(stock) / max(overheads[name], 1e-9)
            lines.append(_line(f"{name}: 8 times less overhead than stock Ray Tune", ratio, ratio >= 8))
        if len(grown.get(name, {})) > 1:
            each = [overhead for overhead, _ in grown[name].values()]
            spread = max(each) / max(min(each), 1e-9)
            lines.append(_line(f"{name}: overhead flat within 20%, most to least", spread, spread <= 1.2))
            most = max(done.memory for _, done in grown[name].values()) / 2**30
            lines.append(_line(f"{name}: driver memory under 1 GB at {max(grown[name])} trials", most, most < 1.0))
    if planned is not None:
        lines.append(_line(f"plan in under {_CELLS_SECONDS:g} s", planned, planned < _CELLS_SECONDS))
    return lines


def _line(what: str, value: float, met: bool) -> str:
    return f"- {what}: {value:.3f}, {'met' if met else 'missed'}"


if __name__ == "__main__":
    sys.exit(main())
