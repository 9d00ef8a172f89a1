"""PASCAL-Context with five labels, from the folder that ASTMT (Maninis et al. 2019) and InvPT hand around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from trainables.data.base import DataConfig
from trainables.data.invpt import NORMAL_VALID, InvPT, InvPTConfig, fits, split_names
from trainables.data.ondisk import DataRoot, Layout, Raw, read_image, read_mat, read_mat_array
from trainables.data.transforms import Side
from trainables.losses import IGNORE

SEMSEG_CLASSES = 21
PARTS_CLASSES = 7


class PascalContextConfig(InvPTConfig):
    """PASCAL-Context: 4998 training and 5105 test photographs, up to 500x500 pixels."""

    name: Literal["pascal_context"] = "pascal_context"

    image_size: tuple[Side, Side] = (512, 512)
    """Height and width, in pixels, of what the network sees. Images are padded to it, or cropped in training."""


class PascalContext(InvPT):
    """``semseg`` (21 classes), ``human_parts`` (7), ``saliency`` (2), ``normal``, ``edge``.

    Saliency and normals are distilled from networks (ASTMT, section 4). Edges are computed from the map of the 459
    classes, and normals count only where that map names a class that NYUD-v2 has, too; see the functions below.
    """

    Config: ClassVar[type[DataConfig]] = PascalContextConfig
    labels: ClassVar[tuple[str, ...]] = ("semseg", "human_parts", "saliency", "normal", "edge")
    classes: ClassVar[Mapping[str, int]] = MappingProxyType(
        {"semseg": SEMSEG_CLASSES, "human_parts": PARTS_CLASSES, "saliency": 2}
    )
    train_count: ClassVar[int] = 4998
    test_count: ClassVar[int] = 5105
    layout_help: ClassVar[str] = (
        "JPEGImages, ImageSets/Context/train.txt and val.txt (4998 and 5105 names), pascal-context/trainval, semseg, "
        "human_parts, normals_distill, sal_distill"
    )
    source: ClassVar[str] = "the PASCALContext archive of InvPT or the PASCAL_MT archive of ASTMT"

    @classmethod
    def find(cls, config: Any, root: DataRoot) -> Layout | None:
        """The one layout, which both archives have."""
        train, test = "ImageSets/Context/train.txt", "ImageSets/Context/val.txt"
        if not all(root.exists(each) for each in (train, test, "JPEGImages")):
            return None
        splits = split_names(root, train, test, config.val_fraction)
        voc = frozenset(root.files("semseg/VOC12"))
        return _PascalLayout("invpt", root, splits, voc, config.image_size)


@dataclass(frozen=True)
class _PascalLayout:
    name: str
    root: DataRoot
    splits: Mapping[str, tuple[str, ...]]
    voc: frozenset[str]
    """Names of the files in semseg/VOC12."""
    image_size: tuple[int, int]
    labels: Sequence[str] = PascalContext.labels

    def names(self, split: str) -> Sequence[str]:
        return self.splits[split]

    def files(self, sample: str) -> Sequence[str]:
        return [
            f"JPEGImages/{sample}.jpg",
            self._semseg(sample),
            f"pascal-context/trainval/{sample}.mat",
            f"human_parts/{sample}.mat",
            f"normals_distill/{sample}.png",
            f"sal_distill/{sample}.png",
        ]

    def load(self, sample: str, labels: Sequence[str]) -> Raw:
        path = f"JPEGImages/{sample}.jpg"
        image = read_image(self.root, path)
        fits(self.root, path, image, self.image_size)
        size = (image.shape[0], image.shape[1])
        out = {"image": image}
        if "semseg" in labels:
            out["semseg"] = _semseg(self.root, self._semseg(sample), size)
        if "human_parts" in labels:
            out["human_parts"] = human_parts(self.root, f"human_parts/{sample}.mat", size)
        if "saliency" in labels:
            stored = read_image(self.root, f"sal_distill/{sample}.png", ("L",), size)
            out["saliency"] = (stored > 127).astype(np.uint8)
        if "normal" in labels or "edge" in labels:
            label_map = read_mat_array(self.root, f"pascal-context/trainval/{sample}.mat", "LabelMap", size)
            if "normal" in labels:
                out["normal"] = read_image(self.root, f"normals_distill/{sample}.png", size=size)
                out[NORMAL_VALID] = np.isin(label_map, CLASSES_WITH_NORMALS).astype(np.uint8)
            if "edge" in labels:
                out["edge"] = class_edges(label_map)
        return out

    def _semseg(self, sample: str) -> str:
        """VOC's own annotation where there is one, else that derived from PASCAL-Context."""
        folder = "VOC12" if f"{sample}.png" in self.voc else "pascal-context"
        return f"semseg/{folder}/{sample}.png"


