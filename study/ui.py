"""The MLflow UI, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import click

from study import environment
from study.home import Home
from study.tracking import open_client
from trainables.errors import ConfigError

LOOPBACK = "127.0.0.1"
_PORTS_TRIED = 50


def free_port(wanted: int) -> int:
    """``wanted``, or the next port above it that is free on loopback; raises :class:`ConfigError` where none near it
    is."""
    for port in range(wanted, min(wanted + _PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ConfigError(f"--port {wanted}: neither it nor the {_PORTS_TRIED - 1} ports above it are free")


def serve(home: Home, port: int) -> int:
    """Serve the home's records until interrupted; returns the server's exit code.

    Raises:
        StoreError: there are no records.
    """
    open_client(home)
    if home.served:
        click.echo(f"MLflow UI: {home.records} (its server is running already)", err=True)
        return 0
    chosen = free_port(port)
    click.echo(f"MLflow UI: http://{LOOPBACK}:{chosen} (Ctrl-C ends it)", err=True)
    environment.quiet()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(chosen), "--workers", "1"),
        *("--default-artifact-root", home.artifacts_uri or home.artifacts.as_uri()),
    ]
    # Not on the command line: a URL may hold a password.
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_BACKEND_STORE_URI": home.tracking_uri})
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait(timeout=30)
        return 0
