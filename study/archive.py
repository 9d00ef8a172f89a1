"""Records of a home written into one archive; :mod:`study.merge` brings it into another home."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from study import schema
from study.home import Home
from study.parcel import Writer, written
from study.portable import ExperimentRecord, encode, record_of
from study.store import open_client, search
from trainables.errors import StoreError, unknown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENTS = "experiments.json"
RUNS = "runs.json"
PARENTS = (schema.STUDY_RUN, schema.SEARCH_RUN)


@dataclass(frozen=True)
class Exported:
    """What was put into an archive.

    Attributes:
        path: of the archive.
        studies: names.
        trials: trial runs.
        files: in it.
        left_out: runs that were still going on, or finished a second time.
    """

    path: str
    studies: tuple[str, ...]
    trials: int
    files: int
    left_out: int


def export(home: Home, path: Path, studies: Sequence[str] = ()) -> Exported:
    """Write the records of a home into an archive: every run that ended, with params, metrics and artifacts.

    Args:
        home: whose.
        path: the archive.
        studies: names; all of them without any. Trials of theirs that another study trained are in it, too.

    Raises:
        StoreError: there are no records, no such study, or the archive cannot be written.
    """
    client = open_client(home)
    experiments = {e.experiment_id: e for e in client.search_experiments()}
    parents = [run for kind in PARENTS for run in search(client, f"tags.{schema.KIND} = '{kind}'")]
    known = {experiments[run.info.experiment_id].name for run in parents}
    for study in studies:
        if study not in known:
            raise StoreError(f"{home.path}: {unknown('study in the records', study, known)}")
    wanted = [run for run in parents if not studies or experiments[run.info.experiment_id].name in studies]
    trials, left_out = _trials(client, home, wanted, whole=not studies)
    names = sorted({experiments[run.info.experiment_id].name for run in wanted})
    used = {run.info.experiment_id for run in (*wanted, *trials)}
    with written(path, {"studies": names, "schema": schema.SCHEMA_VERSION}) as writer:
        records = [
            ExperimentRecord(name=experiments[place].name, tags=dict(experiments[place].tags)) for place in sorted(used)
        ]
        writer.add(EXPERIMENTS, encode([record.model_dump() for record in records]))
        ids = []
        for run in (*wanted, *trials):
            ids.append(run.info.run_id)
            _put(client, home, run, experiments[run.info.experiment_id].name, writer)
        writer.add(RUNS, encode(ids))
    return Exported(str(path), tuple(names), len(trials), len(writer.files), left_out)


def _trials(client: MlflowClient, home: Home, parents: Iterable[Run], *, whole: bool) -> tuple[list[Run], int]:
    """Trial runs to go with these parents, oldest first; of a trial finished twice the one that counts."""
    experiments = {run.info.experiment_id for run in parents}
    keys: set[str] = set()
    for run in parents:
        if run.data.tags[schema.KIND] == schema.STUDY_RUN:
            keys |= _planned(client, home, run)
    every = list(search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    counting: dict[str, Run] = {}
    for run in sorted(every, key=lambda run: (run.info.end_time or math.inf, run.info.run_id)):
        if _finished(run):
            counting.setdefault(run.data.tags[schema.TRIAL_KEY], run)
    taken = []
    left_out = 0
    for run in every:
        own = whole or run.info.experiment_id in experiments
        if _finished(run):
            key = run.data.tags[schema.TRIAL_KEY]
            if own or key in keys:
                if counting[key] is run:
                    taken.append(run)
                elif own:
                    left_out += 1
                    # The one that counts belongs to the study, whoever trained it.
                    keys.add(key)
        elif own and run.info.status != "RUNNING":
            taken.append(run)
        elif own:
            left_out += 1
    have = {run.info.run_id for run in taken}
    taken += [counting[key] for key in sorted(keys & counting.keys()) if counting[key].info.run_id not in have]
    return taken, left_out


def _finished(run: Run) -> bool:
    return run.info.status == "FINISHED" and run.data.tags.get(schema.STATUS) == schema.COMPLETE


def _planned(client: MlflowClient, home: Home, run: Run) -> set[str]:
    with _artifacts(client, home, run) as folder:
        try:
            plan = json.loads((folder / schema.PLAN_FILE).read_text(encoding="utf-8"))
            return {str(cell["trial_key"]) for row in plan["rows"] for cell in row["cells"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise StoreError(f"run {run.info.run_id}: its {schema.PLAN_FILE} is missing or damaged") from None


@contextmanager
def _artifacts(client: MlflowClient, home: Home, run: Run) -> Iterator[Path]:
    """The folder of a run's artifacts; in a home that was moved, where it lies now."""
    recorded = urlsplit(run.info.artifact_uri)
    if recorded.scheme in ("", "file"):
        folder = Path(url2pathname(recorded.path))
        yield folder if folder.is_dir() else home.artifacts.joinpath(*folder.parts[-3:])
        return
    with tempfile.TemporaryDirectory() as there:
        client.download_artifacts(run.info.run_id, "", there)
        yield Path(there)


def _put(client: MlflowClient, home: Home, run: Run, experiment: str, writer: Writer) -> None:
    at = f"runs/{run.info.run_id}"
    artifacts = []
    with _artifacts(client, home, run) as folder:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or path.is_file():
                name = path.relative_to(folder).as_posix()
                writer.add_file(f"{at}/artifacts/{name}", path)
                artifacts.append(name)
    writer.add(f"{at}/run.json", encode(record_of(client, run, experiment, artifacts).model_dump()))
