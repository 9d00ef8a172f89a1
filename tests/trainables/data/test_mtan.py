"""The data sets ``nyuv2_mtan`` and ``cityscapes_mtan`` on folders of each layout, whole and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import mtan_files
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from study.testing.data_sets import OnDiskContract, same
from trainables.data import mtan
from trainables.data.cityscapes_mtan import CityscapesMtan, CityscapesMtanConfig
from trainables.data.nyuv2_mtan import NYUv2Mtan, NYUv2MtanConfig
from trainables.data.ondisk import forget, hold_out
from trainables.errors import DataError

FIRST = hold_out([f"train/{index}" for index in range(mtan_files.COUNTS["train"])], 0.25)[0][0].split("/")[1]
NYU, CITY = (288, 384), (128, 256)


class MtanContract(OnDiskContract):
    augments = True
    fields: ClassVar = {"augment": True, "val_fraction": 0.25}
    train_image = f"train/image/{FIRST}.npy"
    # There are no lists.
    test_a_list_that_is_not_utf8_is_named = None


@pytest.mark.slow  # its images are ten times as large as those of Cityscapes
class TestNYUv2(MtanContract):
    name = "nyuv2_mtan"
    channels: ClassVar = {"depth": 1, "normal": 3}
    published: ClassVar = {"train": 596, "val": 199, "test": 654}
    train_label = ("semseg", f"train/label/{FIRST}.npy")

    @classmethod
    def write(cls, root: Path) -> None:
        mtan_files.write_npy(root, NYU, 13)


class TestCityscapes(MtanContract):
    name = "cityscapes_mtan"
    channels: ClassVar = {"depth": 1}
    published: ClassVar = {"train": 2231, "val": 744, "test": 500}
    train_label = ("depth", f"train/depth/{FIRST}.npy")

    @classmethod
    def write(cls, root: Path) -> None:
        mtan_files.write_npy(root, CITY, 7, normals=False)


class TestCityscapesOfFamo(TestCityscapes):
    train_label = ("semseg", f"train/label_7/{FIRST}.npy")

    @classmethod
    def write(cls, root: Path) -> None:
        mtan_files.write_npy(root, CITY, 7, label="label_7", normals=False)


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mtan_files.write_npy(tmp_path_factory.mktemp("nyu"), NYU, 13)


@pytest.fixture(scope="module")
def nyu_parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mtan_files.write_parquet(tmp_path_factory.mktemp("parquet"), NYU, 13)


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return mtan_files.write_npy(tmp_path / "city", CITY, 7, normals=False)


def nyu_config(folder: Path, **fields: Any) -> NYUv2MtanConfig:
    forget()
    return NYUv2MtanConfig.parse({"root": str(folder), "val_fraction": 0.25, **fields})


def test_labels_are_those_of_the_files(nyu: Path) -> None:
    opened = NYUv2Mtan.open(nyu_config(nyu, pixels="unit"), nyu, "test")
    assert opened.names == ("val/0", "val/1", "val/2", "val/3")
    images, labels = opened.batch(np.arange(4), NYUv2Mtan.labels)
    for index in range(4):
        stored = {name: np.load(nyu / "val" / name / f"{index}.npy") for name in ("image", "label", "depth", "normal")}
        assert np.array_equal(images[index], stored["image"].transpose(2, 0, 1))
        assert np.array_equal(labels["depth"][index], stored["depth"].transpose(2, 0, 1))
        assert np.array_equal(labels["normal"][index], stored["normal"].transpose(2, 0, 1))
        assert np.array_equal(labels["semseg"][index], np.where(stored["label"] < 0, 255, stored["label"]))
        assert (stored["label"] < 0).any()


def test_pixels_are_as_the_backbone_or_as_the_papers_have_them(nyu: Path) -> None:
    unit, imagenet = (
        NYUv2Mtan.open(nyu_config(nyu, pixels=pixels), nyu, "val").batch(np.array([0]), [])[0]
        for pixels in ("unit", "imagenet")
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(imagenet, (unit - mean.view(3, 1, 1)) / std.view(3, 1, 1), atol=1e-6)


def test_parquet_files_hold_the_same(nyu: Path, nyu_parquet: Path) -> None:
    one, other = nyu_config(nyu, augment=True), nyu_config(nyu_parquet, augment=True)
    found = NYUv2Mtan.layout(other)
    assert found is not None
    assert found.name == "parquet"
    assert NYUv2Mtan.sizes(one) == NYUv2Mtan.sizes(other) == {"train": 6, "val": 2, "test": 4}
    for split, seeds in (("train", np.arange(6, dtype=np.uint64)), ("val", None), ("test", None)):
        batches = [
            NYUv2Mtan.open(config, nyu, split).batch(
                np.arange(NYUv2Mtan.sizes(config)[split])[::-1].copy(), NYUv2Mtan.labels, seeds
            )
            for config in (one, other)
        ]
        assert same(*batches)
    result = NYUv2Mtan.check(other)
    assert (result.problems, result.layout) == ((), "parquet")


def test_parquet_files_are_found_where_hugging_face_puts_them(nyu_parquet: Path, tmp_path: Path) -> None:
    cache = tmp_path / "datasets--tanganke--nyuv2"
    (cache / "snapshots" / "b367b8b" / "data").mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted((nyu_parquet / "data").iterdir())):
        shutil.copy(file, cache / "blobs" / str(number))
        (cache / "snapshots" / "b367b8b" / "data" / file.name).symlink_to(f"../../../blobs/{number}")
    shutil.copytree(nyu_parquet / "data", tmp_path / "flat")
    for folder in (cache, tmp_path / "flat"):
        assert NYUv2Mtan.sizes(nyu_config(folder)) == {"train": 6, "val": 2, "test": 4}


def test_memory_for_parquet_files_is_bounded(nyu_parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtan, "CACHE_BYTES", 1)
    config = nyu_config(nyu_parquet)
    before = NYUv2Mtan.open(config, nyu_parquet, "train").batch(np.arange(6), NYUv2Mtan.labels)
    layout: Any = NYUv2Mtan.layout(config)
    assert len(layout._cache) == 1
    assert same(before, NYUv2Mtan.open(config, nyu_parquet, "train").batch(np.arange(6), NYUv2Mtan.labels))


def message(data_set: Any, config: Any, folder: Path) -> str:
    forget()

    def use() -> None:
        opened = data_set.open(config, folder, "train")
        opened.batch(np.arange(len(opened)), data_set.labels)

    with pytest.raises(DataError) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert str(folder) not in str(caught.value)
    return str(caught.value)


PART = "train-00001-of-00002-0f1e2d3c4b5a6978.parquet"


def thinner() -> pa.Table:
    return pa.table({"image": pa.array([[[[0.5]]]])})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "data: train-00001-of-00002 is missing"),
        (b"x" * 200, f"data/{PART}: it is damaged: no whole Parquet file of arrays"),
        (pa.table({"picture": [1]}), f"data/{PART}: it has no column 'image'"),
        (thinner(), f"data/{PART}: column 'image': rows of shape (3, 288, 384) are wanted"),
        (pa.table({"image": ["text"]}), f"data/{PART}: column 'image': rows of shape (3, 288, 384) are wanted"),
    ],
)
def test_a_damaged_parquet_file_is_named(nyu_parquet: Path, tmp_path: Path, content: Any, expected: str) -> None:
    folder = Path(shutil.copytree(nyu_parquet, tmp_path / "copy"))
    file = folder / "data" / PART
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        parquet.write_table(content, file)
    assert message(NYUv2Mtan, nyu_config(folder, val_fraction=0.0), folder) == f"data set 'nyuv2_mtan': {expected}"


@pytest.mark.parametrize(
    ("file", "array", "expected"),
    [
        ("train/label/3.npy", np.full(CITY, 7.0), "classes 0 to 6, or -1, are wanted, it has 7.0"),
        ("train/label/3.npy", np.full(CITY, 2.5), "classes 0 to 6, or -1, are wanted, it has 2.5"),
        ("train/depth/3.npy", np.zeros((256, 128)), "an array of shape (128, 256) is wanted, it has (256, 128)"),
        ("train/image/3.npy", np.zeros(CITY), "an array of shape (128, 256, 3) is wanted, it has (128, 256)"),
        ("train/image/3.npy", np.full((*CITY, 3), 200.0), "values from 0 to 1 are wanted"),
        ("train/image/3.npy", np.full((*CITY, 3), np.nan), "values from 0 to 1 are wanted"),
        ("train/image/3.npy", np.array([None]), "it is damaged: no whole .npy array of numbers"),
    ],
)
def test_an_array_of_something_else_is_named(city: Path, file: str, array: np.ndarray, expected: str) -> None:
    np.save(city / file, array, allow_pickle=True)
    found = message(CityscapesMtan, CityscapesMtanConfig(root=str(city), val_fraction=0.0), city)
    assert found == f"data set 'cityscapes_mtan': {file}: {expected}"


def test_depth_that_is_not_a_number_is_not_measured(city: Path) -> None:
    depth = np.ones((*CITY, 1), dtype=np.float32)
    depth[0, :3, 0] = (np.nan, -1, np.inf)
    np.save(city / "train/depth/0.npy", depth)
    forget()
    config = CityscapesMtanConfig(root=str(city), val_fraction=0.0)
    found = CityscapesMtan.open(config, city, "train").batch(np.array([0]), ["depth"])[1]["depth"]
    assert found[0, 0, 0, :4].tolist() == [0, 0, 0, 1]


def test_numbers_that_cannot_be_are_refused(city: Path) -> None:
    shutil.copy(city / "train/image/0.npy", city / "train/image/99999999999.npy")
    found = message(CityscapesMtan, CityscapesMtanConfig(root=str(city)), city)
    assert found == "data set 'cityscapes_mtan': train: it has an array of number 99999999999; they run from 0"


def made_up(height: int, width: int) -> dict[str, torch.Tensor]:
    """A plane whose every pixel tells where it is: image and normal linear in x and y, depth 6, classes by column."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return {
        "image": torch.stack([x, y, torch.zeros_like(x)]),
        "semseg": (torch.arange(width) // 4).expand(1, height, width).float(),
        "depth": torch.full((1, height, width), 6.0),
        "normal": torch.stack([x, y, 1 - x]),
    }