def _semseg(root: DataRoot, path: str, size: tuple[int, int]) -> np.ndarray:
    """Classes 0 to 20, 255 for unlabelled."""
    stored = read_image(root, path, ("P", "L"), size)
    wrong = stored[(stored >= SEMSEG_CLASSES) & (stored != IGNORE)]
    if wrong.size:
        raise root.error(path, f"classes from 0 to {SEMSEG_CLASSES - 1} or {IGNORE} are wanted, it has {wrong.max()}")
    return stored


def class_edges(label_map: np.ndarray) -> np.ndarray:
    """Edges between classes, (H, W) -> uint8 0/1, one pixel wide: the thinned non-zeros of the map's Laplacian.

    The Laplacian is that of the four neighbours; at its border the image is mirrored, the border itself not repeated.
    """
    from scipy.ndimage import laplace
    from skimage.morphology import thin

    return np.asarray(thin(laplace(label_map.astype(np.float64), mode="mirror") != 0), dtype=np.uint8)


PERSON = 15
"""Number of the class among VOC's twenty."""

PARTS: Mapping[str, int] = MappingProxyType(
    {
        part: index
        for index, parts in enumerate(
            (
                "hair head lear rear lebrow rebrow leye reye mouth nose",
                "neck torso",
                "luarm ruarm",
                "llarm rlarm lhand rhand",
                "luleg ruleg",
                "llleg rlleg lfoot rfoot",
            ),
            start=1,
        )
        for part in parts.split()
    }
)
"""The 24 parts of a person in PASCAL-Part to six classes: head, torso, upper and lower arms, upper and lower legs."""


def human_parts(root: DataRoot, path: str, size: tuple[int, int]) -> np.ndarray:
    """Parts of the people in an image, from an annotation of PASCAL-Part.

    Returns:
        (H, W) uint8: 0 background, 1 to 6 the parts; 255 everywhere where no person has parts.

    Raises:
        DataError: the file is missing or damaged, has no annotation or one of another form, or masks of another size.
    """
    annotation = read_mat(root, path, "anno")
    out = np.zeros(size, dtype=np.uint8)
    try:
        for record in annotation[0][0][1][0]:
            parts = record[3]
            if int(np.asarray(record[1]).item()) != PERSON or not parts.size:
                continue
            for part in parts[0]:
                mask = np.asarray(part[1])
                if mask.shape != size:
                    wrong = "x".join(map(str, mask.shape[::-1]))
                    raise root.error(path, f"{size[1]}x{size[0]} pixels are wanted, a part has {wrong}")
                out[mask > 0] = PARTS[str(np.asarray(part[0]).item())]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        raise root.error(path, "its 'anno' has not the form of PASCAL-Part: objects with class and parts") from None
    return out if out.any() else np.full(size, IGNORE, dtype=np.uint8)


CLASSES_WITH_NORMALS = np.array(
    [
        *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55),
        *(56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115),
        *(122, 124, 135, 141, 142, 143, 146, 150, 153, 156, 158, 159, 165, 171, 174, 181, 183, 184, 191, 193, 195, 197),
        *(199, 202, 213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255),
        *(260, 261, 263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309),
        *(310, 314, 315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379),
        *(380, 383, 384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440),
        *(441, 442, 443, 444, 446, 454, 457),
    ]
)
"""The 170 of PASCAL-Context's 459 classes on which distilled normals count: those whose name is one of NYUD-v2's 894,
"unknown" excepted, and ``tvmonitor`` (ASTMT's rule: the network that gave the normals was trained on NYUD-v2)."""
