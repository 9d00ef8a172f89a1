"""Ray clusters of several nodes on this machine, with a token of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SMALL_STORE = 80_000_000


@dataclass(frozen=True)
class Head:
    """A running head: its dashboard's URL, and the address Ray joins it by."""

    url: str
    address: str


def ray_reads_the_environment() -> None:
    """Ray reads its token once, when it is imported; there is no public way to have it read another."""
    if "ray" in sys.modules:
        import ray._raylet as raylet

        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """Sockets have names of at most 107 bytes; pytest's folders are too deep for them."""
    path = Path(tempfile.mkdtemp(prefix="mtl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def token(short_folder: Path) -> Iterator[Path]:
    """Of every cluster of a test file; the environment names it."""
    path = short_folder / "token"
    path.touch(0o600)
    path.write_text(secrets.token_hex(16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        ray_reads_the_environment()
        yield path
    ray_reads_the_environment()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody holds now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    """What the head of ``nodes`` is started with beside a CPU; files override it."""
    return {}


@pytest.fixture(scope="module")
def nodes(token: Path, head: dict[str, Any]) -> Iterator[Any]:
    """``ray.cluster_utils.Cluster`` with a head of one CPU; tests add nodes and take them away again."""
    from ray.cluster_utils import Cluster

    class Small(Cluster):  # type: ignore[misc]
        """Nodes whose stores fit a test machine."""

        def add_node(self, **options: Any) -> Any:
            return super().add_node(**{"object_store_memory": SMALL_STORE, **options})

    cluster = Small(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **head})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def dashboard(token: Path, short_folder: Path) -> Iterator[Head]:
    """A head with a job server, as ``ray start`` makes it."""
    port, http, client = free_ports(3)
    binaries = Path(sys.executable).parent
    command = [
        *(str(binaries / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={http}", "--num-cpus=2"),
        *(f"--ray-client-server-port={client}", f"--object-store-memory={SMALL_STORE}"),
        f"--temp-dir={short_folder / 'ray'}",
    ]
    environment = {
        **os.environ,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # What a node's image gives: this interpreter, with the project to be imported.
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    with (short_folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                if head.poll() is not None:
                    pytest.fail((short_folder / "head.log").read_text())
                with socket.socket() as probe:
                    probe.settimeout(0.1)
                    if probe.connect_ex(("127.0.0.1", http)) == 0:
                        break
                try:
                    head.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
            yield Head(f"http://127.0.0.1:{http}", f"127.0.0.1:{port}")
        finally:
            head.terminate()
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait()