@given(seed=st.integers(0, 2**32), power=st.sampled_from([-1, 1]))
@settings(max_examples=60, deadline=None)
def test_augmentation_scales_crops_and_mirrors_as_one(seed: int, power: int) -> None:
    height, width = 24, 36
    out = mtan.augment(made_up(height, width), np.random.default_rng(seed), power)
    assert all(tensor.shape[-2:] == (height, width) for tensor in out.values())
    x, y = out["image"][0], out["image"][1]
    mirrored = bool(x[0, 0] > x[0, -1])
    if mirrored:
        x, y = x.flip(-1), y.flip(-1)
    scale = (round(float(out["depth"].max()) / 6 * 30) / 30) ** power
    assert min(abs(scale - allowed) for allowed in mtan.SCALES) < 0.05
    assert torch.allclose(out["depth"], torch.full_like(out["depth"], 6.0) * out["depth"].max() / 6.0)
    # The corners of the crop land on the corners of the sample, and everything between lies evenly.
    span = (int(width / scale + 1e-6) - 1) / (width - 1)
    assert float(x[0, -1] - x[0, 0]) == pytest.approx(span, abs=1e-5)
    assert torch.allclose(x, x[:1].expand_as(x), atol=1e-5)
    assert torch.allclose(x[0].diff(), torch.full((width - 1,), span / (width - 1)), atol=1e-5)
    normal = out["normal"].flip(-1) if mirrored else out["normal"]
    assert torch.allclose(normal[0], -x if mirrored else x, atol=1e-5)
    assert torch.allclose(normal[1], y, atol=1e-5)
    # Classes are copied, never mixed, and stand where the image says they do.
    semseg = out["semseg"].flip(-1) if mirrored else out["semseg"]
    assert set(semseg.flatten().tolist()) <= set(range(9))
    assert torch.all((semseg[0] - (x * (width - 1) / 4).floor()).abs() <= 1)


@pytest.mark.parametrize(
    ("config", "factor"),
    [(CityscapesMtanConfig(), 1.5), (CityscapesMtanConfig(scaled_disparity="released"), 1 / 1.5)],
)
def test_disparity_grows_with_the_image_unless_as_released(config: CityscapesMtanConfig, factor: float) -> None:
    finish = CityscapesMtan.finish(config.model_copy(update={"augment": True}))
    raw = {"image": np.zeros((*CITY, 3), np.float32), "depth": np.ones(CITY, np.float32)}
    seen = {round(float(finish(raw, ["depth"], seed)[1]["depth"].max()), 5) for seed in range(40)}
    assert len(seen) == 3
    assert round(factor, 5) in seen
    assert round(1 / factor, 5) not in seen
