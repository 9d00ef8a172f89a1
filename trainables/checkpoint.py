"""One file per trial: written atomically, checked by key and checksum when read, loaded without pickle.

Layout: one line of JSON (format, key, iteration, SHA-256 and size of the payload), then the payload as ``torch.save``
    writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.errors import CheckpointError

FORMAT = "mtl-study checkpoint 1"
_LONGEST_HEADER = 4096


@dataclass(frozen=True)
class Header:
    """What stands in a checkpoint's first line."""

    key: str
    iteration: int
    sha256: str
    size: int


def save(path: Path, state: Mapping[str, Any], *, key: str, iteration: int) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dicts) to ``path``; a reader sees the old file or the new one,
    never a part."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getvalue()
    header = {
        "format": FORMAT,
        "key": key,
        "iteration": iteration,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "size": len(payload),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_header(path: Path) -> Header:
    """The first line. Raises :class:`CheckpointError` naming the file where it is no checkpoint."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
        fields = json.loads(line)
        if fields["format"] != FORMAT:
            raise ValueError
        return Header(str(fields["key"]), int(fields["iteration"]), str(fields["sha256"]), int(fields["size"]))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: not a checkpoint of mtl-study (or a damaged one)") from None


def load(path: Path, *, key: str, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state saved for trial ``key``.

    Raises:
        CheckpointError: the file is missing, damaged, or of another trial.
    """
    header = read_header(path)
    if header.key != key:
        raise CheckpointError(f"{path}: is of trial {header.key[:12]}, this config is trial {key[:12]}")
    try:
        with path.open("rb") as file:
            file.readline(_LONGEST_HEADER)
            payload = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if len(payload) != header.size or hashlib.sha256(payload).hexdigest() != header.sha256:
        raise CheckpointError(f"{path}: damaged (its checksum does not fit); delete it to start the trial over")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    return state
