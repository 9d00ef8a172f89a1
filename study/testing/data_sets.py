"""What every data set owes the trainer, and one that people bring as files on disk besides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.data import DATA_SETS
from trainables.data.base import SPLITS, DataConfig, DataSet, Split
from trainables.data.ondisk import forget
from trainables.errors import DataError
from trainables.losses import IGNORE
from trainables.settings import component

Batch = tuple[Tensor, dict[str, Tensor]]
"""What a split gives: images and labels by name."""


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal, bit for bit, labels in one order."""
    return (
        torch.equal(one[0], other[0])
        and list(one[1]) == list(other[1])
        and all(torch.equal(one[1][label], other[1][label]) for label in one[1])
    )


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


class DataSetContract:
    """The contract of every data set that gives images: inherit, set the class variables, and define ``data_config``.

    Splits have the sizes announced, a sample depends on its index and seed alone, equal seeds give equal bits, mistakes
    are named, reading writes nothing. Its config here has to have at
    least 3 samples to train on.
    """

    name: ClassVar[str]
    """As registered."""
    channels: ClassVar[Mapping[str, int]]
    """Channels of every dense label; labels of classes are not here."""
    augments: ClassVar[bool] = False
    """Whether seeds change a training batch."""

    @pytest.fixture(scope="class")
    @classmethod
    def data_config(cls) -> DataConfig:
        """The config of a data set small enough for tests."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def prepared_root(cls, data_config: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """What the home's data folder is, with the data set prepared in it."""
        root = tmp_path_factory.mktemp(cls.name)
        cls.data_set().prepare(data_config, root)
        return root

    @classmethod
    def data_set(cls) -> type[DataSet]:
        """The class under test."""
        return DATA_SETS[cls.name]

    def opened(self, config: DataConfig, root: Path, split: str = "train") -> Split:
        """A prepared split."""
        return self.data_set().open(config, root, split)

    def test_it_is_registered_under_the_name_of_its_config(self, data_config: DataConfig) -> None:
        assert data_config.name == self.name
        assert type(data_config) is self.data_set().Config
        assert type(component(DATA_SETS, self.name, "data")) is self.data_set().Config

    def test_splits_have_their_sizes(self, data_config: DataConfig, prepared_root: Path) -> None:
        sizes = self.data_set().sizes(data_config)
        assert set(sizes) == set(SPLITS)
        assert {split: len(self.opened(data_config, prepared_root, split)) for split in SPLITS} == sizes

    def test_batches_have_the_shapes_and_types_promised(self, data_config: DataConfig, prepared_root: Path) -> None:
        shape, classes = self.data_set().image_shape(data_config), self.data_set().classes
        for seeds in (None, np.array([1, 2], dtype=np.uint64)):
            images, labels = self.opened(data_config, prepared_root).batch(
                np.array([1, 0]), self.data_set().labels, seeds
            )
            assert images.shape == (2, 3, *shape)
            assert images.dtype == torch.float32
            assert torch.isfinite(images).all()
            assert tuple(labels) == tuple(self.data_set().labels)
            assert set(self.channels) | set(classes) == set(labels)
            for name, label in labels.items():
                if name in classes:
                    assert (label.shape, label.dtype) == ((2, *shape), torch.int64)
                    assert bool(((label >= 0) & (label < classes[name]) | (label == IGNORE)).all())
                else:
                    assert (label.shape, label.dtype) == ((2, self.channels[name], *shape), torch.float32)
                    assert torch.isfinite(label).all()

    def test_a_sample_does_not_depend_on_its_batch(self, data_config: DataConfig, prepared_root: Path) -> None:
        split, labels = self.opened(data_config, prepared_root), self.data_set().labels
        for seeds in (None, np.array([3, 2**64 - 1, 5], dtype=np.uint64)):
            images, found = split.batch(np.array([2, 0, 1]), labels, seeds)
            for position, index in enumerate([2, 0, 1]):
                one = split.batch(np.array([index]), labels, None if seeds is None else seeds[position : position + 1])
                here = slice(position, position + 1)
                assert same(one, (images[here], {name: label[here] for name, label in found.items()}))

    def test_a_label_does_not_depend_on_the_others(self, data_config: DataConfig, prepared_root: Path) -> None:
        split, labels = self.opened(data_config, prepared_root), self.data_set().labels
        indices, seeds = np.array([0, 1]), np.array([8, 9], dtype=np.uint64)
        images, found = split.batch(indices, labels, seeds)
        for label in labels:
            assert same(split.batch(indices, [label], seeds), (images, {label: found[label]}))
        assert same(split.batch(indices, [], seeds), (images, {}))

    def test_equal_seeds_give_equal_bits_in_every_process(self, data_config: DataConfig, prepared_root: Path) -> None:
        labels, indices = self.data_set().labels, np.array([0, 1])
        seeds = [np.array([k, k + 1], dtype=np.uint64) for k in range(4)]
        one = [self.opened(data_config, prepared_root).batch(indices, labels, each) for each in seeds]
        two = [self.opened(data_config, prepared_root).batch(indices, labels, each) for each in seeds]
        assert all(same(a, b) for a, b in zip(one, two, strict=True))
        plain = self.opened(data_config, prepared_root).batch(indices, labels)
        assert same(plain, self.opened(data_config, prepared_root).batch(indices, labels))
        assert any(not same(plain, each) for each in one) == self.augments

    def test_an_unknown_label_or_split_is_named(self, data_config: DataConfig, prepared_root: Path) -> None:
        label = self.data_set().labels[0]
        with pytest.raises(DataError, match=rf"unknown label '{label}x'; did you mean '{label}'\?"):
            self.opened(data_config, prepared_root).batch(np.array([0]), [f"{label}x"])
        with pytest.raises(DataError, match=r"unknown split 'vall'; did you mean 'val'\?"):
            self.opened(data_config, prepared_root, "vall")

    def test_a_node_that_brings_it_gives_the_same_bits(
        self, data_config: DataConfig, prepared_root: Path, tmp_path: Path
    ) -> None:
        before = snapshot(prepared_root)
        self.data_set().bring(data_config, tmp_path, prepared_root)
        assert snapshot(prepared_root) == before
        indices, labels = np.arange(2), self.data_set().labels
        assert same(
            self.opened(data_config, tmp_path).batch(indices, labels),
            self.opened(data_config, prepared_root).batch(indices, labels),
        )

    def test_the_config_survives_json(self, data_config: DataConfig) -> None:
        again = component(DATA_SETS, data_config.to_dict(), "data")
        assert again == data_config
        assert self.data_set().fingerprint(again) == self.data_set().fingerprint(data_config)

    def test_nothing_is_written_by_reading(self, data_config: DataConfig, prepared_root: Path) -> None:
        before = snapshot(prepared_root)
        for split in SPLITS:
            self.opened(data_config, prepared_root, split).batch(np.array([0]), self.data_set().labels)
        assert snapshot(prepared_root) == before


