"""A trial's checkpoints: written atomically, checked by key and checksum when read, loaded without pickle.

The newest is ``FILE``, the one before it ``FILE.previous``. Neither is touched until the newer one is whole on the
disk and was read back; what is damaged later is passed over for the one before it.

Layout: one line of JSON (format, key, iteration, SHA-256 and size of the payload), then the payload as ``torch.save``
    writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.errors import CheckpointError

logger = logging.getLogger(__name__)

FORMAT = "mtl-study checkpoint 1"
PREVIOUS = ".previous"
PART = ".part"
_LONGEST_HEADER = 4096
_PIECE = 1 << 20


@dataclass(frozen=True)
class Header:
    """What stands in a checkpoint's first line."""

    key: str
    iteration: int
    sha256: str
    size: int


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is."""
    return path.with_name(path.name + PREVIOUS)


def save(path: Path, state: Mapping[str, Any], *, key: str, iteration: int) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dicts) to ``path``; a reader sees the old file or the new one,
    never a part, and the old one is kept beside it.

    Raises:
        CheckpointError: what was written does not read back as it was; the checkpoints there are as before.
        OSError: it cannot be written; likewise.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    header = {
        "format": FORMAT,
        "key": key,
        "iteration": iteration,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "size": len(payload),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=PART)
    new = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        check(new)
        if path.exists() and _sound(path):
            # A second name first and the move after it: there is a checkpoint called `path` at every moment.
            spare = Path(f"{temporary}{PREVIOUS}{PART}")
            os.link(path, spare)
            os.replace(spare, previous(path))
        os.replace(new, path)
        _sync_folder(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        Path(f"{temporary}{PREVIOUS}{PART}").unlink(missing_ok=True)
        raise


def check(path: Path) -> Header:
    """Read one file through; raises :class:`CheckpointError` where it is not whole."""
    header = _header(path)
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            file.readline(_LONGEST_HEADER)
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if size != header.size or digest.hexdigest() != header.sha256:
        raise CheckpointError(f"{path}: damaged (its checksum does not fit); delete it to start the trial over")
    return header


def read_header(path: Path) -> Header:
    """The first line of the newest checkpoint whose first line can be read.

    Raises:
        CheckpointError: there is none; names the file.
    """
    try:
        return _header(path)
    except CheckpointError:
        if not previous(path).exists():
            raise
        return _header(previous(path))


def load(path: Path, *, key: str, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The last state saved for trial ``key`` that is whole.

    Raises:
        CheckpointError: the file is missing, damaged or of another trial, and so is the one before it.
    """
    try:
        return _load(path, key, device)
    except CheckpointError as error:
        if not previous(path).exists():
            raise
        try:
            state = _load(previous(path), key, device)
        except CheckpointError:
            raise error from None
        logger.warning("%s; going on from the checkpoint before it", error)
        return state


def hand_down(source: Path, target: Path, *, parent: str, child: str) -> bool:
    """Let a trial start from another's checkpoint: one whose config differs only in what comes after it, so that the
    result is that of training from the beginning. Returns whether there was a sound one.

    Args:
        source: checkpoint of the other trial.
        target: where the trial will look for its own.
        parent: key of the other trial.
        child: key of the trial.
    """
    try:
        header, state = read_header(source), load(source, key=parent)
    except (OSError, CheckpointError):
        return False
    save(target, {**state, "key": child}, key=child, iteration=header.iteration)
    return True


def remove(path: Path) -> None:
    """Delete a trial's checkpoints and what interrupted writes left of them."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)
    for part in path.parent.glob(f"{path.name}*{PART}"):
        part.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Move a file that cannot be used out of the way, to ``FILE.damaged``; returns where it is."""
    aside = path.with_name(path.name + ".damaged")
    os.replace(path, aside)
    return aside


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
        fields = json.loads(line)
        if fields["format"] != FORMAT:
            raise ValueError
        return Header(str(fields["key"]), int(fields["iteration"]), str(fields["sha256"]), int(fields["size"]))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: not a checkpoint of mtl-study (or a damaged one)") from None


def _load(path: Path, key: str, device: str | torch.device) -> dict[str, Any]:
    header = _header(path)
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
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        # Whole, yet not what `save` writes: made by somebody else, perhaps to run code when it is unpickled.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: holds more than tensors and plain data, and is not loaded ({first})") from None
    return state


def _sound(path: Path) -> bool:
    try:
        _header(path)
    except CheckpointError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make the moves last, too, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
