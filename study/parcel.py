"""A checked archive: one zip file whose manifest has the SHA-256 of every file in it.

Nothing in it is run or unpickled, and nothing is unpacked by the names it holds: a reader asks for a file and gets its
bytes, compared with the manifest. A file that is not as its manifest says is refused before anything is read from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainables.errors import StoreError

MANIFEST = "manifest.json"
NAME = "mtl-study records"
FORMAT = 1
_PIECE = 1 << 20
_LARGEST_MANIFEST = 256 << 20
_LONGEST_NAME = 1000
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\]+")
_BAD = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


@dataclass(frozen=True)
class Limits:
    """What is taken from somebody else's archive.

    Attributes:
        files: at most so many.
        bytes: unpacked, all together.
    """

    files: int = 2_000_000
    bytes: int = 64 << 30


def check_name(name: str) -> str:
    """``name`` if it is a plain relative path with ``/``; raises ``ValueError`` for one that could lead elsewhere."""
    parts = name.split("/")
    plain = _PLAIN.fullmatch(name) is not None and len(name.encode(errors="replace")) <= _LONGEST_NAME
    if not plain or any(part in ("", ".", "..") for part in parts) or re.match(r"^[A-Za-z]:", name):
        raise ValueError(f"the name {name[:80]!r} is no plain relative path")
    return name


class Writer:
    """Adds files to an archive; made by :func:`written`. Equal contents give equal bytes."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.files: dict[str, dict[str, Any]] = {}

    def add(self, name: str, content: bytes) -> None:
        """A file by its content."""
        self._copy(name, io.BytesIO(content))

    def add_file(self, name: str, path: Path) -> None:
        """A file from the disk; raises :class:`StoreError` for a link."""
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"{path}: is no plain file; links are not put into an archive")
        with path.open("rb") as file:
            self._copy(name, file)

    def _copy(self, name: str, source: IO[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        with self._archive.open(_entry(check_name(name)), "w", force_zip64=True) as target:
            while piece := source.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                target.write(piece)
        self.files[name] = {"sha256": digest.hexdigest(), "bytes": size}


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


@contextmanager
def written(path: Path, about: Mapping[str, Any]) -> Iterator[Writer]:
    """Write an archive; it gets its name when it is whole.

    Args:
        path: the file; it must not be there.
        about: goes into the manifest as it is.

    Raises:
        StoreError: it is there, or cannot be written. Nothing half-written stays behind.
    """
    if path.exists():
        raise StoreError(f"{path}: is there already; remove it, or name another file with --out")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as archive:
            writer = Writer(archive)
            yield writer
            manifest = {"name": NAME, "format": FORMAT, "about": dict(about), "files": writer.files}
            archive.writestr(_entry(MANIFEST), json.dumps({**manifest, "digest": _digest(manifest)}, indent=1))
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


class Parcel:
    """An archive that was checked; made by :func:`opened`.

    Attributes:
        path: of the file.
        about: what its writer said of it.
        files: name to ``sha256`` and ``bytes``.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.about: Mapping[str, Any] = manifest["about"]
        self.files: Mapping[str, Mapping[str, Any]] = manifest["files"]
        self._archive = archive

    def read(self, name: str, largest: int = 1 << 30) -> bytes:
        """The content of a file of at most ``largest`` bytes; raises :class:`StoreError` where it is not as the
        manifest says."""
        if name not in self.files:
            raise self._damaged(f"{name} is missing")
        if self.files[name]["bytes"] > largest:
            raise self._damaged(f"{name} is larger than {largest >> 20} MiB")
        buffer = io.BytesIO()
        self.copy(name, buffer)
        return buffer.getvalue()

    def copy(self, name: str, target: IO[bytes] | None) -> None:
        """Write a file's content to ``target``, or only check it; raises :class:`StoreError` where it is not as the
        manifest says."""
        expected, digest, left = self.files[name], hashlib.sha256(), self.files[name]["bytes"]
        try:
            with self._archive.open(name) as source:
                # Never more than was announced: a few bytes may unpack to very many.
                while piece := source.read(min(_PIECE, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        break
                    digest.update(piece)
                    if target is not None:
                        target.write(piece)
        except _BAD as error:
            raise self._damaged(f"{name}: {error}") from None
        if left or digest.hexdigest() != expected["sha256"]:
            raise self._damaged(f"the checksum of {name} does not fit")

    def _damaged(self, why: str) -> StoreError:
        return _refused(self.path, why)


@contextmanager
def opened(path: Path, limits: Limits | None = None) -> Iterator[Parcel]:
    """Open an archive and check every file in it.

    Args:
        path: the file.
        limits: what is too much.

    Raises:
        StoreError: it cannot be read, is no archive of this kind or of a newer one, is damaged or too large, holds
            links, or names that could lead out of a folder.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise StoreError(f"{path}: is not there") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    except _BAD:
        raise StoreError(f"{path}: is no archive of mtl-study, or damaged") from None
    with archive:
        parcel = Parcel(path, archive, _manifest(path, archive, limits or Limits()))
        for name in parcel.files:
            parcel.copy(name, None)
        yield parcel


def _manifest(path: Path, archive: zipfile.ZipFile, limits: Limits) -> dict[str, Any]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if MANIFEST not in names:
        raise StoreError(f"{path}: is no archive of mtl-study (it has no {MANIFEST})")
    if len(names) > limits.files + 1:
        raise _refused(path, f"it has more than {limits.files} files")
    try:
        for entry in entries:
            check_name(entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ValueError(f"{entry.filename} is a link or no file")
        if archive.getinfo(MANIFEST).file_size > _LARGEST_MANIFEST:
            raise ValueError("its manifest is too large")
        with archive.open(MANIFEST) as file:
            manifest: dict[str, Any] = json.loads(file.read(_LARGEST_MANIFEST))
        if manifest["name"] != NAME or type(manifest["format"]) is not int:
            raise ValueError(f"its {MANIFEST} is of something else")
        if manifest["format"] > FORMAT:
            raise ValueError(
                f"it is of format {manifest['format']}, made by a newer mtl-study; this one knows {FORMAT}"
            )
        if manifest.pop("digest") != _digest(manifest):
            raise ValueError("the checksum of its manifest does not fit")
        sizes = [_size(entry) for entry in manifest["files"].values()]
    except (*_BAD, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(path, str(error) or type(error).__name__) from None
    if len(set(names)) < len(names) or set(names) != {*manifest["files"], MANIFEST}:
        raise _refused(path, "its files are not those of its manifest")
    if sum(sizes) > limits.bytes:
        raise _refused(path, f"unpacked it has more than {limits.bytes >> 20} MiB")
    return manifest


def _size(entry: Mapping[str, Any]) -> int:
    size, digest = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        raise ValueError("an entry of its manifest is none")
    return size


def _refused(path: Path, why: str) -> StoreError:
    return StoreError(f"{path}: damaged or not to be trusted: {why}; nothing was taken from it")


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
