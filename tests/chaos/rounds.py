"""Rounds: a fresh home, drivers that are disturbed one after another, drivers that are not until one is through."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from .faults import (
    CLUSTER,
    DISK,
    FILLER,
    LEASES,
    PAIR,
    POINTS,
    SEARCH,
    SEARCHED,
    SERVER,
    STORE,
    STORES,
    Fault,
    Injector,
    draw,
    free_later,
)
from .servers import DOWN_SECONDS, MlflowServer, PostgresServer, Records, Server, installed, kept_up
from .sweep import SEARCHING, STUDY, Result, drive, result

KINDS = ("kills", "kills", "kills", "checkpoints", "store", "store", "disk", "pair", "search")
SLOW = ("ray", "server", "postgres", "postgres search")
"""A cluster or server has to be started for each."""
SEARCHES = ("search", "postgres search")
TRIES = 4
"""Of undisturbed drivers at the end of a round; the first has to do, but for a failure they may take up again."""
LIMIT = 240.0
"""Seconds a driver may take, outages aside, before it is taken to hang."""
DISK_BYTES = "24m"
HURT = Fault("the newest checkpoint", "damage", 1)


@dataclass
class Tally:
    """What came of rounds.

    Attributes:
        faults: that struck.
        lost: cells without a result.
        repeated: cells with more than one.
        different: cells whose result is not that of the undisturbed sweep, bit for bit.
        hung: drivers that did not end.
        odd: homes with something left over.
        failures: what to repeat.
    """

    faults: int = 0
    rounds: int = 0
    lost: int = 0
    repeated: int = 0
    different: int = 0
    hung: int = 0
    odd: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return self.lost + self.repeated + self.different + self.hung + self.odd


@dataclass(frozen=True)
class Round:
    """Disturbed runs, each with its faults.

    Attributes:
        seed: that it was drawn from.
        kind: of :data:`KINDS` or :data:`SLOW`.
        runs: by run, its faults.
        down: seconds between the end of a server and its next start.
    """

    seed: int
    kind: str
    runs: tuple[tuple[Fault, ...], ...]
    down: float = DOWN_SECONDS

    def __str__(self) -> str:
        down = f", {self.down:.0f} s without a server" if self.down != DOWN_SECONDS else ""
        return f"{self.kind}: " + "; ".join(" and ".join(map(str, run)) for run in self.runs) + down

    def lasting(self, seconds: float) -> Round:
        """The round with stores that are away for so long."""
        runs = [
            [replace(fault, seconds=seconds) if fault.act in STORES else fault for fault in run] for run in self.runs
        ]
        return replace(self, runs=tuple(map(tuple, runs)), down=seconds)

    @property
    def limit(self) -> float:
        """Seconds a driver may take before it is taken to hang."""
        return LIMIT + max([self.down, *(fault.seconds for run in self.runs for fault in run)])


def kinds() -> tuple[str, ...]:
    """All that can be held on this machine, the quick ones more often."""
    slow = [kind for kind in SLOW if installed() or not kind.startswith("postgres")]
    return (*KINDS, *slow)


def drawn(seed: int, kinds: Sequence[str] = KINDS) -> Round:
    """The round of a seed, of one of the kinds."""
    chance = random.Random(seed)
    kind = chance.choice(kinds) if len(kinds) > 1 else kinds[0]
    one = {
        "kills": POINTS,
        "checkpoints": {"a report": POINTS["a report"]},
        "store": {"the store": STORE["the store"]},
        "disk": DISK,
        "pair": PAIR,
        "search": {**SEARCH, "a report": POINTS["a report"], "a transaction": POINTS["a transaction"]},
        "ray": CLUSTER,
        "server": SERVER,
        "postgres": {**SERVER, **LEASES},
        "postgres search": {**SEARCHED, "the server": SERVER["the server"]},
    }[kind]
    runs = []
    for _ in range(
        {"kills": 3, "checkpoints": 2, "search": 3, "server": 2, "postgres": 2, "postgres search": 2}.get(kind, 1)
    ):
        faults = [draw(chance, one)]
        if kind == "checkpoints":
            faults.append(HURT)
        if kind == "store" and chance.random() < 0.7:
            further = {"the spool": STORE["the spool"], "a report": POINTS["a report"]}
            faults.append(draw(chance, further))
        runs.append(tuple(faults))
    return Round(seed, kind, tuple(runs))


class Arena:
    """Where rounds are held.

    Args:
        folder: for homes and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Drivers are forked from a process that has imported everything, and nothing else.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([drive.__module__])
        self._calm: dict[str, Result] = {}

    def hold(self, planned: Round, tally: Tally) -> None:
        """Hold a round and count what came of it."""
        kind = SEARCHING if planned.kind in SEARCHES else STUDY
        calm = self._undisturbed(kind)
        place = self.folder / f"{planned.seed}-{planned.kind}"
        place.mkdir(parents=True)
        problems: list[str] = []
        with _disk(place / "home", small=planned.kind == "disk") as home, _records(planned, home) as records:
            for faults in planned.runs:
                self._disturb(planned, kind, faults, home, records, problems)
            struck = place / "struck"
            tally.faults += len(list(struck.iterdir()))
            for attempt in range(TRIES):
                records.ready()
                calm_injector = Injector((), struck, home, records.tracking)
                executor = "ray" if planned.kind == "ray" else "local"
                code = self._run(kind, executor, calm_injector, place, planned.limit)
                if code is None:
                    problems.append("an undisturbed run hangs")
                if code == 0:
                    break
                problems += [f"undisturbed run {attempt + 1} ends with {code}"] if attempt else []
            self._judge(calm, result(kind, home, records), tally, problems)
        tally.rounds += 1
        tally.hung += sum("hang" in problem for problem in problems)
        if problems:
            log = (place / "log").read_text()[-3000:]
            tally.failures.append(f"seed {planned.seed}, {planned}\n    " + "\n    ".join([*problems, log]))
        else:
            shutil.rmtree(place)

    def _undisturbed(self, kind: str) -> Result:
        if kind not in self._calm:
            place = self.folder / f"calm-{kind}"
            home = place / "home"
            home.mkdir(parents=True)
            code = self._run(kind, "local", Injector((), place, home), place, LIMIT)
            self._calm[kind] = result(kind, home)
            if code != 0 or self._calm[kind].odd or not self._calm[kind].cells:
                raise RuntimeError(
                    f"undisturbed: ends with {code}: {self._calm[kind].odd}\n{(place / 'log').read_text()}"
                )
        return self._calm[kind]

    def _disturb(
        self,
        planned: Round,
        kind: str,
        faults: tuple[Fault, ...],
        home: Path,
        records: Records,
        problems: list[str],
    ) -> None:
        place = home.parent
        (place / "struck").mkdir(exist_ok=True)
        own = [fault for fault in faults if fault is not HURT]
        injector = Injector(own, place / "struck", home, records.tracking)
        executor = "ray" if planned.kind == "ray" else "local"
        lease = 3.0 if planned.kind == "pair" else 60.0
        others = []
        if planned.kind == "pair":
            others.append(self._start(kind, executor, Injector((), place / "struck", home), place, lease))
        timer = free_later(home, 12.0) if planned.kind == "disk" else None
        code = self._run(kind, executor, injector, place, planned.limit, lease)
        if code is None:
            problems.append(f"a run hangs after {', '.join(map(str, faults))}")
        for other in others:
            if _ended(other, planned.limit) is None:
                problems.append("the other driver hangs")
        if timer is not None:
            timer.cancel()
            (home / FILLER).unlink(missing_ok=True)
        if HURT in faults:
            _damage(home, random.Random(planned.seed), place / "struck")

    def _start(
        self, kind: str, executor: str, injector: Injector, place: Path, lease: float
    ) -> multiprocessing.Process:
        process = self._processes.Process(target=drive, args=(kind, executor, injector, place / "log", lease))
        process.start()
        return process  # type: ignore[return-value]

    def _run(
        self, kind: str, executor: str, injector: Injector, place: Path, limit: float, lease: float = 60.0
    ) -> int | None:
        return _ended(self._start(kind, executor, injector, place, lease), limit)

    @staticmethod
    def _judge(calm: Result, found: Result, tally: Tally, problems: list[str]) -> None:
        for key, (expected, *_) in calm.cells.items():
            runs = found.cells.get(key, [])
            if not runs:
                tally.lost += 1
                problems.append(f"cell {key[:12]} is lost")
            if len(runs) > 1:
                tally.repeated += 1
                problems.append(f"cell {key[:12]} has {len(runs)} results")
            if any(run != expected for run in runs):
                tally.different += 1
                problems.append(f"cell {key[:12]} differs")
        if strange := found.cells.keys() - calm.cells.keys():
            tally.different += len(strange)
            problems.append(f"{len(strange)} cells that the undisturbed sweep has not")
        if found.sequence != calm.sequence:
            tally.different += 1
            problems.append("the search's trials differ")
        if found.odd:
            tally.odd += 1
            problems += found.odd


