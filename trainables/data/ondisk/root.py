"""A data folder, read safely: no path and no symbolic link leads out of it, and errors name files relative to it."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from trainables.errors import DataError

LARGEST = 2**30
"""Most bytes of one file; a larger one is no sample and no list."""


class DataRoot:
    """A data set's folder.

    Args:
        path: the folder; it has to exist.
        name: of the data set, for messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._real = os.path.realpath(path)
        self._folder = lru_cache(maxsize=4096)(self._resolved)

    def error(self, relative: str, why: str) -> DataError:
        """The one line about a file, by its path relative to the folder."""
        return DataError(f"data set '{self.name}': {relative}: {why}")

    def file(self, relative: str) -> Path:
        """The path of a file or folder, which need not exist.

        Raises:
            DataError: it would be outside of the folder, by its name or through a symbolic link.
        """
        parts = PurePosixPath(relative)
        if parts.is_absolute() or ".." in parts.parts or "\0" in relative:
            raise self.error(relative, "the path leads out of the data folder")
        # Folders are resolved once, files only where they are links: this is asked for every file of every sample.
        path = self._folder(str(parts.parent)) / parts.name
        return self._resolved(relative) if path.is_symlink() else path

    def exists(self, relative: str) -> bool:
        """Whether there is such a file or folder."""
        return self.file(relative).exists()

    def first(self, *candidates: str) -> str | None:
        """The first of the files or folders that is there."""
        return next((each for each in candidates if self.exists(each)), None)

    def files(self, folder: str = ".") -> dict[str, int]:
        """The files right inside a folder, name to size in bytes; none where the folder is missing.

        Raises:
            DataError: the folder or one of its files is outside, or it cannot be read.
        """
        out = {}
        for entry in self._entries(folder):
            if entry.is_symlink():
                self.file(f"{folder}/{entry.name}")
            if entry.is_file():
                out[entry.name] = entry.stat().st_size
        return out

    def folders(self, folder: str = ".") -> list[str]:
        """The names of the folders right inside a folder, sorted; none where it is missing.

        Raises:
            DataError: the folder is outside, or it cannot be read.
        """
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def read(self, relative: str) -> bytes:
        """A file's content.

        Raises:
            DataError: it is missing, outside, implausibly large, or cannot be read.
        """
        try:
            with self.file(relative).open("rb") as handle:
                if os.fstat(handle.fileno()).st_size > LARGEST:
                    raise self.error(relative, f"it has more than {LARGEST} bytes")
                return handle.read()
        except FileNotFoundError:
            raise self.error(relative, "it is missing") from None
        except OSError as error:
            raise self.error(relative, f"cannot be read: {error.strerror or type(error).__name__}") from None

    def lines(self, relative: str) -> tuple[str, ...]:
        """The lines of a list, stripped, without empty ones.

        Raises:
            DataError: it is missing, empty, not UTF-8, or names something twice.
        """
        try:
            text = self.read(relative).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(relative, f"it is not UTF-8 text (byte {error.start})") from None
        lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        if not lines:
            raise self.error(relative, "the list is empty")
        seen: set[str] = set()
        for line in lines:
            if line in seen:
                raise self.error(relative, f"the list names '{line[:80]}' twice")
            seen.add(line)
        return lines

    def _resolved(self, relative: str) -> Path:
        """The path, if it is inside once its links are followed."""
        path = self.path / relative
        real = os.path.realpath(path)
        if os.path.commonpath([real, self._real]) != self._real:
            raise self.error(relative, "a symbolic link leads out of the data folder")
        return path

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        path = self.path if folder == "." else self.file(folder)
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self.error(folder, f"cannot be read: {error.strerror or error}") from None
