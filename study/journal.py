"""Operations on disk: JSON lines, each with a checksum, that a cut or damaged file cannot pass off as whole.

A line reaches the operating system before :meth:`Journal.append` returns, so that it outlives the process. It is on
the disk (fsync) where it ends a run or has a file with it, and so are all lines before it: a run is lost to a power
cut as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.errors import StoreError

SUFFIX = ".jsonl"
END = "end"
CREATE = "create"


@dataclass(frozen=True)
class Operation:
    """One change to the records of one run.

    Attributes:
        run: the run's id on this side; the store gives it another when it creates it.
        index: position among the run's operations, from 0.
        kind: ``create``, ``params``, ``metrics``, ``tags``, ``artifact`` or ``end``.
        body: what the kind needs, as plain data.
        blob: content of an artifact.
    """

    run: str
    index: int
    kind: str
    body: Mapping[str, Any]
    blob: bytes | None = None


@dataclass
class Contents:
    """What a journal holds.

    Attributes:
        waiting: number and operation of each that is not delivered, in order; without blobs.
        blobs: number to (file, SHA-256).
        ids: run to the store's id, as far as known.
        next: run to the index of its first operation that is neither delivered nor skipped over by damage.
        damaged: lines that are not as they were written, the last, cut line excepted.
    """

    waiting: list[tuple[int, Operation]] = field(default_factory=list)
    blobs: dict[int, tuple[Path, str]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)
    damaged: int = 0

    def blob(self, number: int) -> bytes | None:
        """The content that belongs to an operation; raises :class:`StoreError` where it is missing or damaged."""
        if number not in self.blobs:
            return None
        path, digest = self.blobs[number]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise StoreError(f"{path}: damaged (its checksum does not fit)")
        return content


class Journal:
    """An append-only file of operations, and a folder of their blobs beside it; neither exists while it is empty.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path.with_suffix(".blobs")
        self._number = 0
        self._first: dict[str, int] = {}

    def append(self, operation: Operation, run_id: str | None) -> int:
        """Write an operation; returns its number.

        Args:
            operation: what is to be done.
            run_id: the store's id of its run, where it has one.

        Raises:
            StoreError: it cannot be written (the disk is full, ...). What was there is as before.
        """
        self._number += 1
        line: dict[str, Any] = {
            "n": self._number,
            "run": operation.run,
            "i": operation.index,
            "op": operation.kind,
            "body": operation.body,
            # Those of the run before it went straight through.
            "from": self._first.setdefault(operation.run, operation.index),
        }
        if run_id is not None:
            line["id"] = run_id
        if operation.blob is not None:
            line["sha256"] = hashlib.sha256(operation.blob).hexdigest()
            self._write(self.blobs / str(self._number), operation.blob, sync=True)
        self._write(self.path, _line(line), sync=operation.kind == END or operation.blob is not None)
        return self._number

    def delivered(self, number: int, run: str, run_id: str | None) -> None:
        """Note that an operation, and all before it, are in the store. Not synced: a lost note costs a repetition."""
        line: dict[str, Any] = {"ack": number, "run": run}
        if run_id is not None:
            line["id"] = run_id
        self._write(self.path, _line(line), sync=False)
        (self.blobs / str(number)).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete it, when all is delivered."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.blobs, ignore_errors=True)
        self._number = 0
        self._first.clear()

    def read(self) -> Contents:
        """What waits in it.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Contents()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror}") from None
        found, acknowledged = Contents(), 0
        lines = data.split(b"\n")
        for position, raw in enumerate(lines):
            fields = _parse(raw)
            if fields is None:
                # The last piece is empty, or a line that was never finished and never counted as written.
                found.damaged += position < len(lines) - 1
                continue
            if "id" in fields:
                found.ids[fields["run"]] = fields["id"]
            if "ack" in fields:
                acknowledged = max(acknowledged, fields["ack"])
                continue
            number = fields["n"]
            self._number = max(self._number, number)
            found.waiting.append((number, Operation(fields["run"], fields["i"], fields["op"], fields["body"])))
            if "sha256" in fields:
                found.blobs[number] = (self.blobs / str(number), fields["sha256"])
            found.next.setdefault(fields["run"], fields["from"])
        for number, operation in found.waiting:
            if number <= acknowledged and found.next[operation.run] == operation.index:
                found.next[operation.run] += 1
        found.waiting = [(number, operation) for number, operation in found.waiting if number > acknowledged]
        return found

    @staticmethod
    def _write(path: Path, data: bytes, *, sync: bool) -> None:
        before = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                before = file.tell()
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            if before is not None:
                # Half a line would spoil the next one.
                os.truncate(path, before)
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def _line(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields, separators=(",", ":")).encode()
    return _digest(text) + b" " + text + b"\n"


def _parse(raw: bytes) -> dict[str, Any] | None:
    digest, _, text = raw.partition(b" ")
    if not text or digest != _digest(text):
        return None
    fields: dict[str, Any] = json.loads(text)
    return fields


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
