from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from ondisk_fixtures import NYUD_SIZE, NYUD_TEST, NYUD_TRAIN, nyud_sample, save_mat, save_npy, save_png, write_nyud

from study.testing.data_sets import OnDiskContract
from trainables.data.nyud import NYUD, NYUDConfig
from trainables.data.ondisk import forget, hold_out
from trainables.errors import ConfigError, DataError

TARGET = (48, 64)
FIRST = hold_out(NYUD_TRAIN, 0.25)[0][0]


class NYUDContract(OnDiskContract):
    name = "nyud"
    channels: ClassVar = {"depth": 1, "normal": 3, "edge": 1}
    augments = True
    fields: ClassVar = {"image_size": list(TARGET), "val_fraction": 0.25}
    published: ClassVar = {"train": 596, "val": 199, "test": 654}
    list_file = "gt_sets/train.txt"
    layout: str

    @classmethod
    def write(cls, root: Path) -> None:
        write_nyud(root, cls.layout)

    def test_the_layout_is_told_by_looking(self, written: Path) -> None:
        assert NYUD.check(self.config(written)).layout == self.layout

    def test_labels_are_those_of_the_files(self, written: Path, tmp_path: Path) -> None:
        split = NYUD.open(self.config(written), tmp_path, "test")
        _, labels = split.batch(np.arange(len(split)), NYUD.labels)
        top, left = (TARGET[0] - NYUD_SIZE[0]) // 2, (TARGET[1] - NYUD_SIZE[1]) // 2
        inside = (slice(top, top + NYUD_SIZE[0]), slice(left, left + NYUD_SIZE[1]))
        outside = torch.ones(TARGET, dtype=torch.bool)
        outside[inside] = False
        for position, name in enumerate(NYUD_TEST):
            sample = nyud_sample(name)
            semseg = labels["semseg"][position]
            assert (semseg[outside] == 255).all()
            expected = sample["semseg"].astype(int) - 1
            assert (semseg[inside].numpy() == np.where(expected < 0, 255, expected)).all()
            assert (labels["depth"][position, 0][outside] == 0).all()
            assert (labels["depth"][position, 0][inside].numpy() == sample["depth"]).all()
            assert (labels["edge"][position, 0][outside] == 255).all()
            assert (labels["edge"][position, 0][inside].numpy() == sample["edge"]).all()
            normal = labels["normal"][position]
            assert (normal[:, outside] == 0).all()
            if self.layout != "astmt":  # a JPEG of noise is another picture
                plain = np.moveaxis(sample["normal"].astype(float) / 127.5 - 1, -1, 0)
                length = np.linalg.norm(plain, axis=0)
                expected_normal = np.where(length > 0.5, plain / length, 0.0)
                assert np.allclose(normal[:, inside[0], inside[1]].numpy(), expected_normal, atol=1e-6)
                assert (expected_normal[:, :2, :5] == 0).all()


class TestInvPT(NYUDContract):
    layout = "invpt"
    train_image = f"images/{FIRST}.png"
    train_label = ("semseg", f"segmentation/{FIRST}.png")


class TestMTINet(NYUDContract):
    layout = "mti_net"
    train_image = f"images/{FIRST}.jpg"
    train_label = ("depth", f"depth/{FIRST}.npy")


