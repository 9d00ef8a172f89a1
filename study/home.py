"""The folder that holds all state: records, artifacts, data, checkpoints, reports."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import StoreError

DEFAULT = "mtl-study-home"
VARIABLE = "MTL_STUDY_HOME"


@dataclass(frozen=True)
class Home:
    """Where everything is kept: ``./mtl-study-home`` unless ``MTL_STUDY_HOME`` or ``--home`` says otherwise."""

    path: Path

    @classmethod
    def locate(cls, given: str | Path | None = None) -> Home:
        """The home named, or the environment's, or the default."""
        return cls(Path(given or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute())

    @property
    def database(self) -> Path:
        """MLflow's SQLite file."""
        return self.path / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """As MLflow takes it."""
        return f"sqlite:///{self.database}"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.path / "artifacts"

    @property
    def data(self) -> Path:
        """Embedded data sets."""
        return self.path / "data"

    @property
    def scratch(self) -> Path:
        """Ray's own results."""
        return self.path / "scratch"

    def checkpoint(self, key: str) -> Path:
        """Where the trial of this key leaves its checkpoint."""
        return self.path / "checkpoints" / key[:2] / f"{key}.ckpt"

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
    def lock(self) -> Iterator[None]:
        """Hold the home for a run; raises :class:`StoreError` where another run holds it. Ends with the process,
        however it ends."""
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
