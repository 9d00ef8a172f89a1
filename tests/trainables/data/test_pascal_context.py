from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from ondisk_fixtures import (
    PASCAL_TEST,
    PASCAL_TRAIN,
    PERSON_PARTS,
    annotation,
    pascal_sample,
    pascal_size,
    save_mat,
    save_png,
    write_pascal,
)

from study.testing.data_sets import OnDiskContract
from trainables.data.ondisk import DataRoot, forget, hold_out
from trainables.data.pascal_context import (
    CLASSES_WITH_NORMALS,
    PARTS,
    PascalContext,
    PascalContextConfig,
    class_edges,
    human_parts,
)
from trainables.errors import DataError

FIRST = hold_out(PASCAL_TRAIN, 0.25)[0][0]


class TestPascalContext(OnDiskContract):
    name = "pascal_context"
    channels: ClassVar = {"normal": 3, "edge": 1}
    augments = True
    fields: ClassVar = {"image_size": [64, 64], "val_fraction": 0.25}
    published: ClassVar = {"train": 3748, "val": 1250, "test": 5105}
    list_file = "ImageSets/Context/train.txt"
    train_image = f"JPEGImages/{FIRST}.jpg"
    train_label = ("human_parts", f"human_parts/{FIRST}.mat")

    @classmethod
    def write(cls, root: Path) -> None:
        write_pascal(root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pascal(tmp_path / "PASCALContext")
    forget()
    return tmp_path / "PASCALContext"


def opened(folder: Path, split: str = "test") -> Any:
    forget()
    return PascalContext.open(PascalContextConfig(root=str(folder), image_size=(64, 64)), folder, split)


def inside(name: str) -> tuple[slice, slice]:
    height, width = pascal_size(name)
    top, left = (64 - height) // 2, (64 - width) // 2
    return slice(top, top + height), slice(left, left + width)


def test_labels_are_those_of_the_files(folder: Path) -> None:
    split = opened(folder)
    _, labels = split.batch(np.arange(len(split)), PascalContext.labels)
    for position, name in enumerate(PASCAL_TEST):
        sample, here = pascal_sample(name), inside(name)
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[here] = False
        for label in ("semseg", "saliency", "human_parts"):
            assert (labels[label][position][outside] == 255).all()
        assert (labels["semseg"][position][here].numpy() == sample["semseg"]).all()
        assert (labels["saliency"][position][here].numpy() == (sample["saliency"] > 127)).all()
        normal = labels["normal"][position]
        assert (normal[:, outside] == 0).all()
        sky = sample["label_map"] == 360
        length = normal[:, here[0], here[1]].norm(dim=0).numpy()
        assert (length[sky] == 0).all()
        assert np.allclose(length[~sky], 1.0, atol=1e-6)
        decoded = np.moveaxis(sample["normal"] / 127.5 - 1, -1, 0)
        decoded = np.where(sky, 0.0, decoded / np.linalg.norm(decoded, axis=0))
        assert np.allclose(normal[:, here[0], here[1]].numpy(), decoded, atol=1e-6)
        parts = labels["human_parts"][position][here].numpy()
        if int(name[-1]) % 2:
            expected = np.zeros(pascal_size(name), dtype=int)
            for index, part in enumerate(PERSON_PARTS):
                expected[10 + 3 * index : 13 + 3 * index, 8:30] = PARTS[part]
            assert (parts == expected).all()
        else:
            assert (parts == 255).all()


def test_edges_are_those_of_the_class_map(folder: Path) -> None:
    split = opened(folder)
    _, labels = split.batch(np.array([0]), ["edge"])
    edge = labels["edge"][0, 0][inside(PASCAL_TEST[0])].numpy()
    height, width = pascal_size(PASCAL_TEST[0])
    # Straight borders: a horizontal one in the middle, a vertical one above it, each one or two pixels from the step.
    assert (edge[2 : height // 2 - 3, width // 2 - 2 : width // 2 + 2].sum(axis=1) == 1).all()
    assert (edge[height // 2 + 2 :] == 0).all()
    assert edge[height // 2 - 2 : height // 2 + 2, 5].sum() == 1
    assert set(np.unique(labels["edge"])) == {0.0, 1.0, 255.0}


def test_one_class_has_no_edge_and_every_edge_is_thin() -> None:
    assert class_edges(np.full((9, 9), 7, dtype=np.uint16)).sum() == 0
    step = np.zeros((20, 20), dtype=np.uint16)
    step[:, 10:] = 459
    assert (class_edges(step)[2:-2].sum(axis=1) == 1).all()


def test_the_24_parts_make_six_classes() -> None:
    counts = [sum(1 for value in PARTS.values() if value == index) for index in range(1, 7)]
    assert counts == [10, 2, 2, 4, 2, 4]
    assert sum(counts) == 24


def test_normals_count_on_170_classes() -> None:
    assert len(CLASSES_WITH_NORMALS) == len(set(CLASSES_WITH_NORMALS)) == 170
    named = {"aeroplane": 2, "bed": 18, "person": 284, "sky": 360, "tvmonitor": 427, "unknown": 431, "wall": 440}
    assert {name for name, index in named.items() if index in CLASSES_WITH_NORMALS} == {
        "bed",
        "person",
        "tvmonitor",
        "wall",
    }


def test_people_without_parts_are_all_ignored(tmp_path: Path) -> None:
    root = DataRoot(tmp_path, "pascal_context")
    save_mat(tmp_path / "a.mat", anno=annotation((50, 40), people=1, parts=False))
    assert (human_parts(root, "a.mat", (50, 40)) == 255).all()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"other": np.zeros(3)}, "it has no variable 'anno'"),
        ({"anno": np.zeros((3, 3))}, "its 'anno' has not the form of PASCAL-Part: objects with class and parts"),
        ({"anno": annotation((8, 8), people=1)}, "60x48 pixels are wanted, a part has"),
    ],
)
def test_an_annotation_without_parts_is_named(folder: Path, variables: dict[str, Any], expected: str) -> None:
    name = PASCAL_TEST[0]
    save_mat(folder / f"human_parts/{name}.mat", **variables)
    with pytest.raises(DataError) as caught:
        opened(folder).batch(np.array([0]), ["human_parts"])
    assert str(caught.value).startswith(f"data set 'pascal_context': human_parts/{name}.mat: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "array", "mode", "expected"),
    [
        ("semseg/VOC12/{}.png", np.full((48, 60), 33, dtype=np.uint8), "P", "classes from 0 to 20 or 255 are wanted"),
        ("semseg/VOC12/{}.png", np.zeros((9, 8), dtype=np.uint8), "P", "60x48 pixels are wanted, it has 8x9"),
        ("sal_distill/{}.png", np.zeros((48, 60, 3), dtype=np.uint8), None, "8-bit grey is wanted, it is 8-bit RGB"),
        ("normals_distill/{}.png", np.zeros((48, 60), dtype=np.uint16), None, "8-bit RGB is wanted, it is 16-bit grey"),
    ],
)
def test_a_file_of_the_wrong_kind_is_named(
    folder: Path, file: str, array: np.ndarray, mode: str | None, expected: str
) -> None:
    file = file.format(PASCAL_TEST[0])
    save_png(folder / file, array, mode)
    with pytest.raises(DataError) as caught:
        opened(folder).batch(np.array([0]), PascalContext.labels)
    assert str(caught.value).startswith(f"data set 'pascal_context': {file}: {expected}")
