"""What the data sets that people have on disk share: a safe root, readers, splits of files, one base class."""

from trainables.data.ondisk.cache import decoded
from trainables.data.ondisk.config import HoldoutConfig, OnDiskConfig
from trainables.data.ondisk.dataset import Layout, OnDisk, forget
from trainables.data.ondisk.files import read_image, read_mat, read_mat_array, read_npy
from trainables.data.ondisk.root import DataRoot
from trainables.data.ondisk.split import FileSplit, Finish, Load, Raw, held_out, hold_out

__all__ = [
    "DataRoot",
    "FileSplit",
    "Finish",
    "HoldoutConfig",
    "Layout",
    "Load",
    "OnDisk",
    "OnDiskConfig",
    "Raw",
    "decoded",
    "forget",
    "held_out",
    "hold_out",
    "read_image",
    "read_mat",
    "read_mat_array",
    "read_npy",
]
