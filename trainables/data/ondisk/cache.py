"""Decoded samples on the local disk: made once on a node, mapped into memory by every trial there.

``<root>/<name>-decoded-<fingerprint>/<split>.bin`` holds the samples' arrays one after the other and
``<split>.json`` where each is, its type, shape and checksum. A file is renamed into place when every byte is on the
disk, its index last. Checksums are compared when an array is read, so that opening a cache reads none of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.ondisk.split import FileSplit, Raw
from trainables.data.store import locked, reason, sync_folder
from trainables.errors import DataError

FORMAT = 1

_Entry = dict[str, Any]


def decoded(split: FileSplit, root: Path, name: str, part: str, fingerprint: str, workers: int = 1) -> FileSplit:
    """A split that reads its samples from a cache, which is made first where there is none.

    Args:
        split: the split of files.
        root: folder the cache is made in.
        name: of the data set.
        part: of the split: ``train``, ...
        fingerprint: of the data set.
        workers: threads that decode while the cache is made.

    Returns:
        A split that gives the same bits, and for a bad sample the same error.

    Raises:
        DataError: the cache cannot be written, the disk is full, or what is there is damaged.
    """
    folder = root / f"{name}-decoded-{fingerprint[:16]}"
    index = folder / f"{part}.json"
    try:
        if not index.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f".{part}.lock"):
                if not index.exists():
                    _build(split, folder, part, workers)
        reader = _Reader(folder, part, split.names, split.labels)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space or set loading.cache to false" if full else "set loading.cache to false"
        raise DataError(f"{folder}: samples cannot be kept decoded: {reason(error)}; {mend}") from None
    return split.reading(reader)


class _Reader:
    """Gives samples from a cache, as :data:`trainables.data.ondisk.split.Load` does from files."""

    def __init__(self, folder: Path, part: str, names: Sequence[str], labels: Sequence[str]) -> None:
        self._folder, self._part, self._labels = folder, part, frozenset(labels)
        path = folder / f"{part}.bin"
        try:
            index = json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
            whole = index["format"] == FORMAT and index["digest"] == _digest(index["samples"])
            self._samples: dict[str, dict[str, _Entry]] = index["samples"]
            whole = whole and list(self._samples) == list(names) and path.stat().st_size == index["bytes"]
        except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
            whole = False
        if not whole:
            raise self._damaged()
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)

    def __call__(self, sample: str, labels: Sequence[str]) -> Raw:
        entries = self._samples[sample]
        out = {}
        for key, entry in entries.items():
            if key == "image" or key in labels or key not in self._labels:
                out[key] = self._array(entry)
        return out

    def _array(self, entry: _Entry) -> np.ndarray:
        if "error" in entry:
            raise DataError(entry["error"])
        data = self._bytes[entry["at"] : entry["at"] + entry["bytes"]]
        if zlib.crc32(data.data) != entry["crc32"]:
            raise self._damaged()
        return np.asarray(data.view(entry["dtype"]).reshape(entry["shape"]))

    def _damaged(self) -> DataError:
        return DataError(f"{self._folder}: the decoded samples of '{self._part}' are damaged; delete the folder")


def _build(split: FileSplit, folder: Path, part: str, workers: int) -> None:
    partial = folder / f".{part}.bin.part"
    samples: dict[str, dict[str, _Entry]] = {}
    at = 0
    try:
        with partial.open("wb") as handle:
            for name, arrays in _in_order(split, workers):
                entries = samples[name] = {}
                for key, array in arrays.items():
                    if isinstance(array, str):
                        entries[key] = {"error": array}
                        continue
                    data = np.ascontiguousarray(array).tobytes()
                    entries[key] = {
                        "at": at,
                        "bytes": len(data),
                        "dtype": array.dtype.str,
                        "shape": list(array.shape),
                        "crc32": zlib.crc32(data),
                    }
                    handle.write(data)
                    at += len(data)
            handle.flush()
            os.fsync(handle.fileno())
        partial.rename(folder / f"{part}.bin")
        index = {"format": FORMAT, "bytes": at, "digest": _digest(samples), "samples": samples}
        listing = folder / f".{part}.json.part"
        with listing.open("w", encoding="utf-8") as text:
            json.dump(index, text)
            text.flush()
            os.fsync(text.fileno())
        listing.rename(folder / f"{part}.json")
        sync_folder(folder)
    finally:
        partial.unlink(missing_ok=True)


def _in_order(split: FileSplit, workers: int) -> Iterator[tuple[str, Mapping[str, np.ndarray | str]]]:
    """Every sample by name, decoded by several threads a few samples ahead."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead: deque[tuple[str, Future[Mapping[str, np.ndarray | str]]]] = deque()
        for name in split.names:
            ahead.append((name, pool.submit(_arrays, split, name)))
            if len(ahead) > 4 * max(1, workers):
                first, future = ahead.popleft()
                yield first, future.result()
        for name, future in ahead:
            yield name, future.result()


def _arrays(split: FileSplit, name: str) -> Mapping[str, np.ndarray | str]:
    """The arrays of a sample by name, or for one that cannot be read why."""
    try:
        return split.load(name, split.labels)
    except DataError:
        # Something is bad: what is good is kept, and what is not says so when it is asked for.
        try:
            out: dict[str, np.ndarray | str] = dict(split.load(name, []))
        except DataError as error:
            return {"image": str(error)}
    for label in split.labels:
        try:
            out.update(split.load(name, [label]))
        except DataError as error:
            out[label] = str(error)
    return out


def _digest(samples: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(samples, sort_keys=True).encode()).hexdigest()
