"""Looking through a whole home: records, artifacts, checkpoints, leases, spool, data; and mending what is safe."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from study import schema
from study.custody import TWICE
from study.home import Home
from study.journal import END, SUFFIX, Journal, Operation
from study.lease import Leases, Presence, gone
from study.migrate import FORMAT, migrate, read_format
from study.sink import MlflowSink
from study.spool import leftovers, recover
from study.store import has_records, open_client, search
from study.tracking import finished_runs
from trainables import checkpoint
from trainables.data.store import verify as check_data
from trainables.errors import CheckpointError, DataError, StoreError
from trainables.remote import Place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Level = Literal["ok", "note", "mended", "wrong"]
_SHOWN = 3


@dataclass(frozen=True)
class Observation:
    """One thing looked at.

    Attributes:
        name: what.
        level: ``ok``; ``note`` for what the next run mends by itself; ``mended``; ``wrong``.
        found: what there is.
        fix: what can be done about it.
    """

    name: str
    level: Level
    found: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


def inspect(home: Home, *, repair: bool = False) -> list[Observation]:
    """Look through a home.

    Args:
        home: which.
        repair: mend what loses nothing: close runs whose driver is gone, deliver what waits in spools, give back
            leases of drivers that have ended, delete leftovers of interrupted writes and of finished trials, set
            damaged checkpoints aside, take back the mark of a result from runs that lack their final metrics.

    Raises:
        StoreError: there is no home, or it cannot be opened at all.
    """
    if not home.path.is_dir():
        raise StoreError(f"home {home.path}: there is none")
    if not repair:
        return list(_Inspection(home, repair=False).all())
    with home.critical():
        return list(_Inspection(home, repair=True).all())


class _Inspection:
    def __init__(self, home: Home, *, repair: bool) -> None:
        self.home = home
        self.repair = repair

    def all(self) -> Iterator[Observation]:
        home = self.home
        found = read_format(home)
        if self.repair:
            migrate(home)
        old = 0 < found < FORMAT
        yield self._told("format", f"{found or FORMAT}", old, "the next run raises it", repaired=f"raised to {FORMAT}")
        if not has_records(home):
            yield Observation("records", "note", "none yet", "mtl-study run table4_d5")
            yield from self._files(set(), set())
            return
        wrong = _integrity(home.database) if home.embedded else ""
        if wrong:
            yield Observation(
                "database", "wrong", wrong, f"restore {home.database.name} from a backup; or move it away"
            )
            return
        size = f"{home.database.stat().st_size / 2**20:.1f} MiB, sound" if home.embedded else home.records
        yield Observation("database", "ok", size)
        client = open_client(home)
        yield from self._spools(client)
        live = yield from self._leases()
        yield from self._records(client, live)
        yield from self._files(set(finished_runs(client)), live)

    def _told(
        self, name: str, found: str, bad: bool, fix: str, *, repaired: str = "", level: Level = "note"
    ) -> Observation:
        if not bad:
            return Observation(name, "ok", found)
        if self.repair and repaired:
            return Observation(name, "mended", found, repaired)
        return Observation(name, level, found, fix)

    # ---- drivers ---------------------------------------------------------------------------------

    def _spools(self, client: MlflowClient) -> Iterator[Observation]:
        every = sorted(self.home.spool.glob(f"*{SUFFIX}"))
        left = leftovers(self.home.spool, self._gone)
        waiting = {path: Journal(path).read() for path in left}
        operations = sum(len(contents.waiting) for contents in waiting.values())
        damaged = sum(contents.damaged for contents in waiting.values())
        text = f"{operations} changes of {len(left)} drivers that ended, {len(every) - len(left)} of live ones"
        if damaged:
            yield Observation("spool lines", "wrong", f"{damaged} damaged", "their runs will be trained again")
        if self.repair:
            finished = {key: run.info.run_id for key, run in finished_runs(client).items()} if left else {}

            def guard(operation: Operation, run_id: str) -> str:
                counting = finished.get(str(operation.body.get("key", "")), run_id) if operation.kind == END else run_id
                return "" if counting == run_id else TWICE

            for path in left:
                recover(path, MlflowSink(client), guard)
        yield self._told("spool", text, bool(left), "the next run delivers them", repaired="delivered")

    def _gone(self, owner: str) -> bool:
        return gone(self.home.drivers, owner)

    def _leases(self) -> Generator[Observation, None, set[str]]:
        """The keys that live drivers have."""
        path = self.home.path / "leases.db"
        if self.home.leases_url.startswith("sqlite") and not path.exists():
            yield Observation("leases", "ok", "none")
            return set()
        presence = Presence(self.home.drivers)
        leases = Leases(self.home.leases_url, presence)
        try:
            every = leases.all()
            stale = [lease for lease in every if not lease.live]
            if self.repair:
                leases.drop_stale()
        except StoreError as error:
            yield Observation("leases", "wrong", str(error), f"when no run is going on, delete {path}")
            return set()
        finally:
            leases.stop()
        text = f"{len(every) - len(stale)} live, {len(stale)} of drivers that ended"
        yield self._told("leases", text, bool(stale), "they run out by themselves", repaired="given back")
        files = [file for file in self.home.drivers.glob("*.lock") if self._gone(file.stem)]
        if self.repair:
            for file in files:
                file.unlink(missing_ok=True)
        yield self._told("drivers", f"{len(files)} files of ended ones", bool(files), "harmless", repaired="deleted")
        return {lease.key for lease in every if lease.live}

    # ---- records ---------------------------------------------------------------------------------

    def _records(self, client: MlflowClient, live: set[str]) -> Iterator[Observation]:
        runs = list(search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
        states = Counter(run.data.tags.get(schema.STATUS, "none") for run in runs)
        shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
        yield Observation("trial runs", "ok", shown)
        newer = [run for run in runs if not _schema_known(run)]
        if newer:
            yield Observation("schema", "wrong", _named(newer, "written by another version"), "use that version")
        end = MlflowSink(client)

        def close(run: Run, status: str, reason: str) -> None:
            tags = {schema.STATUS: status, schema.STATUS_REASON: reason}
            end.apply(run.info.run_id, "end", {"status": "KILLED", "tags": tags}, None)

        orphans = [r for r in runs if r.info.status == "RUNNING" and r.data.tags.get(schema.TRIAL_KEY) not in live]
        if self.repair:
            for run in orphans:
                close(run, schema.INTERRUPTED, "its driver ended before it did")
        yield self._told(
            "orphans",
            f"{len(orphans)} runs without a driver",
            bool(orphans),
            "the next run closes them",
            repaired="closed",
        )
        whole = [r for r in runs if r.info.status == "FINISHED" and r.data.tags.get(schema.STATUS) == schema.COMPLETE]
        short = [run for run in whole if _lacks(run)]
        if self.repair:
            for run in short:
                close(run, schema.FAILED, f"recorded as complete without {_lacks(run)}")
        yield self._told(
            "final metrics",
            _named(short, "are complete without them") if short else f"there, of {len(whole)} finished runs",
            bool(short),
            "--repair takes back their mark, the next run trains them again",
            repaired="not counted any more",
            level="wrong",
        )
        keys = Counter(run.data.tags[schema.TRIAL_KEY] for run in whole)
        twice = [key for key, count in keys.items() if count > 1]
        text = f"{len(keys)} trials finished once, {len(twice)} more than once"
        yield Observation("results", "note" if twice else "ok", text, "the earliest run counts" if twice else "")
        missing = [run for run in whole if _missing(run, self.home)]
        if missing:
            yield Observation("artifacts", "wrong", _named(missing, "lack one"), "restore them from a backup")
        else:
            yield Observation("artifacts", "ok", f"there, of {len(whole)} finished runs")

    # ---- files -----------------------------------------------------------------------------------

    def _files(self, finished: set[str], live: set[str]) -> Iterator[Observation]:
        folder = self.home.checkpoints
        every: list[Place] = sorted(folder.rglob("*.ckpt"))
        kept = [path for path in every if path.stem not in finished]
        over = [path for path in every if path.stem in finished and path.stem not in live]
        yield self._told(
            "checkpoints",
            f"{len(kept)} of unfinished trials, {len(over)} of finished ones",
            bool(over),
            "the latter are not needed",
            repaired="the latter deleted",
        )
        bad = {path: why for path in kept if path.stem not in live and (why := _why_bad(path))}
        yield self._told(
            "checkpoint sums",
            next(iter(bad.values())) + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else "")
            if bad
            else f"right, of {len(kept)}",
            bool(bad),
            "--repair sets them aside; their trials start over or from the checkpoint before",
            repaired="set aside",
            level="wrong",
        )
        parts = [path for path in folder.rglob(f"*{checkpoint.PART}") if path.name.split(".")[0] not in live]
        yield self._told("unfinished writes", f"{len(parts)} files", bool(parts), "harmless", repaired="deleted")
        if self.repair:
            self._each(over, checkpoint.remove)
            self._each(bad, _set_aside)
            self._each(parts, lambda path: path.unlink(missing_ok=True))
        if self.home.data.is_dir():
            try:
                sound = check_data(self.home.data)
                yield Observation("data", "ok", f"{len(sound)} data sets, sums right")
            except DataError as error:
                yield Observation("data", "wrong", str(error), "delete its folder; it is built again")

    @staticmethod
    def _each(paths: Iterable[Place], act: Callable[[Place], object]) -> None:
        for path in paths:
            act(path)


def _integrity(path: Path) -> str:
    """What SQLite finds wrong with a file, in one line; empty where nothing is."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            first = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes a damaged schema as it is
        return str(error)
    return "" if first == "ok" else " ".join(first.split())


