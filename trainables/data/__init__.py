"""The data sets, by the name a trial config gives them. A new data set is one file or folder and one line here."""

from trainables.data.base import SPLITS, DataConfig, DataSet, Split
from trainables.data.cityscapes_mtan import CityscapesMtan
from trainables.data.nyud import NYUD
from trainables.data.nyuv2_mtan import NYUv2Mtan
from trainables.data.pascal_context import PascalContext
from trainables.data.qm9 import Qm9
from trainables.data.scenes import Scenes
from trainables.data.taskonomy import Taskonomy
from trainables.registry import Registry, component_of

DATA_SETS: Registry[type[DataSet]] = Registry("data set", "mtl_study.data_sets", component_of(DataSet))
DATA_SETS.register("scenes", Scenes)
DATA_SETS.register("nyud", NYUD)
DATA_SETS.register("pascal_context", PascalContext)
DATA_SETS.register("qm9", Qm9)
DATA_SETS.register("taskonomy", Taskonomy)
DATA_SETS.register("nyuv2_mtan", NYUv2Mtan)
DATA_SETS.register("cityscapes_mtan", CityscapesMtan)

__all__ = ["DATA_SETS", "SPLITS", "DataConfig", "DataSet", "Split"]
