from __future__ import annotations

import os
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before anything imports mlflow

import pytest
from synthetic_records import SyntheticStore, mixed_study


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing else: making one takes seconds, copying it none."""
    home = tmp_path_factory.mktemp("empty")
    SyntheticStore(home)
    return home / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> SyntheticStore:
    return SyntheticStore(tmp_path / "home", empty_store)


@pytest.fixture(scope="session")
def mixed_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with :func:`synthetic_records.mixed_study`; for tests that only read."""
    home = tmp_path_factory.mktemp("mixed")
    mixed_study(SyntheticStore(home, empty_store))
    return home