def _ended(process: multiprocessing.Process, limit: float) -> int | None:
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def _damage(home: Path, chance: random.Random, struck: Path) -> None:
    """Flip a bit of a checkpoint, or cut it."""
    for path in sorted((home / "checkpoints").glob("*/*.ckpt"))[:1]:
        data = bytearray(path.read_bytes())
        place = chance.randrange(len(data))
        if chance.random() < 0.5:
            data[place] ^= 1 << chance.randrange(8)
        else:
            del data[place:]
        path.write_bytes(bytes(data))
        (struck / f"damage_{len(list(struck.iterdir()))}").touch()


@contextmanager
def _records(planned: Round, home: Path) -> Iterator[Records]:
    """Where the records of a round are; behind a server that is started again whenever it ends."""
    if planned.kind not in ("server", "postgres", "postgres search"):
        yield Records.embedded(home)
        return
    # Not in memory: another user runs PostgreSQL, and may not look into the folder of the homes.
    with tempfile.TemporaryDirectory(prefix="chaos-server-", ignore_cleanup_errors=True) as folder:
        server: Server = (MlflowServer if planned.kind == "server" else PostgresServer)(Path(folder))
        with kept_up(server, home.parent, planned.down) as records:
            yield records


@contextmanager
def _disk(home: Path, *, small: bool) -> Iterator[Path]:
    """A home; on a disk of its own where this user may mount one."""
    home.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(home)]
    mounted = small and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield home
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(home)], check=True)
