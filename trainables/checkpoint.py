"""A trial's checkpoints: written atomically, checked by key and checksum when read, loaded without pickle.

The newest is ``FILE``, the one before it ``FILE.previous``. Neither is touched until the newer one is whole on the
disk and was read back; what is damaged later is passed over for the one before it.

A checkpoint is a file, or an object behind a URL (:mod:`trainables.remote`). Of the latter only the size is looked at
after writing; its checksum is, when it is read.

Layout: one line of JSON (format, key, iteration, SHA-256 and size of the payload), then the payload as ``torch.save``
    writes it.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import logging
import os
import pickle
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from trainables.errors import CheckpointError
from trainables.remote import Place, RemoteFile

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


def previous(path: Place) -> Place:
    """Where the checkpoint before the newest is."""
    return path.with_name(path.name + PREVIOUS)


def save(path: Place, state: Mapping[str, Any], *, key: str, iteration: int) -> None:
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
    line = json.dumps(header).encode() + b"\n"
    if isinstance(path, Path):
        _save_file(path, line, payload)
    else:
        _save_object(path, line, payload)


def _save_file(path: Path, line: bytes, payload: memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=PART)
    new = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(line)
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        check(new)
        if path.exists() and _sound(path):
            # A second name first and the move after it: there is a checkpoint called `path` at every moment.
            spare = Path(f"{temporary}{PREVIOUS}{PART}")
            os.link(path, spare)
            os.replace(spare, path.with_name(path.name + PREVIOUS))
        os.replace(new, path)
        _sync_folder(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        Path(f"{temporary}{PREVIOUS}{PART}").unlink(missing_ok=True)
        raise


def _save_object(path: RemoteFile, line: bytes, payload: memoryview) -> None:
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        new.write(line, payload)
        if new.size() != len(line) + len(payload):
            raise CheckpointError(
                f"{new}: damaged (it has {new.size()} bytes, {len(line) + len(payload)} were written)"
            )
        if path.exists() and _sound(path):
            path.copy(RemoteFile(path.url + PREVIOUS))
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def check(path: Place) -> Header:
    """Read one file through; raises :class:`CheckpointError` where it is not whole."""
    header = _header(path)
    digest = hashlib.sha256()
    size = 0
    with _reading(path) as file:
        _first_line(file)
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    if size != header.size or digest.hexdigest() != header.sha256:
        raise CheckpointError(f"{path}: damaged (its checksum does not fit); delete it to start the trial over")
    return header


def read_header(path: Place) -> Header:
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


def ahead(path: Place, *, key: str, iteration: int) -> bool:
    """Whether there is a whole checkpoint of trial ``key`` after ``iteration``: another worker has trained it further,
    since this one was cut off and given up, say. What it left is not to be written over."""
    try:
        header = _header(path)
        return header.key == key and header.iteration > iteration and check(path) == header
    except CheckpointError:
        return False


def load(path: Place, *, key: str, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The last state saved for trial ``key`` that is whole.

    Raises:
        CheckpointError: the file is missing, damaged or of another trial, and so is the one before it.
        OSError: the store behind its URL does not answer.
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


def hand_down(source: Place, target: Place, *, parent: str, child: str) -> bool:
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


def remove(path: Place) -> None:
    """Delete a trial's checkpoints and what interrupted writes left of them."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)
    pattern = f"{glob.escape(path.name)}*{PART}"
    for part in path.parent.glob(pattern) if isinstance(path, Path) else path.siblings(pattern):
        part.unlink(missing_ok=True)


def set_aside(path: Place) -> Place:
    """Move a file that cannot be used out of the way, to ``FILE.damaged``; returns where it is."""
    aside = path.with_name(path.name + ".damaged")
    move(path, aside)
    return aside


def move(source: Place, target: Place) -> None:
    """Over what is there; both are of one kind, in one folder."""
    if isinstance(source, RemoteFile) and isinstance(target, RemoteFile):
        source.replace(target)
    else:
        os.replace(str(source), str(target))


@contextmanager
def _reading(path: Place) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if isinstance(path, RemoteFile) and not isinstance(error, FileNotFoundError):
            # A store that is away says nothing about the checkpoint: whoever took it for damaged would start over.
            raise
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


def _first_line(file: IO[bytes]) -> bytes:
    """Without its end; what is read next follows it. fsspec's files have no ``readline`` with a limit."""
    line = file.read(_LONGEST_HEADER).partition(b"\n")[0]
    file.seek(len(line) + 1)
    return line


def _header(path: Place) -> Header:
    with _reading(path) as file:
        line = _first_line(file)
    try:
        fields = json.loads(line)
        if fields["format"] != FORMAT:
            raise ValueError
        return Header(str(fields["key"]), int(fields["iteration"]), str(fields["sha256"]), int(fields["size"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: not a checkpoint of mtl-study (or a damaged one)") from None


def _load(path: Place, key: str, device: str | torch.device) -> dict[str, Any]:
    header = _header(path)
    if header.key != key:
        raise CheckpointError(f"{path}: is of trial {header.key[:12]}, this config is trial {key[:12]}")
    with _reading(path) as file:
        _first_line(file)
        payload = file.read()
    if len(payload) != header.size or hashlib.sha256(payload).hexdigest() != header.sha256:
        raise CheckpointError(f"{path}: damaged (its checksum does not fit); delete it to start the trial over")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        # Whole, yet not what `save` writes: made by somebody else, perhaps to run code when it is unpickled.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: holds more than tensors and plain data, and is not loaded ({first})") from None
    return state


def _sound(path: Place) -> bool:
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
