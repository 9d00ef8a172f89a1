from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ondisk_fixtures import PASCAL_TRAIN, write_pascal

from study.testing.data_sets import same, snapshot
from trainables.data.ondisk import FileSplit, cache, decoded, forget, hold_out
from trainables.data.pascal_context import PascalContext, PascalContextConfig
from trainables.errors import DataError

PRINT = "0123456789abcdef" * 4
SAMPLE = hold_out(PASCAL_TRAIN, 0.05)[0][0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pascal(tmp_path / "data")
    forget()
    return tmp_path / "data"


def opened(folder: Path, on_bad: Any = "error") -> FileSplit:
    forget()
    config = PascalContextConfig(root=str(folder), image_size=(64, 64), on_bad=on_bad)
    return PascalContext.open(config, folder, "train")


def keep(split: FileSplit, home: Path, workers: int = 2) -> FileSplit:
    return decoded(split, home, "pascal_context", "train", PRINT, workers)


def batches(split: FileSplit) -> list[Any]:
    indices = np.arange(len(split))
    seeds = indices.astype(np.uint64)
    return [
        split.batch(indices, PascalContext.labels),
        split.batch(indices, PascalContext.labels, seeds),
        split.batch(indices, ["edge"], seeds),
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_decoded_samples_are_the_same_bits(folder: Path, tmp_path: Path, workers: int) -> None:
    plain = opened(folder)
    kept = keep(plain, tmp_path / "home", workers)
    assert all(same(a, b) for a, b in zip(batches(plain), batches(kept), strict=True))


def test_a_cache_is_made_once_and_needs_no_files_afterwards(folder: Path, tmp_path: Path) -> None:
    split = opened(folder)
    expected = batches(keep(split, tmp_path / "home"))
    before = snapshot(tmp_path / "home")
    folder.rename(tmp_path / "gone")
    assert all(same(a, b) for a, b in zip(batches(keep(split, tmp_path / "home")), expected, strict=True))
    assert snapshot(tmp_path / "home") == before


def test_a_bad_label_is_remembered_as_it_was(folder: Path, tmp_path: Path) -> None:
    (folder / f"sal_distill/{SAMPLE}.png").write_bytes(b"no picture")
    plain, kept = opened(folder), keep(opened(folder), tmp_path / "home")
    messages = []
    for split in (plain, kept):
        with pytest.raises(DataError) as caught:
            split.batch(np.array([split.names.index(SAMPLE)]), ["saliency"])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert f"sal_distill/{SAMPLE}.png: it is damaged" in messages[0]
    others = ["semseg", "human_parts", "normal", "edge"]
    assert same(plain.batch(np.arange(3), others), kept.batch(np.arange(3), others))
    skipping = opened(folder, "skip")
    other = keep(skipping, tmp_path / "home")
    assert len(other.batch(np.arange(len(other)), ["saliency"])[0]) == len(other) - 1


def test_a_bad_image_is_bad_for_every_label(folder: Path, tmp_path: Path) -> None:
    (folder / f"JPEGImages/{SAMPLE}.jpg").unlink()
    kept = keep(opened(folder), tmp_path / "home")
    with pytest.raises(DataError, match=f"JPEGImages/{SAMPLE}.jpg: it is missing"):
        kept.batch(np.array([kept.names.index(SAMPLE)]), ["edge"])


@pytest.mark.parametrize("damage", ["flip", "cut", "index"])
def test_damage_is_found(folder: Path, tmp_path: Path, damage: str) -> None:
    split = opened(folder)
    keep(split, tmp_path / "home")
    home = next((tmp_path / "home").iterdir())
    path = home / ("train.json" if damage == "index" else "train.bin")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-1]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)

    def read() -> None:
        kept = keep(split, tmp_path / "home")
        kept.batch(np.arange(len(kept)), PascalContext.labels)

    with pytest.raises(DataError, match=r"the decoded samples of 'train' are damaged; delete the folder"):
        read()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device; free some space or set loading.cache to false"):
        keep(opened(folder), tmp_path / "home")
    assert {path.name for path in next((tmp_path / "home").iterdir()).iterdir()} == {".train.lock"}


def test_an_empty_split_has_an_empty_cache(tmp_path: Path) -> None:
    def load(_: str, __: Any) -> dict[str, np.ndarray]:
        raise AssertionError

    split = FileSplit((), ("edge",), load, lambda raw, labels, seed: (torch.empty(0), {}))
    assert len(keep(split, tmp_path)) == 0
