"""Files behind URLs (``s3://``, ``gs://``, ...), as far as checkpoints need them.

fsspec opens them; which package brings a scheme (s3fs, gcsfs, ...), and where credentials come from, is fsspec's to
say.
"""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from trainables.errors import ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file by its URL, with the part of :class:`pathlib.Path` that makes sense for one. Whatever goes wrong is an
    ``OSError``, as it is with a path.

    Attributes:
        url: without credentials; these come from the environment.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rsplit("/", 1)[1]

    @property
    def stem(self) -> str:
        """The last part without what follows its last dot."""
        return self.name.rsplit(".", 1)[0]

    def __truediv__(self, part: str) -> RemoteFile:
        return RemoteFile(f"{self.url}/{part}")

    def with_name(self, name: str) -> RemoteFile:
        """Another file in the same folder."""
        return RemoteFile(f"{self.url.rsplit('/', 1)[0]}/{name}")

    def exists(self) -> bool:
        """Whether it is there, by what the store says now."""
        with _as_os_error(self.url):
            self._system.invalidate_cache()
            return bool(self._system.exists(self._path))

    @contextmanager
    def open(self, mode: Literal["rb"] = "rb") -> Iterator[IO[bytes]]:
        """For reading bytes; do nothing else inside."""
        with _as_os_error(self.url), self._system.open(self._path, mode) as file:
            yield file

    def size(self) -> int:
        """In bytes."""
        with _as_os_error(self.url):
            self._system.invalidate_cache()
            return int(self._system.info(self._path)["size"])

    def write(self, *parts: bytes | memoryview) -> None:
        """Write it anew. Seen whole or not at all in object stores; elsewhere write under another name and move."""
        with _as_os_error(self.url):
            self._system.makedirs(self._system._parent(self._path), exist_ok=True)
            with self._system.open(self._path, "wb") as file:
                for part in parts:
                    file.write(part)

    def copy(self, target: RemoteFile) -> None:
        """Give another file of the same store this content; without a way through this machine where the store can."""
        with _as_os_error(self.url):
            self._system.cp_file(self._path, target._path)

    def replace(self, target: RemoteFile) -> None:
        """Move it there, over what is there."""
        with _as_os_error(self.url):
            self._system.mv(self._path, target._path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete it."""
        with _as_os_error(self.url):
            try:
                self._system.rm_file(self._path)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def siblings(self, pattern: str) -> list[RemoteFile]:
        """The files of its folder whose name fits a shell pattern."""
        return [self.with_name(name) for name in self._listed() if fnmatch.fnmatchcase(name, pattern)]

    def rglob(self, pattern: str) -> Iterator[RemoteFile]:
        """The files below it, taken as a folder, whose name fits a shell pattern."""
        with _as_os_error(self.url):
            self._system.invalidate_cache()
            found = sorted(str(path) for path in self._system.find(self._path))
        for path in found:
            inside = path.removeprefix(self._path).lstrip("/")
            if fnmatch.fnmatchcase(inside.rsplit("/", 1)[-1], pattern):
                yield self / inside

    def _listed(self) -> list[str]:
        with _as_os_error(self.url):
            self._system.invalidate_cache()
            try:
                entries = self._system.ls(self._system._parent(self._path), detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    @cached_property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        import fsspec

        try:
            system, path = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.url}: cannot be opened: {error}") from None
        return system, str(path)

    @property
    def _system(self) -> Any:
        return self._opened[0]

    @property
    def _path(self) -> str:
        return self._opened[1]


@contextmanager
def _as_os_error(url: str) -> Iterator[None]:
    """Stores raise what they like (botocore's ``ClientError``, aiohttp's ...); callers know ``OSError``."""
    try:
        yield
    except (OSError, ConfigError):
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise OSError(errno.EIO, f"{type(error).__name__} {first}".strip(), url) from error


Place = Path | RemoteFile
"""Where a file is."""


def place(address: str | Path) -> Place:
    """A path, or a file behind a URL; ``file://`` is a path."""
    text = str(address)
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else RemoteFile(text)
