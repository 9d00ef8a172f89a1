"""The data sets, by the name a trial config gives them. A new data set is one file or folder and one line here."""

from trainables.data.base import SPLITS, DataConfig, DataSet, Split
from trainables.data.qm9 import Qm9
from trainables.data.scenes import Scenes
from trainables.registry import Registry

DATA_SETS: Registry[type[DataSet]] = Registry("data set")
DATA_SETS.register("scenes", Scenes)
DATA_SETS.register("qm9", Qm9)

__all__ = ["DATA_SETS", "SPLITS", "DataConfig", "DataSet", "Split"]