class TestASTMT(NYUDContract):
    layout = "astmt"
    train_image = f"images/{FIRST}.jpg"
    train_label = ("depth", f"depth/{FIRST}.mat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_nyud(tmp_path / "nyud")
    forget()
    return tmp_path / "nyud"


def message(folder: Path, **fields: Any) -> str:
    forget()
    config = NYUDConfig(root=str(folder), **{"image_size": TARGET, "val_fraction": 0.0, **fields})

    def use() -> None:
        split = NYUD.open(config, folder, "train")
        split.batch(np.arange(len(split)), NYUD.labels)

    with pytest.raises(DataError) as caught:
        use()
    assert "\n" not in str(caught.value)
    return str(caught.value)


SMALL = np.zeros((8, 9), dtype=np.uint8)
FULL = np.zeros(NYUD_SIZE, dtype=np.uint8)


@pytest.mark.parametrize(
    ("file", "array", "expected"),
    [
        ("segmentation/0003.png", SMALL, "56x40 pixels are wanted, it has 9x8"),
        ("edge/0003.png", SMALL, "56x40 pixels are wanted, it has 9x8"),
        ("segmentation/0003.png", FULL.astype(np.uint16), "8-bit grey or 8-bit palette is wanted, it is 16-bit grey"),
        ("segmentation/0003.png", FULL + np.uint8(41), "classes from 0 to 40 are wanted, it has 41"),
        ("normals/0003.png", FULL, "8-bit RGB is wanted, it is 8-bit grey"),
        ("images/0003.png", FULL, "8-bit RGB is wanted, it is 8-bit grey"),
        (
            "images/0003.png",
            np.zeros((49, 64, 3), dtype=np.uint8),
            "64x49 pixels do not fit into data.image_size [48, 64]",
        ),
        ("depth/0003.npy", np.zeros((8, 9), dtype=np.float32), "56x40 pixels are wanted, it has 9x8"),
        ("depth/0003.npy", np.zeros((*NYUD_SIZE, 2), dtype=np.float32), "one value per pixel is wanted"),
        ("depth/0003.npy", np.zeros(NYUD_SIZE, dtype=complex), "an array of another type is wanted, it is complex128"),
        ("depth/0003.npy", np.zeros(4), "2 or 3 axes are wanted, it has shape (4,)"),
    ],
)
def test_a_file_of_the_wrong_kind_is_named(folder: Path, file: str, array: np.ndarray, expected: str) -> None:
    (save_npy if file.endswith("npy") else save_png)(folder / file, array)
    assert message(folder).startswith(f"data set 'nyud': {file}: {expected}")


def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    np.save(folder / "depth/0003.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    assert message(folder).endswith("depth/0003.npy: it is damaged: no whole .npy array of numbers")
    assert not (tmp_path / "sprung").exists()


def test_a_matlab_file_without_the_variable_is_named(tmp_path: Path) -> None:
    write_nyud(tmp_path / "astmt", "astmt")
    save_mat(tmp_path / "astmt/depth/0003.mat", deep=np.ones(NYUD_SIZE))
    assert message(tmp_path / "astmt").endswith("depth/0003.mat: it has no variable 'depth'")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "gt_sets/train.txt: the list is empty"),
        (b"0001\n0002\n0001\n", "gt_sets/train.txt: the list names '0001' twice"),
        (b"0001\n0011\n", "gt_sets/val.txt: '0011' is in gt_sets/train.txt, too"),
        (b"../../0001\n", "images/../../0001.png: the path leads out of the data folder"),
        (b"/etc/0001\n", "images//etc/0001.png: it is missing"),
    ],
)
def test_a_wrong_list_is_named(folder: Path, content: bytes, expected: str) -> None:
    (folder / "gt_sets/train.txt").write_bytes(content)
    assert message(folder) == f"data set 'nyud': {expected}"


def test_a_folder_that_is_a_link_outwards_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "depth").rename(tmp_path / "depth")
    (folder / "depth").symlink_to(tmp_path / "depth")
    assert "a symbolic link leads out of the data folder" in message(folder)


def test_unmeasured_depth_is_zero(folder: Path) -> None:
    depth = np.full(NYUD_SIZE, 2.0)
    depth[0, :3] = [np.nan, np.inf, -1.0]
    save_npy(folder / "depth/0001.npy", depth)
    forget()
    config = NYUDConfig(root=str(folder), image_size=NYUD_SIZE, val_fraction=0.0)
    _, labels = NYUD.open(config, folder, "train").batch(np.array([0]), ["depth"])
    assert labels["depth"][0, 0, 0, :4].tolist() == [0.0, 0.0, 0.0, 2.0]


def test_without_a_holdout_all_samples_train(folder: Path) -> None:
    config = NYUDConfig(root=str(folder), val_fraction=0.0)
    assert NYUD.sizes(config) == {"train": 8, "val": 0, "test": 4}
    assert NYUD.sizes(NYUDConfig(val_fraction=0.0)) == {"train": 795, "val": 0, "test": 654}
    assert NYUD.open(config, folder, "train").names == NYUD_TRAIN


def test_holes_of_normals_follow_the_rule_asked_for(folder: Path) -> None:
    codes = np.full((*NYUD_SIZE, 3), 128, dtype=np.uint8)
    codes[0, 0] = (255, 128, 128)
    codes[0, 1] = (0, 0, 0)
    save_png(folder / "normals/0001.png", codes)
    forget()
    valid = {}
    for rule in ("unit", "nonzero"):
        config = NYUDConfig.parse({"root": str(folder), "val_fraction": 0, "valid_normals": rule})
        _, labels = NYUD.open(config, folder, "train").batch(np.array([0]), ["normal"])
        valid[rule] = int((labels["normal"] != 0).any(dim=1).sum())
    assert valid == {"unit": 1, "nonzero": NYUD_SIZE[0] * NYUD_SIZE[1]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"root": ""}, "root: the path of a folder is wanted"),
        ({"image_size": [8, 64]}, "image_size.0: should be greater than or equal to 16, got 8"),
        ({"augment": {"scale": [2.0, 0.5]}}, "augment: scale: the smaller factor comes first"),
        ({"augment": {"flipp": 1}}, "augment.flipp: unknown field 'flipp'; did you mean 'flip'?"),
        ({"on_bad": "ignore"}, "on_bad: should be 'error' or 'skip', got 'ignore'"),
        ({"val_fraction": 0.9}, "val_fraction: should be less than or equal to 0.5, got 0.9"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NYUDConfig.parse(fields)
    assert str(caught.value).startswith(expected)
