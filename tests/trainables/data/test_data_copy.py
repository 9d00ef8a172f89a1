"""A node's own copy of a built data set: made once, every byte held against its checksum."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from test_data_store import FOLDER, KEY, produce, start, visible

from trainables.data import store
from trainables.errors import DataError


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    root = tmp_path / "shared"
    store.prepare(KEY, root, produce)
    return root


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return tmp_path / "node" / "data"


def test_a_copy_is_whole_and_does_not_need_the_other(shared: Path, node: Path) -> None:
    assert store.copy(KEY, shared, node)
    assert visible(node) == [FOLDER]
    manifests = [(root / FOLDER / store.MANIFEST).read_bytes() for root in (shared, node)]
    assert manifests[0] == manifests[1]
    shutil.rmtree(shared)
    assert store.copy(KEY, shared, node), "it is there"
    assert store.verify(node) == [FOLDER]
    assert store.open_split(KEY, node, "train")["depth"][2].tolist() == [[2000, 2001], [2002, 2003]]


def test_nothing_to_copy_is_said_and_makes_nothing(tmp_path: Path, node: Path) -> None:
    assert not store.copy(KEY, tmp_path / "nowhere", node)
    assert not node.exists()


def test_a_damaged_one_is_not_copied(shared: Path, node: Path) -> None:
    file = shared / FOLDER / "train" / "image.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match=rf"{FOLDER}/train/image\.npy in {shared} is damaged: its checksum is wrong"):
        store.copy(KEY, shared, node)
    assert visible(node) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(shared: Path, node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(handle: BinaryIO, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "_write", write)
    with pytest.raises(DataError, match=rf"{FOLDER}: cannot be built: No space left on device; free some space"):
        store.copy(KEY, shared, node)
    assert visible(node) == []


def test_a_copy_that_is_killed_is_made_again(shared: Path, node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store._write
    calls = 0

    def dying(handle: BinaryIO, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(handle, data)

    monkeypatch.setattr(store, "_write", dying)
    child = start(lambda: store.copy(KEY, shared, node))
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert FOLDER not in visible(node)
    monkeypatch.undo()
    assert store.copy(KEY, shared, node)
    assert visible(node) == [FOLDER]
    assert store.verify(node) == [FOLDER]


def test_processes_that_ask_at_once_copy_once(shared: Path, node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count: Any = multiprocessing.get_context("fork").Value("i", 0)
    copy_files = store._copy_files

    def counted(*arguments: Any) -> None:
        with count.get_lock():
            count.value += 1
        copy_files(*arguments)

    monkeypatch.setattr(store, "_copy_files", counted)
    children = [start(lambda: store.copy(KEY, shared, node)) for _ in range(4)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert count.value == 1
    np.testing.assert_array_equal(
        store.open_split(KEY, node, "val")["image"], store.open_split(KEY, shared, "val")["image"]
    )
