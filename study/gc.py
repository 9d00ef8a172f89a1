"""What a home holds that nothing needs any more, and how much room it takes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from study import schema
from study.home import Home
from study.journal import SUFFIX
from study.lease import Leases, Presence, gone
from study.store import exclusive, has_records, open_client, search
from study.tracking import diverged_reasons, finished_runs
from trainables import checkpoint
from trainables.data.store import MANIFEST
from trainables.errors import StoreError
from trainables.remote import Place, RemoteFile

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_DATA_FOLDER = re.compile(r".+-(?P<fingerprint>[0-9a-f]{16})")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LEFTOVERS = (".new-records-*", ".write-*", "data/.*.building-*", "format.json.*.part")
_PAGE = 1000


@dataclass(frozen=True)
class Garbage:
    """One kind of thing that can be deleted.

    Attributes:
        kind: its name.
        why: nothing needs it.
        paths: files and folders.
        bytes: that deleting them frees.
    """

    kind: str
    why: str
    paths: tuple[Place, ...]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "paths": [str(path) for path in self.paths]}


@dataclass(frozen=True)
class Found:
    """What :func:`look` finds.

    Attributes:
        garbage: by kind; kinds of which there is nothing are absent.
        drivers: runs that seem to be going on; scratch, data and half-written files are not looked at then.
    """

    garbage: tuple[Garbage, ...]
    drivers: int

    @property
    def bytes(self) -> int:
        """Freed in all."""
        return sum(each.bytes for each in self.garbage)


def look(home: Home) -> Found:
    """What could be deleted. Deletes nothing.

    Raises:
        StoreError: there is no home, or its records cannot be read.
    """
    if not home.path.is_dir():
        raise StoreError(f"home {home.path}: there is none")
    drivers = sum(not gone(home.drivers, path.stem) for path in home.drivers.glob("*.lock"))
    kinds = list(_always(home))
    if not drivers:
        kinds += _when_idle(home)
    return Found(tuple(garbage for kind in kinds if (garbage := _measured(*kind)).paths), drivers)


def collect(home: Home) -> Found:
    """Delete what :func:`look` finds, while no run can start; returns what is gone.

    Raises:
        StoreError: as :func:`look`, or something cannot be deleted.
    """
    if not home.path.is_dir():
        raise StoreError(f"home {home.path}: there is none")
    with exclusive(home):
        found = look(home)
        for garbage in found.garbage:
            for path in garbage.paths:
                _delete(path)
        return found


Kind = tuple[str, str, Iterable[Place]]


def _always(home: Home) -> Iterator[Kind]:
    """What may go while other runs are going on."""
    if not has_records(home):
        return
    client = open_client(home)
    over = {*finished_runs(client), *diverged_reasons(client)}
    live = _live(home)
    files = [path for path in home.checkpoints.rglob("*") if _is_file(path)]
    own = {path: path.name.partition(".")[0] for path in files}
    yield "checkpoints", "their trials are over", [path for path, key in own.items() if key in over - live]
    yield (
        "damaged checkpoints",
        "they were set aside and cannot be used",
        [path for path, key in own.items() if path.name.endswith(".damaged") and key not in over | live],
    )
    short = {key[:16] for key in finished_runs(client)}
    failed = [path for path in (home.path / "failed").glob("*.json") if path.stem in short]
    yield "configs of failures", "their trials were finished since", failed
    # First the folders, then the runs: what is begun between the two has no folder yet.
    folders = [path for path in home.artifacts.glob("*/*") if _RUN_ID.fullmatch(path.name) and path.is_dir()]
    deleted, known = _runs(client)
    yield (
        "artifacts",
        "their runs were deleted in MLflow (they cannot be restored after that)",
        [path for path in folders if path.name in deleted],
    )
    if home.embedded:
        yield "artifacts of no run", "no run has them", [path for path in folders if path.name not in known]


def _when_idle(home: Home) -> Iterator[Kind]:
    """What a run that is going on could have just made."""
    yield "scratch", "Ray's own results; the records have them", sorted(home.scratch.glob("*"))
    parts = home.checkpoints.rglob(f"*{checkpoint.PART}")
    leftovers = [path for pattern in _LEFTOVERS for path in home.path.glob(pattern)]
    yield "half-written files", "what wrote them has ended", {*parts, *leftovers}
    if not any(home.spool.glob(f"*{SUFFIX}")):
        yield "models", "what trained them ended before they were recorded", sorted((home.path / "models").glob("*"))
    if has_records(home):
        used = _fingerprints(open_client(home))
        folders = [path.parent for path in sorted(home.data.glob(f"[!.]*/{MANIFEST}"))]
        unused = [
            folder
            for folder in folders
            if (named := _DATA_FOLDER.fullmatch(folder.name)) and named["fingerprint"] not in used
        ]
        yield "data sets", "no recorded trial uses them; they are built again when one does", unused


def _live(home: Home) -> set[str]:
    """Trials that some driver has."""
    if home.leases_url.startswith("sqlite") and not (home.path / "leases.db").exists():
        return set()
    leases = Leases(home.leases_url, Presence(home.drivers))
    try:
        return leases.live()
    finally:
        leases.stop()


def _runs(client: MlflowClient) -> tuple[set[str], set[str]]:
    """Ids of runs that were deleted, and of all runs."""
    from mlflow.entities import ViewType

    experiments = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    deleted, known = set(), set()
    token: str | None = None
    while True:
        page = client.search_runs(experiments, "", ViewType.ALL, _PAGE, page_token=token)
        run: Run
        for run in page:
            known.add(run.info.run_id)
            if run.info.lifecycle_stage != "active":
                deleted.add(run.info.run_id)
        token = page.token
        if not token:
            return deleted, known


def _fingerprints(client: MlflowClient) -> set[str]:
    """The beginnings, as folders are named, of the fingerprints of all data that recorded trials used."""
    runs = search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")
    return {run.data.tags.get(schema.DATA_FINGERPRINT, "")[:16] for run in runs}


def _measured(kind: str, why: str, paths: Iterable[Place]) -> Garbage:
    kept = tuple(sorted(paths, key=str))
    return Garbage(kind, why, kept, sum(_size(path) for path in kept))


def _is_file(path: Place) -> bool:
    return isinstance(path, RemoteFile) or (path.is_file() and not path.is_symlink())


def _size(path: Place) -> int:
    if isinstance(path, RemoteFile):
        return path.size()
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(inner.lstat().st_size for inner in path.rglob("*") if inner.is_symlink() or not inner.is_dir())


def _delete(path: Place) -> None:
    """A link goes, what it leads to stays."""
    try:
        if isinstance(path, RemoteFile) or path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be deleted: {error.strerror}") from None
