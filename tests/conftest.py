"""Fixtures shared by all tests: a tiny data set built once, and trial configs that train in milliseconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from study import environment, store
from study.home import Home

environment.quiet()

TINY: dict[str, Any] = {
    "data": {"name": "scenes", "image_size": 32, "train": 8, "val": 4, "test": 4},
    "model": {"backbone": "vit_pico", "drop_path": 0.1},
    "optim": {"lr": 1e-3},
    "train": {"batch_size": 2, "budget": {"amount": 6}},
    "record": {"eval_every": 3, "points": 3},
    "tasks": {"set": "taskonomy", "include": ["depth_zbuffer", "normal", "principal_curvature"]},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, those with most of them before the others: one that is begun last leaves the other
    processes idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A trial config as plain data; tests change copies of it."""
    return TINY


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set, built once for all processes of the test run."""
    from trainables.config import data_set_of, load_trial

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if base.name.startswith("popen-") else base) / "shared-data"
    root.mkdir(exist_ok=True)
    config = load_trial(TINY)
    data_set_of(config).prepare(config.data, root)
    return root


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the checkout's home."""
    monkeypatch.setenv("MTL_STUDY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow takes a second to make its tables; in this process they are made once, other homes begin with a copy."""
    make, first = store._create_database, tmp_path_factory.mktemp("tables") / "mlflow.db"

    def create(home: Home) -> None:
        if not first.exists():
            make(home)
            shutil.copyfile(home.database, first)
            return
        home.require()
        with tempfile.TemporaryDirectory(dir=home.path, prefix=".new-records-") as folder, suppress(FileExistsError):
            os.link(shutil.copyfile(first, Path(folder) / first.name), home.database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_create_database", create)
        yield
