"""A private PostgreSQL for tests: found on this machine, started on loopback as a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PASSWORD = "s3cret/@word"
QUOTED = "s3cret%2F%40word"


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``; Debian keeps them off the path."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    return next((path for path in found if (path / "postgres").exists() and (path / "initdb").exists()), None)


def other_user() -> str | None:
    """Who runs it: PostgreSQL refuses root. ``None``: whoever runs the tests."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


class Postgres:
    """A server with a data folder of its own.

    Args:
        base: an empty folder for it.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """

    def __init__(self, base: Path) -> None:
        folder = binaries()
        if folder is None:
            raise FileNotFoundError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        user = other_user()
        data, words, self._log = base / "data", base / "words", base / "log"
        words.write_text(PASSWORD)
        if user is not None:
            for path in (base, words):
                shutil.chown(path, user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._as_user: dict[str, Any] = (
            {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        )
        rules = ["--auth=scram-sha-256", f"--pwfile={words}", "--no-sync", "--encoding=UTF8"]
        made = subprocess.run(
            [folder / "initdb", "-D", data, "-U", "study", *rules],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **self._as_user,
        )
        if made.returncode:
            raise RuntimeError(f"initdb: {made.stderr.strip()}")
        self._command = [folder / "postgres", "-D", data, "-p", str(self.port), "-k", ""]
        self._command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off"]
        self._command += ["-c", "shared_buffers=32MB"]
        self.url = f"postgresql://study:{QUOTED}@127.0.0.1:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, after any end of the one before, and wait until it answers."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/", **self._as_user)
        _await(self.port, process)
        return process


@contextmanager
def server() -> Iterator[str]:
    """URL of a fresh server without a database's name at its end; gone afterwards.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="mtl-study-pg-", ignore_cleanup_errors=True) as base:
        postgres = Postgres(Path(base))
        process = postgres.start()
        try:
            yield postgres.url
        finally:
            process.send_signal(signal.SIGINT)  # its fast end, which waits for no client
            process.wait(timeout=30)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            where = f"host=127.0.0.1 port={port} user=study dbname=postgres"
            psycopg.connect(where, password=PASSWORD, connect_timeout=5).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def make_database(url: str, name: str) -> str:
    """URL of a new database of the server ``url``."""
    import psycopg

    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{url}/{name}"
