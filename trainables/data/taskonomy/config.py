"""The fields of Taskonomy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainables.data.ondisk import OnDiskConfig

Subset = Literal["tiny", "medium", "full", "fullplus"]
Normalisation = Literal["mod_squad", "taskonomy", "taskgrouping"]
Mask = Literal["none", "holes", "far", "files"]


class TaskonomyConfig(OnDiskConfig):
    """Taskonomy: indoor images of whole buildings with eleven dense labels. Its splits are of buildings."""

    name: Literal["taskonomy"] = "taskonomy"

    subset: Subset = "tiny"
    """Which of the published splits: the buildings of ``train_val_test_<subset>.csv``. The released code's configs take
    ``tiny``."""

    train_on: Literal["train", "train_val"] = "train"
    """``train_val``: train on the validation buildings, too, as Mod-Squad and the released code do. The validation
    split stays the same buildings, and then measures nothing new."""

    test: Literal["full", "first_tenth"] = "full"
    """``first_tenth``: the first tenth of the test images, as the released code measures by its length; of ``tiny``,
    that is a part of one building."""

    leave_out: tuple[str, ...] = ("wiconisco", "woodbine")
    """Buildings left out of all splits: by default those that Mod-Squad leaves out, because labels of them are
    missing."""

    image_size: int = Field(default=256, ge=32, le=512)
    """Height and width of images and labels, in pixels."""

    resize: int | None = Field(default=None, ge=32, le=1024)
    """Size the files are brought to before they are cropped to ``image_size``: at random in training, in the middle
    otherwise. ``null``: ``image_size``, so that nothing is cropped. Mod-Squad crops 224 of 256."""

    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Of the labels, when they are resized. ``bilinear`` (all published loaders) blends holes and segment numbers with
    their neighbours; ``nearest`` does not. Images are always bilinear."""

    flip: Literal["off", "mirror", "released"] = "off"
    """Mirror half of the training samples. ``mirror`` turns the normals' x about; ``released`` does not, as Mod-Squad
    and the released code."""

    normalisation: Normalisation = "mod_squad"
    """From codes to labels. ``mod_squad``: Mod-Squad, the released code, and so the paper. ``taskonomy``: Taskonomy
    2018. ``taskgrouping``: Standley et al. 2020. The last two have no regression of the segments, the last none of the
    3D keypoints."""

    mask: Mask = "none"
    """Pixels of the 3D labels that neither loss nor metric counts. ``none``: all count, as in Mod-Squad. ``holes``: of
    the scanned mesh (z-buffer depth 65535). ``far``: z-buffer depth of 16 m or more, holes included (TaskGrouping).
    ``files``: zero in the image of the folder ``mask`` (TaskGrouping)."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize ({self.resize}) must not be smaller than image_size ({self.image_size})")
        return self
