"""Files for people: written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trainables.errors import StoreError


def write_whole(path: Path, content: bytes, what: str) -> Path:
    """Write ``content`` to ``path``, whose folder is made where needed; a reader sees the old file or the new one.

    Raises:
        StoreError: it cannot be written; ``what`` it is begins the message.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # mkstemp makes the file private to its owner; these are made to be shared.
            os.chmod(name, 0o644)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        raise StoreError(f"{what} {path}: cannot be written: {error.strerror}") from error
    return path
