from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from trainables.data import store
from trainables.errors import DataError

KEY = store.Key(
    name="toy",
    fingerprint="0123456789abcdef" * 4,
    parameters={"seed": 3},
    samples={"train": 4, "val": 2},
    arrays={"image": store.ArraySpec((2, 2, 3), "uint8"), "depth": store.ArraySpec((2, 2), "uint16")},
)
FOLDER = "toy-0123456789abcdef"


def produce() -> store.Samples:
    for split, count in KEY.samples.items():
        for i in range(count):
            yield (
                split,
                {
                    "image": np.full((2, 2, 3), i, dtype=np.uint8),
                    "depth": np.arange(4, dtype=np.uint16).reshape(2, 2) + 1000 * i,
                },
            )


def never() -> store.Samples:
    yield from produce()
    raise AssertionError("built again")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store.prepare(KEY, tmp_path, produce)
    return tmp_path


def visible(root: Path) -> list[str]:
    """What lies in the root, but for the lock."""
    return sorted(p.name for p in root.iterdir() if not p.name.endswith(".lock"))


def test_built_arrays_come_back_read_only(root: Path) -> None:
    arrays = store.open_split(KEY, root, "train")
    assert set(arrays) == {"image", "depth"}
    assert arrays["image"].shape == (4, 2, 2, 3)
    assert arrays["depth"][2].tolist() == [[2000, 2001], [2002, 2003]]
    assert arrays["depth"].dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        arrays["depth"][0] = 1
    assert visible(root) == [FOLDER]
    np.testing.assert_array_equal(
        np.load(root / FOLDER / "val" / "depth.npy"), store.open_split(KEY, root, "val")["depth"]
    )


def test_manifest_says_what_was_built(root: Path) -> None:
    manifest = json.loads((root / FOLDER / "manifest.json").read_text())
    assert manifest["parameters"] == {"seed": 3}
    entry = manifest["files"]["train/depth"]
    assert entry["shape"] == [4, 2, 2]
    assert entry["dtype"] == "uint16"
    sha = subprocess.run(
        ["sha256sum", root / FOLDER / "train" / "depth.npy"], capture_output=True, text=True, check=True
    )
    assert sha.stdout.split()[0] == entry["sha256"]


def test_prepare_does_nothing_where_it_is_complete(root: Path) -> None:
    assert store.prepare(KEY, root, never) == root / FOLDER
    assert store.verify(root) == [FOLDER]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def remove(path: Path) -> None:
    path.unlink()


def overwrite(path: Path) -> None:
    path.write_text('{"format": 1}')


def garble(path: Path) -> None:
    path.write_bytes(b"\xff\x00 no json")


def edit(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["files"]["train/depth"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (truncate, "train/depth.npy"),
        (remove, "train/image.npy"),
        (remove, "manifest.json"),
        (overwrite, "manifest.json"),
        (garble, "manifest.json"),
        (edit, "manifest.json"),
    ],
)
def test_damage_is_named_by_open_prepare_and_verify(root: Path, damage: object, file: str) -> None:
    damage(root / FOLDER / file)  # type: ignore[operator]
    expected = rf"^{FOLDER}/{file} in {root} is damaged: .*; delete the folder {root / FOLDER} to have it built again$"
    with pytest.raises(DataError, match=expected):
        store.open_split(KEY, root, "train")
    with pytest.raises(DataError, match=expected):
        store.prepare(KEY, root, never)
    if file != "manifest.json" or damage is not remove:
        with pytest.raises(DataError, match=expected):
            store.verify(root)


def test_a_flipped_bit_is_found_when_opened_and_verified(root: Path) -> None:
    flip(root / FOLDER / "val" / "depth.npy")
    expected = rf"{FOLDER}/val/depth.npy in .* is damaged: its checksum is wrong; delete the folder"
    with pytest.raises(DataError, match=expected):
        store.open_split(KEY, root, "val")
    with pytest.raises(DataError, match=expected):
        store.verify(root)
    assert len(store.open_split(KEY, root, "train")["depth"]) == 4


def test_checksums_are_computed_once_until_the_file_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.open_split(KEY, root, "train")
    read: list[Path] = []
    digest = store._digest
    monkeypatch.setattr(store, "_digest", lambda path: read.append(path) or digest(path))
    store.open_split(KEY, root, "train")
    assert not read
    os.utime(root / FOLDER / "train" / "depth.npy", ns=(0, 0))
    store.open_split(KEY, root, "train")
    assert read == [root / FOLDER / "train" / "depth.npy"]


