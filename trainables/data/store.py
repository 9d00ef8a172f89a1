"""Built data sets on disk: content-addressed, written atomically, checksummed, memory-mapped read-only.

``<root>/<name>-<fingerprint[:16]>/`` holds ``<split>/<array>.npy`` and ``manifest.json``. A folder of that name is
complete or damaged, never half-built: a build goes to a hidden sibling folder that is renamed when every byte is on
the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainables.errors import DataError, unknown

MANIFEST = "manifest.json"
FORMAT = 1
"""Of the folder's layout and its manifest."""
_PIECE = 1 << 20

Samples = Generator[tuple[str, Mapping[str, np.ndarray]], None, None]
"""(split, arrays of one sample by name), each split's samples in order. Closed when the build fails."""


@dataclass(frozen=True)
class ArraySpec:
    """Shape of one sample (without the batch dimension) and numpy type of an array."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Key:
    """What decides a stored data set.

    Attributes:
        name: of the data set.
        fingerprint: hex digest of everything that decides its bits.
        parameters: the same, readable, as JSON data; goes into the manifest.
        samples: number of samples by split.
        arrays: what is stored of each sample, by name.
    """

    name: str
    fingerprint: str
    parameters: Mapping[str, Any]
    samples: Mapping[str, int]
    arrays: Mapping[str, ArraySpec]

    def folder(self, root: Path) -> Path:
        """Where it is, or will be."""
        return root / f"{self.name}-{self.fingerprint[:16]}"


def prepare(key: Key, root: Path, produce: Callable[[], Samples]) -> Path:
    """Build the data set below ``root`` unless it is there; several processes may ask at once, and one builds.

    Args:
        key: which data set.
        root: data root; made if it is missing.
        produce: called only where it has to be built; gives every sample of every split.

    Returns:
        The folder.

    Raises:
        DataError: ``root`` cannot be written, the disk is full, or the folder there is damaged (told by its manifest
            and file sizes). Nothing half-written stays behind.
    """
    folder = key.folder(root)
    with _told(folder):
        if not _complete(key, root):
            root.mkdir(parents=True, exist_ok=True)
            with locked(root / f".{folder.name}.lock"):
                if not _complete(key, root):
                    with _building(key, root) as building:
                        _build(key, building, produce)
    return folder


def copy(key: Key, source: Path, root: Path) -> bool:
    """Have the data set below ``root`` by copying it from below ``source``, unless it is there; several processes may
    ask at once, and one copies. Every byte is held against its checksum on the way.

    Returns:
        Whether it is there now; not, where ``source`` has none.

    Raises:
        DataError: the one below ``source`` is damaged, ``root`` cannot be written, or the disk is full.
    """
    if _complete(key, root):
        return True
    if not _complete(key, source):
        return False
    folder = key.folder(root)
    with _told(folder):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{folder.name}.lock"):
            if not _complete(key, root):
                with _building(key, root) as building:
                    _copy_files(key, source, building)
    return True


def open_split(key: Key, root: Path, split: str) -> dict[str, np.ndarray]:
    """Memory-map a split read-only: arrays (N, ...) by name.

    Sizes, shapes and types are checked always, checksums once for each file and process.

    Raises:
        DataError: there is no such split, the data set is not built, or a file of it is missing or damaged.
    """
    if split not in key.samples:
        raise DataError(f"data set '{key.name}': {unknown('split', split, key.samples)}")
    folder = key.folder(root)
    if not _exists(folder):
        raise DataError(f"{folder}: data set '{key.name}' is not built; prepare it first")
    files = _check(key, root)
    return {name: _open(root, folder / split / f"{name}.npy", files[f"{split}/{name}"]) for name in key.arrays}


def verify(root: Path) -> list[str]:
    """Compare every file of every data set below ``root`` with its checksum, reading all of them anew.

    Returns:
        The names of the folders that were checked.

    Raises:
        DataError: a file is missing or damaged; the message names it.
    """
    checked = []
    for manifest in sorted(root.glob(f"[!.]*/{MANIFEST}")):
        folder = manifest.parent
        for name, entry in _read_manifest(root, folder)["files"].items():
            path = folder / f"{name}.npy"
            _check_size(root, path, entry)
            try:
                sound = _digest(path) == entry["sha256"]
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {reason(error)}") from None
            if not sound:
                raise _damaged(root, path, "its checksum is wrong")
        checked.append(folder.name)
    return checked


def _complete(key: Key, root: Path) -> bool:
    """Whether the folder is there and looks whole; raises :class:`DataError` where it is there and does not."""
    if not _exists(key.folder(root)):
        return False
    _check(key, root)
    return True


def _check(key: Key, root: Path) -> dict[str, dict[str, Any]]:
    """The manifest's entries by ``split/array``, after every file's size was checked."""
    folder = key.folder(root)
    manifest = _read_manifest(root, folder)
    if manifest["fingerprint"] != key.fingerprint:
        raise _damaged(root, folder / MANIFEST, "it belongs to another data set")
    files: dict[str, dict[str, Any]] = manifest["files"]
    for split, count in key.samples.items():
        for name, spec in key.arrays.items():
            entry = files.get(f"{split}/{name}")
            if entry is None or entry["shape"] != [count, *spec.shape] or entry["dtype"] != spec.dtype:
                raise _damaged(root, folder / MANIFEST, f"its entry of {split}/{name} is not what was asked for")
            _check_size(root, folder / f"{split}/{name}.npy", entry)
    return files


def _read_manifest(root: Path, folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sound = manifest["format"] == FORMAT and manifest["digest"] == _total(manifest["files"])
        sound = sound and isinstance(manifest["fingerprint"], str)
    except FileNotFoundError:
        raise _damaged(root, path, "it is missing") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise _damaged(root, path, "it is not the manifest of this version")
    return manifest


def _check_size(root: Path, path: Path, entry: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise _damaged(root, path, "it is missing") from None
    if size != entry["bytes"]:
        raise _damaged(root, path, f"it has {size} bytes instead of {entry['bytes']}")


def _open(root: Path, path: Path, entry: Mapping[str, Any]) -> np.ndarray:
    try:
        status = path.stat()
        if _known_digest(path, status.st_mtime_ns, status.st_size) != entry["sha256"]:
            raise _damaged(root, path, "its checksum is wrong")
        # As a plain array over the map: indexing a np.memmap costs more than copying a small batch out of it.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from None


def reason(error: OSError) -> str:
    """What the system says about it, in a few words."""
    return error.strerror or type(error).__name__


def _damaged(root: Path, path: Path, why: str) -> DataError:
    inside = path.relative_to(root)
    return DataError(
        f"{inside} in {root} is damaged: {why}; delete the folder {root / inside.parts[0]} to have it built again"
    )


@lru_cache(maxsize=4096)
def _known_digest(path: Path, _mtime_ns: int, _size: int) -> str:
    """The file's digest, computed once in a process for each state of the file."""
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _total(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One digest over the whole manifest of files."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which ends with the process. The file stays: removing it would race."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the system says against building, in one line."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space or choose another data folder" if full else "choose a data folder that can be written"
        raise DataError(f"{folder}: cannot be built: {reason(error)}; {mend}") from None


@contextlib.contextmanager
def _building(key: Key, root: Path) -> Iterator[Path]:
    """A hidden folder to build in, moved into place once it is whole and on the disk."""
    folder = key.folder(root)
    prefix = f".{folder.name}.building-"
    # Only the holder of the lock builds, so what carries the prefix was left by a build that was killed.
    for leftover in root.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    building = root / f"{prefix}{os.getpid()}"
    building.mkdir()
    try:
        yield building
        for inner in (*(building / split for split in key.samples), building):
            sync_folder(inner)
        building.rename(folder)
        sync_folder(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _build(key: Key, building: Path, produce: Callable[[], Samples]) -> None:
    with contextlib.closing(produce()) as samples:
        files = _write_samples(key, building, samples)
    manifest = {
        "format": FORMAT,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "parameters": dict(key.parameters),
        "digest": _total(files),
        "files": files,
    }
    _write_manifest(building, manifest)


def _copy_files(key: Key, source: Path, building: Path) -> None:
    folder = key.folder(source)
    manifest = _read_manifest(source, folder)
    for split in key.samples:
        (building / split).mkdir()
    for name, entry in manifest["files"].items():
        digest = hashlib.sha256()
        with (folder / f"{name}.npy").open("rb") as theirs, (building / f"{name}.npy").open("wb") as ours:
            while piece := theirs.read(_PIECE):
                digest.update(piece)
                _write(ours, piece)
            _flush(ours)
        if digest.hexdigest() != entry["sha256"]:
            raise _damaged(source, folder / f"{name}.npy", "its checksum is wrong")
    _write_manifest(building, manifest)


def _write_manifest(building: Path, manifest: Mapping[str, Any]) -> None:
    with (building / MANIFEST).open("wb") as handle:
        _write(handle, json.dumps(manifest, indent=1, sort_keys=True).encode())
        _flush(handle)


def _write_samples(key: Key, folder: Path, samples: Samples) -> dict[str, dict[str, Any]]:
    """Write every sample to its arrays; the manifest's entries by ``split/array``."""
    with contextlib.ExitStack() as stack:
        writers = {}
        for split, count in key.samples.items():
            (folder / split).mkdir()
            for name, spec in key.arrays.items():
                writer = _ArrayWriter(folder / split / f"{name}.npy", count, spec)
                writers[split, name] = stack.enter_context(contextlib.closing(writer))
        for split, sample in samples:
            for name in key.arrays:
                writers[split, name].append(sample[name])
        return {f"{split}/{name}": writer.finish() for (split, name), writer in writers.items()}


class _ArrayWriter:
    """Writes an ``.npy`` file sample by sample, and its checksum on the way.

    Plain writes: on a full disk they raise, where a write through a memory map would kill the process.
    """

    def __init__(self, path: Path, count: int, spec: ArraySpec) -> None:
        self._spec, self._count, self._left = spec, count, count
        self._hash = hashlib.sha256()
        self._handle = path.open("wb")
        header = io.BytesIO()
        described = {"descr": np.dtype(spec.dtype).str, "fortran_order": False, "shape": (count, *spec.shape)}
        np.lib.format.write_array_header_1_0(header, described)
        self._put(header.getvalue())

    def append(self, sample: np.ndarray) -> None:
        """Add one sample; raises ``ValueError`` where it is not as declared."""
        if sample.shape != self._spec.shape or sample.dtype != self._spec.dtype:
            raise ValueError(f"{self._handle.name}: {sample.shape} {sample.dtype} is not the declared {self._spec}")
        self._left -= 1
        self._put(np.ascontiguousarray(sample).tobytes())

    def finish(self) -> dict[str, Any]:
        """Flush to the disk; the manifest's entry. Raises ``ValueError`` where samples are missing or too many."""
        if self._left:
            raise ValueError(f"{self._handle.name}: {self._count - self._left} samples instead of {self._count}")
        _flush(self._handle)
        return {
            "shape": [self._count, *self._spec.shape],
            "dtype": self._spec.dtype,
            "bytes": self._handle.tell(),
            "sha256": self._hash.hexdigest(),
        }

    def close(self) -> None:
        """Close the file; a full disk that shows only now was reported by the write that failed."""
        with contextlib.suppress(OSError):
            self._handle.close()

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        _write(self._handle, data)


def _write(handle: BinaryIO, data: bytes) -> None:
    handle.write(data)


def _flush(handle: BinaryIO) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Make the folder's entries last: on most file systems a rename is only on the disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
