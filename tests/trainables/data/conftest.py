from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data.scenes import Scenes, ScenesConfig, ScenesSplit


@pytest.fixture(scope="session")
def small_config() -> ScenesConfig:
    return ScenesConfig(image_size=48, train=8, val=3, test=3, people=0.6, holes=0.05)


@pytest.fixture(scope="session")
def small_root(small_config: ScenesConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the small data set in it, built in this process. Tests do not write below it."""
    root = tmp_path_factory.mktemp("data")
    Scenes.prepare(small_config, root)
    return root


@pytest.fixture(scope="session")
def small_split(small_config: ScenesConfig, small_root: Path) -> ScenesSplit:
    return Scenes.open(small_config, small_root, "train")