def test_another_data_set_in_the_folder_is_refused(root: Path) -> None:
    other = store.Key(KEY.name, KEY.fingerprint[:16] + "f" * 48, KEY.parameters, KEY.samples, KEY.arrays)
    with pytest.raises(DataError, match=r"manifest\.json .*belongs to another data set"):
        store.open_split(other, root, "train")
    grown = store.Key(KEY.name, KEY.fingerprint, KEY.parameters, {"train": 5, "val": 2}, KEY.arrays)
    with pytest.raises(DataError, match="train/image is not what was asked for"):
        store.open_split(grown, root, "train")


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, closed = 0, []

    def watched() -> store.Samples:
        try:
            yield from produce()
        finally:
            closed.append(True)

    def write(handle: BinaryIO, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 700:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        handle.write(data)

    monkeypatch.setattr(store, "_write", write)
    with pytest.raises(
        DataError, match=rf"{FOLDER}: cannot be built: No space left on device; free some space"
    ) as caught:
        store.prepare(KEY, tmp_path, watched)
    assert "\n" not in str(caught.value)
    assert closed
    assert visible(tmp_path) == []
    monkeypatch.undo()
    store.prepare(KEY, tmp_path, produce)
    assert store.verify(tmp_path) == [FOLDER]


def test_a_limit_of_the_system_on_writing_is_reported_too(tmp_path: Path) -> None:
    """A real failing write, not a simulated one: the file size limit of a process."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))
        with pytest.raises(DataError, match=rf"{FOLDER}: cannot be built: File too large; choose a data folder"):
            store.prepare(KEY, tmp_path, produce)

    child = start(limited)
    child.join()
    assert child.exitcode == 0
    assert visible(tmp_path) == []


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder is wanted")
    with pytest.raises(DataError, match=rf"{FOLDER}: cannot be built: .*; choose a data folder that can be written"):
        store.prepare(KEY, tmp_path / "home", produce)
    with pytest.raises(DataError, match=rf"{FOLDER}: cannot be built: "):
        store.prepare(KEY, tmp_path / "home" / "deeper", produce)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_root_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match=rf"{FOLDER}: cannot be built: Permission denied"):
            store.prepare(KEY, tmp_path, produce)
    finally:
        tmp_path.chmod(0o700)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> store.Samples:
        yield next(produce())
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        store.prepare(KEY, tmp_path, broken)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("count", [3, 5])
def test_wrong_number_of_samples_is_no_data_set(tmp_path: Path, count: int) -> None:
    train, val = list(produce())[:4], list(produce())[4:]
    samples = [*(train + train)[:count], *val]
    with pytest.raises(ValueError, match=f"{count} samples instead of 4"):
        store.prepare(KEY, tmp_path, lambda: (sample for sample in samples))
    assert visible(tmp_path) == []


def test_sample_of_another_type_is_refused(tmp_path: Path) -> None:
    sample = dict(next(produce())[1], depth=np.zeros((2, 2), dtype=np.int32))
    with pytest.raises(ValueError, match="int32 is not the declared"):
        store.prepare(KEY, tmp_path, lambda: (item for item in [("train", sample)]))


def start(target: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    # A fork is safe here, as the child only writes files, and spares it the import of torch.
    child = multiprocessing.get_context("fork").Process(target=target)
    child.start()
    return child


def test_killed_build_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    def dying() -> store.Samples:
        yield from list(produce())[:3]
        os.kill(os.getpid(), signal.SIGKILL)

    child = start(lambda: store.prepare(KEY, tmp_path, dying))
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(visible(tmp_path)) == 1
    assert visible(tmp_path)[0].startswith(f".{FOLDER}.building-")
    with pytest.raises(DataError, match="not built"):
        store.open_split(KEY, tmp_path, "train")
    store.prepare(KEY, tmp_path, produce)
    assert visible(tmp_path) == [FOLDER]
    assert store.verify(tmp_path) == [FOLDER]


def slow_and_counted(root: Path) -> store.Samples:
    (root / f"built-{os.getpid()}-{threading.get_ident()}").touch()
    for item in produce():
        time.sleep(0.05)
        yield item


def test_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    children = [start(lambda: store.prepare(KEY, tmp_path, lambda: slow_and_counted(tmp_path))) for _ in range(2)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert store.verify(tmp_path) == [FOLDER]


def test_threads_that_ask_at_once_build_once(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=store.prepare, args=(KEY, tmp_path, lambda: slow_and_counted(tmp_path)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert store.verify(tmp_path) == [FOLDER]
