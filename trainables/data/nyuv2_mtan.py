"""The data set ``nyuv2_mtan``: NYUv2 with 13 classes, depth and normals, 288x384."""

from __future__ import annotations

from typing import ClassVar, Literal

from trainables.data import mtan
from trainables.data.base import DataConfig
from trainables.data.ondisk import DataRoot, Finish, OnDisk, held_out

SIZE = (288, 384)
CLASSES = 13
TRAIN, TEST = 795, 654

FIELDS = {
    "image": mtan.Field(("image",), "image", 3),
    "semseg": mtan.Field(("label",), "segmentation", 0),
    "depth": mtan.Field(("depth",), "depth", 1),
    "normal": mtan.Field(("normal",), "normal", 3),
}


class NYUv2MtanConfig(mtan.MtanConfig):
    """NYUv2 as MTAN, LibMTL, Nash-MTL, CAGrad and FAMO have it; ``nyud`` is the 40-class one of the InvPT family."""

    name: Literal["nyuv2_mtan"] = "nyuv2_mtan"


class NYUv2Mtan(OnDisk):
    """NYUv2 with 13 classes (255 ignored), depth in metres (0 invalid) and normals (zero invalid)."""

    Config: ClassVar[type[DataConfig]] = NYUv2MtanConfig
    labels: ClassVar[tuple[str, ...]] = tuple(name for name in FIELDS if name != "image")
    classes: ClassVar[dict[str, int]] = {"semseg": CLASSES}
    layout_help: ClassVar[str] = (
        "{train,val}/{image,label,depth,normal}/0.npy ..., or data/{train,val}-00000-of-....parquet"
    )
    source: ClassVar[str] = "github.com/lorenmt/mtan or huggingface.co/datasets/tanganke/nyuv2"

    @classmethod
    def find(cls, config: NYUv2MtanConfig, root: DataRoot) -> mtan.NpyLayout | mtan.ParquetLayout | None:
        """The layout, told by whether there are arrays or Parquet files."""
        return mtan.find(config, mtan.Checked(root, SIZE, CLASSES), FIELDS, parquet=True)

    @classmethod
    def published(cls, config: NYUv2MtanConfig) -> dict[str, int]:
        """795 for training, some of them held out, and 654."""
        held = held_out(TRAIN, config.val_fraction)
        return {"train": TRAIN - held, "val": held, "test": TEST}

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels."""
        return SIZE

    @classmethod
    def finish(cls, config: NYUv2MtanConfig) -> Finish:
        """What makes tensors of a sample's arrays."""
        return mtan.Prepare(config, depth_power=-1)