def _schema_known(run: Run) -> bool:
    version = run.data.tags.get(schema.SCHEMA, "")
    return version.isdigit() and int(version) <= schema.SCHEMA_VERSION


def _named(runs: list[Run], what: str) -> str:
    shown = ", ".join(str(run.info.run_id)[:12] for run in runs[:_SHOWN])
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return f"{len(runs)} runs {what}: {shown}{more}"


def _lacks(run: Run) -> str:
    """A final metric that a run should have and has not; empty where it has all."""
    tasks = run.data.params.get("tasks.include", "None")
    wanted = [schema.cost("iterations")]
    named = {name.split("/")[1] for name in run.data.metrics if name.startswith(f"{schema.VAL}/")}
    if not named:
        return f"any {schema.VAL} metric"
    wanted += [
        name.replace(schema.VAL, schema.TEST, 1) for name in run.data.metrics if name.startswith(f"{schema.VAL}/")
    ]
    wanted += [schema.train_loss(task) for task in named]
    if tasks.startswith("["):
        listed = {part.strip(" '\"") for part in tasks.strip("[]").split(",")}
        wanted += [schema.train_loss(task) for task in listed if task]
    return next((name for name in wanted if name not in run.data.metrics), "")


def _missing(run: Run, home: Home) -> str:
    """An artifact that a run should have and has not; empty where it has all, or they are elsewhere."""
    at = urlsplit(run.info.artifact_uri)
    if at.scheme not in ("", "file"):
        return ""
    folder = Path(url2pathname(at.path))
    places = (folder, home.artifacts.joinpath(*folder.parts[-3:]))
    wanted = [schema.CONFIG_FILE]
    if schema.GROUP_COUNT in run.data.metrics:
        wanted.append(schema.HISTORY_FILE)
    return next((name for name in wanted if not any((place / name).is_file() for place in places)), "")


def _why_bad(path: Place) -> str:
    try:
        checkpoint.check(path)
    except CheckpointError as error:
        return str(error)
    return ""


def _set_aside(path: Place) -> None:
    checkpoint.set_aside(path)
    before = checkpoint.previous(path)
    if before.exists() and not _why_bad(before):
        checkpoint.move(before, path)
