"""``python -m tests.chaos --faults 200 --seed 0``: rounds until so many faults have struck, and what came of them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .rounds import KINDS, SLOW, Arena, Tally, drawn, kinds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", "-n", type=int, default=200, help="go on until so many have struck")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next one has the next seed")
    parser.add_argument("--rounds", type=int, default=10_000, help="at most so many")
    parser.add_argument("--kind", choices=sorted({*KINDS, *SLOW}), help="rounds of this kind only")
    parser.add_argument("--outage", type=float, help="seconds that servers and databases stay away")
    parser.add_argument("--keep", type=Path, help="folder for the homes of rounds that fail")
    given = parser.parse_args()
    tally = Tally()
    # In memory where that is to be had: what is killed here is processes, and memory is as good as a disk for those.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        arena = Arena(given.keep or Path(folder))
        for seed in range(given.seed, given.seed + given.rounds):
            planned = drawn(seed, [given.kind] if given.kind else kinds())
            if given.outage:
                planned = planned.lasting(given.outage)
            before = len(tally.failures)
            arena.hold(planned, tally)
            verdict = "wrong" if len(tally.failures) > before else "right"
            print(f"{verdict}  {tally.faults:4} faults  seed {seed}  {planned}", flush=True)
            for failure in tally.failures[before:]:
                print(failure, flush=True)
            if tally.faults >= given.faults:
                break
    print(
        f"{tally.faults} faults injected in {tally.rounds} rounds, {tally.lost} cells lost, {tally.repeated} cells "
        f"repeated, {tally.different} results that differ, {tally.hung} runs that hang, {tally.odd} homes not sound"
    )
    for failure in tally.failures:
        seed = failure.split(",")[0].split()[1]
        # A round drawn with a kind is another one than that of its seed alone.
        kind = f" --kind '{given.kind}'" if given.kind else ""
        kind += f" --outage {given.outage:g}" if given.outage else ""
        print(f"to repeat: python -m tests.chaos --seed {seed}{kind} --rounds 1")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
