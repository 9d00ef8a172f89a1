"""Studies as Ray jobs: hand one in, ask after it, read what it says. All over HTTP, from wherever the head is
reached."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import environment
from study.cluster.errors import TOKEN_HINT, ClusterError
from trainables.errors import ConfigError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

CONSTRAINTS = "constraints.txt"
IMAGE, SOURCE = "image", "source"
ENVIRONMENTS = (IMAGE, SOURCE)
JOB_PREFIX = "mtl-study-"
_STUDY = "mtl_study.study"
_WORKING_DIR = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
_EXCLUDED = ("docs", "tests", "benchmarks", ".ci", ".git")
_TALKATIVE = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass(frozen=True)
class Job:
    """A Ray job.

    Attributes:
        id: what ``status`` and ``logs`` take.
        study: what it runs; empty for a job that is not ours.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: Ray's word on it.
        command: its entrypoint.
        started: seconds since the epoch; ``None`` before it starts.
        ended: the same; ``None`` before it ends.
    """

    id: str
    study: str
    state: str
    message: str
    command: str
    started: float | None
    ended: float | None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in _ENDED

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def is_job(name: str) -> bool:
    """Whether it looks like a job's id: ours, or one that Ray gave."""
    return name.startswith((JOB_PREFIX, "raysubmit_"))


def checkout() -> Path | None:
    """The folder this code runs from, if it is a checkout with its constraints; ``None`` where it is installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / CONSTRAINTS).is_file() and (root / "pyproject.toml").is_file() else None


def runtime_environment(kind: str, root: Path | None = None) -> dict[str, Any]:
    """Ray's description of what a job runs in.

    ``image`` takes what the nodes have installed: the container recipe installs the versions of ``constraints.txt``.
    ``source`` sends the checkout ``root``, whose code then counts, and has pip bring the nodes to those versions.

    Raises:
        ConfigError: another kind, or ``source`` without a checkout.
    """
    if kind not in ENVIRONMENTS:
        raise ConfigError(unknown("environment", kind, ENVIRONMENTS))
    # No credentials here: whoever sees the dashboard sees these.
    variables = {"PYTHONUNBUFFERED": "1"}
    if kind == IMAGE:
        return {"env_vars": variables}
    if root is None:
        raise ConfigError(f"--environment source: this is no checkout ({CONSTRAINTS} is missing); use image")
    wanted = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return {
        "env_vars": variables,
        "working_dir": str(root),
        "excludes": [f"/{name}" for name in _EXCLUDED],
        "pip": {"packages": [f"-c {_WORKING_DIR}/{CONSTRAINTS}", *wanted], "pip_check": False},
    }


class JobClient:
    """The jobs of one cluster.

    Args:
        address: ``http://HOST:PORT`` of the dashboard, or the head's ``HOST:PORT``, or ``auto`` for the cluster on this
            machine. ``None``: what ``RAY_ADDRESS`` says, else ``auto``.

    Raises:
        ClusterError: nothing answers there, the token is refused, or this installation lacks the extra ``cluster``.
    """

    def __init__(self, address: str | None = None) -> None:
        environment.quiet()
        self.address = address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            import aiohttp_cors  # noqa: F401 - a part of ray[default] that nothing else brings
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            raise ClusterError(
                "submit, status and logs need the extra 'cluster': pip install -c constraints.txt 'mtl-study[cluster]'"
            ) from None
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._errors(), _address_given(self.address):
            self.client = JobSubmissionClient(None if self.address == "auto" else self.address)

    def submit(self, study: str, arguments: Sequence[str], runtime_env: dict[str, Any]) -> str:
        """Have ``mtl-study run STUDY ARGUMENTS`` run on the head; returns the job's id."""
        words = ("python", "-m", "study", "run", study, *arguments)
        name = re.sub(r"[^A-Za-z0-9]+", "-", Path(study).stem).strip("-").lower()
        with self._errors():
            found: str = self.client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=f"{JOB_PREFIX}{name}-{secrets.token_hex(4)}",
                runtime_env=runtime_env,
                metadata={_STUDY: study},
            )
        return found

    def jobs(self) -> list[Job]:
        """All submitted ones, the newest first."""
        with self._errors():
            found = [_job(details) for details in self.client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def job(self, job_id: str | None = None) -> Job:
        """That one; the newest of ours for ``None``.

        Raises:
            ClusterError: there is none.
        """
        jobs = self.jobs()
        for job in jobs:
            if job.id == job_id or (job_id is None and job.study):
                return job
        if job_id is None:
            raise ClusterError(f"{self.address}: no study was submitted to this cluster")
        raise ClusterError(f"{self.address}: {unknown('job', job_id, [job.id for job in jobs])}")

    def logs(self, job_id: str) -> str:
        """What it has said so far."""
        with self._errors():
            text: str = self.client.get_job_logs(job_id)
        return text

    def follow(self, job_id: str, say: Callable[[str], None]) -> Job:
        """Pass on what it says until it ends; returns it as it ended."""

        async def tail() -> None:
            async for text in self.client.tail_job_logs(job_id):
                say(text)

        with self._errors():
            asyncio.run(tail())
        return self.job(job_id)

    def stop(self, job_id: str) -> None:
        """Have it interrupted; it closes its records and ends. The same ``submit`` goes on where it was."""
        with self._errors():
            self.client.stop_job(job_id)

    def get(self, path: str) -> dict[str, Any]:
        """``data`` of the dashboard's answer to ``GET path``."""
        with self._errors():
            answer = self.client._do_request("GET", path)
            if answer.status_code != 200:
                raise ClusterError(f"{self.address}: {path} answers {answer.status_code}")
            data: dict[str, Any] = answer.json().get("data") or {}
        return data

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise ClusterError(f"{self.address}: the cluster refuses the token: {TOKEN_HINT}") from None
        except (ConnectionError, OSError) as error:
            hint = "--address http://HOST:8265 or RAY_ADDRESS names another"
            raise ClusterError(f"{self.address}: no Ray dashboard answers ({hint}): {_first_line(error)}") from None
        except (RuntimeError, ValueError) as error:
            raise ClusterError(f"{self.address}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        study=(details.metadata or {}).get(_STUDY, ""),
        state=str(getattr(details.status, "value", details.status)),
        message=" ".join((details.message or "").split()),
        command=details.entrypoint,
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
    )


@contextmanager
def _address_given(address: str) -> Iterator[None]:
    """Ray lets its environment variables override the address it is given; here the one given counts."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