class OnDiskContract(DataSetContract):
    """The contract of a data set found on disk: set the class variables, and define :meth:`write`.

    What is wrong with a folder is said by name, damaged files are named or skipped, and the folder is only read.
    """

    fields: ClassVar[Mapping[str, Any]] = {}
    """Fields of the config beside ``root``."""
    list_file: ClassVar[str]
    """A text file that names samples."""
    train_image: ClassVar[str]
    """The image of a training sample that is not held out, below the root."""
    train_label: ClassVar[tuple[str, str]]
    """A label of the same sample and its file."""
    published: ClassVar[Mapping[str, int]]
    """Sizes by split as published, at ``fields``."""

    @classmethod
    def write(cls, root: Path) -> None:
        """Make the files of a small data set."""
        raise NotImplementedError

    @classmethod
    def config(cls, root: Path | None, **fields: Any) -> Any:
        """The config of the data in ``root``, what is known of the folder forgotten."""
        forget()
        given = {} if root is None else {"root": str(root)}
        return component(DATA_SETS, {"name": cls.name, **cls.fields, **given, **fields}, "data")

    @pytest.fixture(scope="class")
    @classmethod
    def written(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a small data set. Tests do not write below it."""
        root = tmp_path_factory.mktemp(f"{cls.name}-files")
        cls.write(root)
        return root

    @pytest.fixture(scope="class")
    @classmethod
    def data_config(cls, written: Path) -> DataConfig:
        config: DataConfig = cls.config(written)
        return config

    @pytest.fixture
    def copy(self, written: Path, tmp_path: Path) -> Path:
        """A copy of the folder, to be damaged."""
        return Path(shutil.copytree(written, tmp_path / "copy"))

    def train_batch(self, config: DataConfig, root: Path, labels: list[str] | None = None) -> Batch:
        """The whole training split as one batch."""
        split = self.opened(config, root)
        wanted = self.data_set().labels if labels is None else labels
        return split.batch(np.arange(len(split)), wanted, np.arange(len(split), dtype=np.uint64))

    def test_the_folder_is_no_part_of_the_key(self, written: Path, copy: Path) -> None:
        one, two = self.config(written), self.config(copy)
        assert self.data_set().identity(one) == self.data_set().identity(two)
        assert "root" not in self.data_set().identity(one)
        assert self.data_set().fingerprint(one) == self.data_set().fingerprint(two)

    def test_files_that_change_change_the_key(self, copy: Path) -> None:
        prints = [self.data_set().fingerprint(self.config(copy))]
        image = copy / self.train_image
        image.write_bytes(image.read_bytes() + b"\0")
        prints.append(self.data_set().fingerprint(self.config(copy)))
        image.unlink()
        prints.append(self.data_set().fingerprint(self.config(copy)))
        prints.append(self.data_set().fingerprint(self.config(None)))
        assert len(set(prints)) == len(prints)

    def test_a_plan_needs_no_data(self, tmp_path: Path) -> None:
        for config in (self.config(None), self.config(tmp_path / "not-there")):
            assert self.data_set().sizes(config) == self.published
            assert self.data_set().fingerprint(config) == self.data_set().fingerprint(self.config(None))

    def test_absent_data_says_what_is_wanted_and_where_it_is_found(self, tmp_path: Path) -> None:
        for config in (self.config(None), self.config(tmp_path / "not-there")):
            with pytest.raises(DataError, match=r"^data\.root: .* wants a folder with .*, from ") as caught:
                self.data_set().prepare(config, tmp_path)
            assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match=r"^data\.root: .* has no layout of data set"):
            self.data_set().prepare(self.config(tmp_path), tmp_path)

    def test_the_data_folder_stays_as_it_is(self, written: Path, tmp_path: Path) -> None:
        before = snapshot(written)
        config = self.config(written)
        self.data_set().prepare(config, tmp_path)
        self.train_batch(config, tmp_path)
        self.data_set().check(config)
        assert snapshot(written) == before

    def test_check_finds_everything(self, written: Path) -> None:
        seen: list[tuple[int, int]] = []
        result = self.data_set().check(self.config(written), lambda done, total: seen.append((done, total)))
        sizes = self.data_set().sizes(self.config(written))
        assert (result.problems, result.damaged) == ((), 0)
        assert {(c.split, c.label) for c in result.counts} == {
            (split, label) for split in SPLITS for label in ("image", *self.data_set().labels)
        }
        assert all(c.found == c.listed == sizes[c.split] for c in result.counts)
        assert all(c.expected == self.published[c.split] for c in result.counts)
        assert not result.complete  # far fewer than published
        assert seen[-1] == (sum(sizes.values()), sum(sizes.values()))

    @pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "garbage"])
    @pytest.mark.parametrize("which", ["image", "label"])
    def test_a_bad_file_is_named_or_skipped(self, copy: Path, tmp_path: Path, damage: str, which: str) -> None:
        label, label_file = self.train_label
        file = self.train_image if which == "image" else label_file
        content = (copy / file).read_bytes()
        if damage == "missing":
            (copy / file).unlink()
        else:
            (copy / file).write_bytes(
                {"truncated": content[: len(content) // 2], "empty": b"", "garbage": b"x" * 500}[damage]
            )
        with pytest.raises(DataError) as caught:
            self.train_batch(self.config(copy), tmp_path, [label])
        message = str(caught.value)
        assert f"{self.name}': {file}: " in message
        assert str(copy) not in message
        assert "\n" not in message
        config = self.config(copy, on_bad="skip")
        images, _ = self.train_batch(config, tmp_path, [label])
        split: Any = self.opened(config, tmp_path)
        assert len(images) == len(split)  # its place was taken
        plain, labels = split.batch(np.arange(len(split)), [label])
        assert len(plain) == len(labels[label]) == len(split) - 1
        assert list(split.skipped.values()) == [message]
        empty, none = split.batch(np.array([split.names.index(next(iter(split.skipped)))]), [label])
        assert (len(empty), none) == (0, {})
        result = self.data_set().check(self.config(copy))
        assert result.problems == (message,)
        assert not result.complete
        lost = [(c.split, c.label) for c in result.counts if c.found == c.listed - 1]
        assert ("train", label) in lost
        assert (("train", "image") in lost) == (which == "image")

    def test_a_link_out_of_the_folder_is_refused(self, copy: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside.bin"
        shutil.move(copy / self.train_image, outside)
        os.symlink(outside, copy / self.train_image)
        with pytest.raises(DataError, match=r"a symbolic link leads out of the data folder") as caught:
            self.train_batch(self.config(copy), tmp_path)
        assert self.train_image in str(caught.value)
        assert str(outside) not in str(caught.value)

    def test_a_link_inside_the_folder_is_followed(self, copy: Path, tmp_path: Path) -> None:
        before = self.train_batch(self.config(copy), tmp_path)
        real = copy / "elsewhere.bin"
        shutil.move(copy / self.train_image, real)
        os.symlink(real, copy / self.train_image)
        assert same(self.train_batch(self.config(copy), tmp_path), before)

    def test_a_list_that_is_not_utf8_is_named(self, copy: Path, tmp_path: Path) -> None:
        path = copy / self.list_file
        path.write_bytes(path.read_bytes() + "caf\xe9\n".encode("latin-1"))
        with pytest.raises(DataError, match=rf"{self.list_file}: it is not UTF-8 text \(byte \d+\)$"):
            self.data_set().prepare(self.config(copy), tmp_path)
