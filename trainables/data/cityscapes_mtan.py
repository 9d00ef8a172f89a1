"""The data set ``cityscapes_mtan``: Cityscapes with 7 classes and disparity, 128x256."""

from __future__ import annotations

from typing import ClassVar, Literal

from trainables.data import mtan
from trainables.data.base import DataConfig
from trainables.data.ondisk import DataRoot, Finish, OnDisk, held_out

SIZE = (128, 256)
CLASSES = 7
TRAIN, TEST = 2975, 500

FIELDS = {
    "image": mtan.Field(("image",), "image", 3),
    # FAMO keeps labels of 2, 7 and 19 classes side by side.
    "semseg": mtan.Field(("label_7", "label"), "label", 0),
    "depth": mtan.Field(("depth",), "depth", 1),
}


class CityscapesMtanConfig(mtan.MtanConfig):
    """Cityscapes as MTAN, LibMTL, Nash-MTL, CAGrad and FAMO have it."""

    name: Literal["cityscapes_mtan"] = "cityscapes_mtan"

    scaled_disparity: Literal["geometric", "released"] = "geometric"
    """What scaling an image by s does to its disparity: ``geometric`` multiplies it by s; ``released`` divides it, as
    FAMO does, as if it were depth. Read with ``augment``."""


class CityscapesMtan(OnDisk):
    """Cityscapes with 7 classes (255 ignored) and, as ``depth``, the inverse of depth (0 invalid)."""

    Config: ClassVar[type[DataConfig]] = CityscapesMtanConfig
    labels: ClassVar[tuple[str, ...]] = tuple(name for name in FIELDS if name != "image")
    classes: ClassVar[dict[str, int]] = {"semseg": CLASSES}
    layout_help: ClassVar[str] = "{train,val}/{image,label or label_7,depth}/0.npy ..."
    source: ClassVar[str] = "github.com/lorenmt/mtan"

    @classmethod
    def find(cls, config: CityscapesMtanConfig, root: DataRoot) -> mtan.NpyLayout | mtan.ParquetLayout | None:
        """The layout."""
        return mtan.find(config, mtan.Checked(root, SIZE, CLASSES), FIELDS, parquet=False)

    @classmethod
    def published(cls, config: CityscapesMtanConfig) -> dict[str, int]:
        """2975 for training, some of them held out, and 500."""
        held = held_out(TRAIN, config.val_fraction)
        return {"train": TRAIN - held, "val": held, "test": TEST}

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels."""
        return SIZE

    @classmethod
    def finish(cls, config: CityscapesMtanConfig) -> Finish:
        """What makes tensors of a sample's arrays."""
        return mtan.Prepare(config, depth_power=1 if config.scaled_disparity == "geometric" else -1)
