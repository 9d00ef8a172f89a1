"""The MLflow UI and the Optuna dashboard, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress

import click

from study import environment
from study.front import addresses
from study.home import Home
from study.tracking import open_client
from trainables.errors import ConfigError, StoreError

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
    client = open_client(home)
    if home.served:
        click.echo(f"MLflow UI: {home.records} (its server is running already)", err=True)
        return 0
    chosen = free_port(port)
    base = f"http://{LOOPBACK}:{chosen}"
    click.echo(f"MLflow UI: {base} (Ctrl-C ends it)", err=True)
    for name, address in addresses(client, base):
        click.echo(f"  {name}: {address}", err=True)
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


def serve_optuna(home: Home, port: int, storage: str | None = None) -> int:
    """Serve the dashboard of the home's searches until interrupted.

    Args:
        home: whose searches.
        port: the next free one is taken.
        storage: Optuna's, instead of the home's own.

    Raises:
        ConfigError: the dashboard is not installed.
        StoreError: there is no search.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise ConfigError("--optuna: the dashboard is not installed: pip install 'mtl-study[dashboard]'") from None
    from study.search.storage import open_storage, storage_url

    embedded = home.path / "optuna.db"
    if storage_url(home, storage) == f"sqlite:///{embedded}" and not embedded.exists():
        raise StoreError(f"no search at {home.path}: run one first (mtl-study search), or name its folder with --home")
    chosen = free_port(port)
    click.echo(f"Optuna dashboard: http://{LOOPBACK}:{chosen} (Ctrl-C ends it)", err=True)
    with suppress(KeyboardInterrupt):
        run_server(open_storage(home, storage), host=LOOPBACK, port=chosen)
    return 0
