"""Procedural rooms with exact labels: the data set that is built in and needs no download."""

from trainables.data.scenes.config import ScenesConfig
from trainables.data.scenes.dataset import Scenes, ScenesSplit
from trainables.data.scenes.furniture import NUM_PARTS, SEMSEG_CLASSES

__all__ = ["NUM_PARTS", "SEMSEG_CLASSES", "Scenes", "ScenesConfig", "ScenesSplit"]
