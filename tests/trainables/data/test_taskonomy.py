"""The data set ``taskonomy`` on folders of each layout, whole and damaged."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import taskonomy_files
import torch
from PIL import Image

from study.testing.data_sets import OnDiskContract
from trainables.config import load_trial, tasks_of
from trainables.data.ondisk import forget
from trainables.data.taskonomy import Taskonomy, TaskonomyConfig
from trainables.errors import ConfigError, DataError

SPLITS_FILE = "splits_taskonomy/train_val_test_tiny.csv"


class TaskonomyContract(OnDiskContract):
    name = "taskonomy"
    channels: ClassVar = {
        **dict.fromkeys(Taskonomy.labels, 1),
        "normal": 3,
        "principal_curvature": 2,
        "reshading": 3,
    }
    augments = True
    fields: ClassVar = {"image_size": 32, "resize": 40, "flip": "mirror"}
    published: ClassVar = {"train": 25 * 8566, "val": 35774, "test": 54514}
    list_file = SPLITS_FILE
    layout: ClassVar[str]
    below: ClassVar[str] = ""

    @classmethod
    def write(cls, root: Path) -> None:
        taskonomy_files.write(root, cls.layout)

    def test_the_layout_is_told_by_looking(self, written: Path) -> None:
        found = Taskonomy.layout(self.config(written))
        assert found is not None
        assert found.name == self.layout

    def test_check_finds_everything(self, written: Path) -> None:
        seen: list[tuple[int, int]] = []
        result = Taskonomy.check(self.config(written), lambda done, total: seen.append((done, total)))
        assert (result.problems, result.damaged, result.layout) == ((), 0, self.layout)
        # Of the training split no count is published.
        sizes = {"train": (6, 6), "val": (2, 35774), "test": (4, 54514)}
        assert {(c.split, c.label) for c in result.counts} == {
            (split, label) for split in sizes for label in ("image", *Taskonomy.labels)
        }
        assert all((c.found, c.expected) == sizes[c.split] and c.found == c.listed for c in result.counts)
        assert not result.complete
        assert seen[-1] == (12, 12)


class TestModSquad(TaskonomyContract):
    layout = "mod_squad"
    train_image = "rgb/taskonomy/allensville/point_10_view_1_domain_rgb.png"
    train_label = ("normal", "normal/taskonomy/allensville/point_10_view_1_domain_normal.png")


class TestOmnidata(TaskonomyContract):
    layout = "taskonomy"
    train_image = "rgb/beechwood/point_2_view_0_domain_rgb.png"
    train_label = ("edge_texture", "edge_texture/beechwood/point_2_view_0_domain_edge_texture.png")


class TestTaskGrouping(TaskonomyContract):
    layout = "taskgrouping"
    fields: ClassVar = {**TaskonomyContract.fields, "mask": "files"}
    train_image = "rgb/beechwood/point_2_view_0_domain_rgb.png"
    train_label = ("segment_unsup2d", "segment_unsup2d/beechwood/point_2_view_0_domain_segment_unsup2d.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return taskonomy_files.write(tmp_path / "taskonomy", "taskonomy")


def config(folder: Path, **fields: Any) -> TaskonomyConfig:
    forget()
    return TaskonomyConfig.parse({"root": str(folder), "image_size": 32, **fields})


def names(folder: Path, split: str, **fields: Any) -> list[str]:
    own = config(folder, **fields)
    return list(Taskonomy.open(own, folder, split).names)


def message(folder: Path, split: str = "train", labels: tuple[str, ...] = Taskonomy.labels, **fields: Any) -> str:
    own = config(folder, **fields)

    def use() -> None:
        opened = Taskonomy.open(own, folder, split)
        opened.batch(np.arange(len(opened)), labels)

    with pytest.raises(DataError) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert str(folder) not in str(caught.value)
    return str(caught.value)


def test_samples_are_in_the_order_of_the_lists_and_of_their_names(folder: Path) -> None:
    assert names(folder, "train") == [
        "allensville/point_0_view_3",
        "allensville/point_10_view_1",
        "allensville/point_2_view_0",
        "allensville/point_3_view_2",
        "beechwood/point_10_view_1",
        "beechwood/point_2_view_0",
    ]
    assert [name.split("/")[0] for name in names(folder, "val")] == ["collierville"] * 2
    assert [name.split("/")[0] for name in names(folder, "test")] == ["ihlen"] * 4


def test_training_on_the_validation_buildings_too_is_an_option(folder: Path) -> None:
    both = names(folder, "train", train_on="train_val")
    assert both == [*names(folder, "train"), *names(folder, "val")]
    assert Taskonomy.published(TaskonomyConfig(train_on="train_val"))["train"] == 25 * 8566 + 35774


def test_the_released_codes_test_split_is_its_first_tenth(folder: Path) -> None:
    for view in range(20):
        for kind in ("rgb", *Taskonomy.labels):
            source = folder / kind / "ihlen" / f"point_0_view_3_domain_{kind}.png"
            shutil.copy(source, folder / kind / "ihlen" / f"point_7_view_{view}_domain_{kind}.png")
    everything = names(folder, "test")
    assert len(everything) == 24
    assert names(folder, "test", test="first_tenth") == everything[:2]
    assert Taskonomy.published(TaskonomyConfig(test="first_tenth"))["test"] == 5451


def test_buildings_can_be_left_out(folder: Path) -> None:
    assert {name.split("/")[0] for name in names(folder, "train", leave_out=["allensville"])} == {"beechwood"}
    found = message(folder, leave_out=["allensville", "beechwood"])
    assert found == f"data set 'taskonomy': {SPLITS_FILE}: no building of split 'train' has an image"


def test_files_are_paired_by_name_and_not_by_position(folder: Path) -> None:
    whole = Taskonomy.open(config(folder), folder, "train").batch(np.array([2, 3]), ["normal"])[1]["normal"]
    # By position, every later label would slip to its neighbour's image.
    (folder / "normal" / "allensville" / "point_10_view_1_domain_normal.png").unlink()
    less = Taskonomy.open(config(folder), folder, "train").batch(np.array([2, 3]), ["normal"])[1]["normal"]
    assert torch.equal(whole, less)
    path = "normal/allensville/point_10_view_1_domain_normal.png"
    assert message(folder) == f"data set 'taskonomy': {path}: it is missing"
    opened = Taskonomy.open(config(folder, on_bad="skip"), folder, "train")
    assert len(opened.batch(np.arange(6), ["normal"])[0]) == 5
    assert list(opened.skipped) == ["allensville/point_10_view_1"]


def test_files_that_are_no_samples_are_passed_over(folder: Path) -> None:
    before = names(folder, "train")
    (folder / "rgb" / "beechwood" / "README.md").write_text("x")
    (folder / "rgb" / "beechwood" / "point_9_view_9_domain_rgb.png.part").write_bytes(b"x")
    assert names(folder, "train") == before


@pytest.mark.parametrize("label", ["depth_euclidean", "depth_zbuffer"])
def test_sixteen_bit_depth_with_holes_is_finite(folder: Path, label: str) -> None:
    own = config(folder, image_size=64)
    images, labels = Taskonomy.open(own, folder, "train").batch(np.arange(6), Taskonomy.labels)
    assert all(torch.isfinite(value).all() for value in (images, *labels.values()))
    assert torch.allclose(labels[label][:, 0, :16, :16], torch.ones(6, 16, 16), atol=1e-6)
    file = folder / label / "beechwood" / f"point_2_view_0_domain_{label}.png"
    codes = np.asarray(Image.open(file)).astype(np.float64)
    assert np.allclose(labels[label][5, 0], np.log1p(codes) / np.log(2.0**16), atol=1e-6)


@pytest.mark.parametrize("mask", ["holes", "far", "files"])
def test_masked_pixels_are_told_to_losses_and_metrics(tmp_path: Path, mask: str) -> None:
    folder = taskonomy_files.write(tmp_path / "masked", "taskgrouping")
    opened = Taskonomy.open(config(folder, image_size=64, mask=mask), folder, "train")
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[taskonomy_files.HOLE] = True
    # The mask is read for the normals alone, too.
    normal = opened.batch(np.arange(2), ["normal"])[1]["normal"]
    assert torch.equal((normal == 255).all(dim=1), hole.expand(2, 64, 64))
    fields = {"data": {"name": "taskonomy", "root": str(folder), "image_size": 32}, "train": {"batch_size": 2}}
    model = {"backbone": "vit_pico"}
    masked, plain = (
        {
            task.name: task
            for task in tasks_of(load_trial({**fields, "data": {**fields["data"], **extra}, "model": model}))
        }
        for extra in ({"mask": mask}, {})
    )
    prediction, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.5, 255.0]]]])
    assert masked["depth_zbuffer"].loss(prediction, target) == 0.5
    assert plain["depth_zbuffer"].loss(prediction, target) > 100
    assert masked["keypoints2d"].loss(prediction, target) > 100


def test_a_label_that_a_normalisation_does_not_define_is_named(folder: Path) -> None:
    assert message(folder, labels=("keypoints3d",), normalisation="taskgrouping").startswith(
        "unknown label 'keypoints3d'; did you mean 'keypoints2d'? (allowed: depth_euclidean, "
    )


def rewrite(folder: Path, *lines: str) -> None:
    (folder / SPLITS_FILE).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["id,train,val"], "its columns are to be id,train,val,test, they are id,train,val"),
        (["id,train,val,test", "a,1,0"], "line 2: a building and one 1 among two 0 is wanted: a,1,0"),
        (["id,train,val,test", "a,1,1,0"], "line 2: a building and one 1 among two 0 is wanted: a,1,1,0"),
        (["id,train,val,test", "a,1,0,0", "a,1,0,0"], "the list names 'a,1,0,0' twice"),
        (["id,train,val,test", "a,1,0,0", "a,0,0,1"], "line 3: building 'a' is in it twice"),
        (["id,train,val,test", "../ihlen,1,0,0"], "line 2: '../ihlen' is no name of a building"),
    ],
)
def test_a_damaged_list_is_named(folder: Path, lines: list[str], expected: str) -> None:
    rewrite(folder, *lines)
    assert message(folder) == f"data set 'taskonomy': {SPLITS_FILE}: {expected}"


def test_a_building_that_is_not_there_is_named_or_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = names(folder, "train")
    text = (folder / SPLITS_FILE).read_text()
    (folder / SPLITS_FILE).write_text(f"{text}nowhere,1,0,0\nelsewhere,1,0,0\n")
    assert message(folder) == (
        f"data set 'taskonomy': {SPLITS_FILE}: it names building 'nowhere', of which rgb/nowhere has no image "
        "(2 such buildings in split 'train'); add it to data.leave_out, or use on_bad: skip"
    )
    with caplog.at_level(logging.WARNING):
        assert names(folder, "train", on_bad="skip") == before
    assert "(2 such buildings" in caplog.text
    assert names(folder, "train", leave_out=["nowhere", "elsewhere"]) == before


def test_a_missing_list_says_where_it_is_found(folder: Path) -> None:
    assert "train_val_test_full.csv: it is missing; it is in data/assets/splits_taskonomy.zip" in message(
        folder, subset="full"
    )
    shutil.move(folder / SPLITS_FILE, folder / "train_val_test_tiny.csv")
    assert len(names(folder, "train")) == 6


SMALL, WIDE = np.zeros((32, 64), dtype=np.uint8), np.zeros((64, 64), dtype=np.uint16)


@pytest.mark.parametrize(
    ("label", "array", "expected"),
    [
        ("depth_zbuffer", WIDE.astype(np.uint8), "16-bit grey is wanted, it is 8-bit grey"),
        ("normal", WIDE, "8-bit RGB is wanted, it is 16-bit grey"),
        ("segment_unsup25d", WIDE, "8-bit grey is wanted, it is 16-bit grey"),
        ("segment_unsup2d", SMALL, "64x64 pixels are wanted, it has 64x32"),
        ("rgb", SMALL, "8-bit RGB is wanted, it is 8-bit grey"),
    ],
)
def test_a_file_of_another_kind_is_named(folder: Path, label: str, array: np.ndarray, expected: str) -> None:
    file = f"{label}/beechwood/point_2_view_0_domain_{label}.png"
    Image.fromarray(array).save(folder / file)
    assert message(folder) == f"data set 'taskonomy': {file}: {expected}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"subset": "huge"}, "subset: should be 'tiny', 'medium', 'full' or 'fullplus', got 'huge'"),
        ({"resize": 128}, r"resize \(128\) must not be smaller than image_size \(256\)"),
        ({"normalization": "mod_squad"}, "unknown field 'normalization'; did you mean 'normalisation'"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        TaskonomyConfig.parse(fields)
