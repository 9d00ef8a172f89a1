from __future__ import annotations

from typing import ClassVar

import pytest

from study.testing.data_sets import DataSetContract
from trainables.data.base import DataConfig
from trainables.data.scenes import Scenes, ScenesConfig
from trainables.errors import DataError


class TestScenes(DataSetContract):
    name = "scenes"
    channels: ClassVar = {
        "depth_euclidean": 1,
        "depth_zbuffer": 1,
        "edge_occlusion": 1,
        "edge_texture": 1,
        "keypoints2d": 1,
        "keypoints3d": 1,
        "normal": 3,
        "principal_curvature": 2,
        "reshading": 3,
        "segment_unsup2d": 1,
        "segment_unsup25d": 1,
        "depth": 1,
        "edge": 1,
    }

    @pytest.fixture(scope="class")
    @classmethod
    def data_config(cls) -> DataConfig:
        return ScenesConfig(image_size=32, train=3, val=2, test=2)


def test_there_is_no_folder_to_check() -> None:
    with pytest.raises(DataError, match=r"^data set 'scenes' is built on this machine"):
        Scenes.check(ScenesConfig())
