"""The folder that holds all state: records, artifacts, data, checkpoints, reports."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from study.addresses import ARTIFACTS, CHECKPOINTS, NODE_DATA, TRACKING, from_environment, mask, records_url
from trainables.errors import StoreError
from trainables.remote import Place, place

DEFAULT = "mtl-study-home"
VARIABLE = "MTL_STUDY_HOME"


@dataclass(frozen=True)
class Home:
    """Where everything is kept: ``./mtl-study-home`` unless ``MTL_STUDY_HOME`` or ``--home`` says otherwise.

    Attributes:
        path: the folder.
        tracking: URL of the records where they are not in the folder: PostgreSQL's, or an MLflow server's.
        artifact_root: URL of their artifacts where these are not in the folder.
        checkpoint_root: URL or folder of the checkpoints where these are not in the folder.
        node_data: folder of every node that trials read built data from, copied there once.
    """

    path: Path
    tracking: str | None = None
    artifact_root: str | None = None
    checkpoint_root: str | None = None
    node_data: str | None = None

    @classmethod
    def locate(cls, given: str | Path | None = None) -> Home:
        """The home named, or the environment's, or the default; with the records and artifacts the environment names.

        Raises:
            ConfigError: the environment's URL is of no kind that is known.
        """
        tracking = from_environment(TRACKING)
        return cls(
            Path(given or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute(),
            records_url(tracking) if tracking else None,
            from_environment(ARTIFACTS),
            from_environment(CHECKPOINTS),
            from_environment(NODE_DATA),
        )

    @property
    def database(self) -> Path:
        """MLflow's SQLite file, where the records are in the folder."""
        return self.path / "mlflow.db"

    @property
    def embedded(self) -> bool:
        """Whether the records are in the folder."""
        return self.tracking is None

    @property
    def served(self) -> bool:
        """Whether the records are behind an MLflow server."""
        return self.tracking is not None and self.tracking.startswith("http")

    @property
    def records(self) -> str:
        """The place of the records as it may be shown."""
        return str(self.database) if self.tracking is None else mask(self.tracking)

    @property
    def tracking_uri(self) -> str:
        """As MLflow takes it."""
        return self.tracking or f"sqlite:///{self.database}"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts, where they are in the folder."""
        return self.path / "artifacts"

    @property
    def artifacts_uri(self) -> str | None:
        """Where MLflow is to put artifacts; ``None`` for where its server does by itself."""
        if self.artifact_root is not None:
            return self.artifact_root.rstrip("/")
        return None if self.served else self.artifacts.as_uri()

    @property
    def data(self) -> Path:
        """Embedded data sets."""
        return self.path / "data"

    @property
    def scratch(self) -> Path:
        """Ray's own results."""
        return self.path / "scratch"

    @property
    def format_file(self) -> Path:
        """Says which version's layout this is (:mod:`study.migrate`)."""
        return self.path / "format.json"

    @property
    def spool(self) -> Path:
        """Records on their way to a store that is away."""
        return self.path / "spool"

    @property
    def drivers(self) -> Path:
        """A file for each driver that lives."""
        return self.path / "drivers"

    @property
    def leases_url(self) -> str:
        """SQLAlchemy's, of the database that says which driver has which trial: the records' own, or a file of the
        home. MLflow holds its SQLite file for as long as a write takes; leases do not wait for that. Behind a server
        there is no database to be had: there, only the drivers of one home know of each other."""
        if self.embedded or self.served:
            return f"sqlite:///{self.path / 'leases.db'}"
        return self.tracking_uri

    def failed(self, key: str) -> Path:
        """The config of a trial that failed, to repeat it with."""
        return self.path / "failed" / f"{key[:16]}.json"

    @property
    def checkpoints(self) -> Place:
        """The folder of all checkpoints."""
        root = self.checkpoint_root
        return self.path / "checkpoints" if root is None else place(root.rstrip("/"))

    def checkpoint(self, key: str) -> Place:
        """Where the trial of this key leaves its checkpoint."""
        return self.checkpoints / key[:2] / f"{key}.ckpt"

    def model(self, key: str) -> Path:
        """Where a worker leaves the trained network of this key, until it is beside its run."""
        return self.path / "models" / key

    def report(self, study: str, profile: str) -> Path:
        """The report of a study at a profile."""
        return self.path / "reports" / f"{study}-{profile}.html"

    def require(self) -> None:
        """Make the folder; raises :class:`StoreError` in one line where it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".write-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"home {self.path}: cannot be written: {error.strerror} (choose another with --home or {VARIABLE})"
            ) from None

    @contextmanager
    def critical(self, seconds: float = 300.0) -> Iterator[None]:
        """Keep other drivers out for a moment, waiting for one that is in; raises :class:`StoreError` where that takes
        ``seconds``. Ends with the process, however it ends."""
        self.require()
        until = time.monotonic() + seconds
        with (self.path / ".critical").open("a+") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EAGAIN):
                        raise StoreError(f"home {self.path}: cannot be locked: {error.strerror}") from None
                if time.monotonic() > until:
                    raise StoreError(f"home {self.path}: another run has been starting for {seconds:.0f} s; end it")
                time.sleep(0.05)
            yield

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for what only one run may do (a search, a migration); raises :class:`StoreError` where another
        run holds it. Ends with the process, however it ends."""
        self.require()
        path = self.path / ".lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise StoreError(f"home {self.path}: cannot be locked: {error.strerror}") from None
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise StoreError(
                    f"home {self.path}: another run (process {holder}) is using it; wait, or choose another --home"
                ) from None
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield
