"""Records behind a real MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from little import plan, run

from analysis.records import Records
from analysis.store import Store
from study import addresses, schema
from study.home import Home
from study.inspection import inspect
from study.store import open_client
from study.ui import free_port
from study.verify import pick
from trainables.errors import StoreError

pytestmark = pytest.mark.slow


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port, folder = free_port(5600), tmp_path / "server"
    folder.mkdir()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'own.db'}", "--artifacts-destination", str(folder / "own")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ), start_new_session=True)
        try:
            until = time.monotonic() + 200
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        raise
                    time.sleep(0.5)
            monkeypatch.setenv(addresses.TRACKING, url)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_a_study_is_recorded_and_read_over_http(tracking: str, tmp_path: Path) -> None:
    home = Home.locate(tmp_path / "home")
    outcome, _ = run(home, plan())
    assert (outcome.trained, outcome.failures) == (5, [])
    again, _ = run(home, plan())
    assert (again.found, again.trained) == (5, 0)
    assert not home.database.exists()
    assert not home.artifacts.exists()
    store = Store(home.path)
    assert len(Records.read(store, "little").metrics) > 0
    runs = store.runs(list(store.experiments().values()), schema.TRIAL_RUN)
    assert store.artifact(runs[0], schema.CONFIG_FILE).read_bytes().startswith(b"{")
    with pytest.raises(StoreError, match=r"its artifact nothing\.txt cannot be fetched"):
        store.artifact(runs[0], "nothing.txt")
    name = schema.cost("iterations")
    histories = store.metric_histories([run.run_id for run in runs], [name])[name]
    assert set(histories["run_id"]) == {run.run_id for run in runs if name in run.metrics} != set()
    assert len(pick(home, "little", None, 0)) == 5
    assert "wrong" not in {seen.level for seen in inspect(home)}


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(addresses.TRACKING, "http://me:secret@127.0.0.1:9")
    with pytest.raises(StoreError, match=r"http://me:\*\*\*@127\.0\.0\.1:9: cannot be opened by MLflow") as caught:
        open_client(Home.locate(tmp_path))
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9: the records cannot be read"):
        Store(tmp_path).experiments()
