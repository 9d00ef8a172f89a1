"""The batch script, run for real: `srun` and `scontrol` are stand-ins that start real Ray nodes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.cluster.render import render, write
from study.cluster.shape import ClusterShape

ROOT = Path(__file__).parents[3]

SCONTROL = """\
#!/usr/bin/env bash
if [[ $1 == show ]]; then printf 'node-1\\nnode-2\\n'; else echo "scontrol $*" >> "$CALLS"; fi
"""
SRUN = """\
#!/usr/bin/env bash
echo "srun $*" >> "$CALLS"
while [[ ${1-} == --* ]]; do shift; done
if [[ $* == "hostname -I" ]]; then echo "$ADDRESS "; exit; fi
exec "$@"
"""
# What `mtl-study run` would be, for as long as it takes: a driver that connects as it does.
DRIVER = """\
import pathlib, sys, time
from study.cluster.connect import connect
from study.home import Home
home = Home(pathlib.Path(sys.argv[sys.argv.index("--home") + 1]))
try:
    with connect(sys.argv[sys.argv.index("--cluster") + 1], home, cpus=0, store=home.tracking_uri) as joined:
        print(f"driver: {joined.nodes} nodes, {joined.cpus:g} CPUs", flush=True)
        (home.path / "up").touch()
        while True:
            time.sleep(0.1)
except KeyboardInterrupt:
    print("driver: interrupted", flush=True)
    sys.exit(130)
"""
COMMAND = """\
#!/usr/bin/env bash
echo "mtl-study $*" >> "$CALLS"
if [[ $1 == run ]]; then exec "$PYTHON" "$DRIVER" "$@"; fi
exec "$PYTHON" -m study "$@"
"""


def own_address() -> str:
    """Of this machine, as its nodes reach each other by; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.mark.ray
@pytest.mark.slow
def test_the_script_starts_two_nodes_runs_the_study_and_ends_it_on_notice(short_folder: Path, tmp_path: Path) -> None:
    home = short_folder / "home"
    shape = ClusterShape(nodes=2, cpus_per_node=1, home=str(home), name=f"t{os.getpid()}")
    (script,) = write(render("slurm", shape), tmp_path)
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("mtl-study", COMMAND)):
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    (tmp_path / "driver.py").write_text(DRIVER)
    calls = tmp_path / "calls"
    job = os.getpid()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{stubs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHON": sys.executable,
        "DRIVER": str(tmp_path / "driver.py"),
        "CALLS": str(calls),
        "ADDRESS": own_address(),
        "HOME": str(tmp_path),
        "MTL_STUDY_HOME": str(home),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": "node-[1-2]",
    }
    with (tmp_path / "log").open("w") as log:
        batch = subprocess.Popen(
            ["bash", str(script), "table4", "--profile", "smoke"],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until = time.monotonic() + 120
            while not (home / "up").exists() and batch.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            tokens = list(home.glob(".ray-token-*"))
            modes = {oct(path.stat().st_mode & 0o777) for path in tokens}
            # As Slurm does at the time limit or before another job takes the nodes.
            batch.send_signal(signal.SIGTERM)
            code = batch.wait(120)
        finally:
            if batch.poll() is None:
                batch.kill()
                batch.wait()
    said = (tmp_path / "log").read_text()
    assert (home / "up").exists(), said
    assert "driver: 2 nodes, 2 CPUs" in said
    assert "driver: interrupted" in said
    assert code == 130, said
    assert (len(tokens), modes) == (1, {"0o600"})
    assert not list(home.glob(".ray-token-*"))
    port = 20000 + job % 10000
    lines = calls.read_text().splitlines()
    runs = [line for line in lines if line.startswith("mtl-study run ")]
    address = environment["ADDRESS"]
    assert runs == [f"mtl-study run table4 --profile smoke --home {home} --cluster {address}:{port}"]
    starts = [line for line in lines if "ray start" in line]
    assert any("--head" in line and "--nodelist=node-1" in line for line in starts)
    assert any(f"--address={address}:{port}" in line and "--exclude=node-1" in line for line in starts)
    assert lines[-1] == f"scontrol requeue {job}"
