from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from study.cluster.connect import Connection, check_where, connect, refuse_embedded
from study.cluster.errors import ClusterError
from study.home import Home
from trainables.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.require()
    return home


@pytest.mark.parametrize("where", ["local", "auto", "10.0.0.1:6379", "head.example:6379", "[fe80::1]:6379"])
def test_addresses_that_can_be_joined(where: str) -> None:
    assert check_where(where) == where


@pytest.mark.parametrize("where", ["", "locla", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", "http://h:8265", "a b:1"])
def test_other_addresses_are_refused_in_one_line(where: str) -> None:
    with pytest.raises(ConfigError, match="local, auto or HOST:PORT") as caught:
        check_where(where)
    assert "\n" not in str(caught.value)
    assert ("mtl-study submit" in str(caught.value)) == ("://" in where)


def test_sqlite_is_for_one_machine() -> None:
    refuse_embedded("sqlite:////home/mlflow.db", 1)
    refuse_embedded("postgresql://db/records", 9)
    refuse_embedded("http://127.0.0.1:5000", 9)
    with pytest.raises(ConfigError, match=r"sqlite:////home/mlflow.db: SQLite over 2 nodes is refused: .*PostgreSQL"):
        refuse_embedded("sqlite:////home/mlflow.db", 2)


def test_an_address_where_nothing_answers_is_said_at_once(home: Home) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"--cluster {address}: nothing answers there"):
            connect(address, home, cpus=1).__enter__()


def test_auto_takes_the_address_of_the_environment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=address):
            connect("auto", home, cpus=1).__enter__()
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS=http"):
        connect("auto", home, cpus=1).__enter__()


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_of_several_nodes_is_joined_and_left_as_it_was(nodes: Any, home: Home) -> None:
    import ray

    second = nodes.add_node(num_cpus=2, num_gpus=3)
    try:
        with connect(nodes.address, home, cpus=7, store=home.tracking_uri) as joined:
            assert ray.is_initialized()
            # Two nodes of one address are one machine, where SQLite serves.
            assert joined == Connection(nodes.address, nodes=2, machines=1, cpus=3.0, gpus=3.0, started=False)
            with connect("local", home, cpus=1) as again:
                assert again == joined
            assert ray.is_initialized()
        assert not ray.is_initialized()
        with connect(nodes.address, home, cpus=7) as joined:
            assert joined.nodes == 2
    finally:
        nodes.remove_node(second)
    # The home's own token is for clusters that are started here.
    assert not (home.path / "ray_auth_token").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_sqlite_over_two_machines_is_refused_and_the_connection_given_up(nodes: Any, home: Home) -> None:
    import ray

    other = nodes.add_node(num_cpus=1, node_ip_address="127.0.0.2")
    try:
        with (
            pytest.raises(ConfigError, match="SQLite over 2 nodes is refused"),
            connect(nodes.address, home, cpus=1, store=home.tracking_uri),
        ):
            pytest.fail("joined")
        assert not ray.is_initialized()
        with connect(nodes.address, home, cpus=1, store="postgresql://records") as joined:
            assert joined.machines == 2
    finally:
        nodes.remove_node(other)


@pytest.mark.ray
@pytest.mark.slow
def test_sigterm_interrupts_while_connected_and_is_given_back(nodes: Any, home: Home) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with connect(nodes.address, home, cpus=1), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.ray
@pytest.mark.slow
def test_wait_counts_the_nodes(nodes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from study.cli import run

    words = ["cluster", "wait", "--address", nodes.address]
    assert run([*words, "--nodes", "1"]) == 0
    assert run([*words, "--nodes", "2", "--timeout", "0"]) == 1
    assert capsys.readouterr().out.splitlines() == ["1 of 1 nodes", "1 of 2 nodes"]
    assert run(["cluster", "wait", "--address", "local", "--nodes", "1"]) == 2
