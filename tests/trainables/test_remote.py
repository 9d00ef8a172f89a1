"""Checkpoints behind URLs: in memory, and in a folder that is reached through fsspec as a store would be."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables import checkpoint
from trainables.errors import CheckpointError, ConfigError
from trainables.remote import RemoteFile, place


@pytest.fixture(params=["memory", "local"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFile:
    root = f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"local://{tmp_path}"
    found = place(f"{root}/ab/abc.ckpt")
    assert isinstance(found, RemoteFile)
    return found


def save(file: RemoteFile, iteration: int) -> None:
    checkpoint.save(file, {"iteration": iteration, "x": torch.arange(9)}, key="k", iteration=iteration)


def saved(file: RemoteFile) -> int:
    state: dict[str, int] = checkpoint.load(file, key="k")
    return state["iteration"]


def content(file: RemoteFile) -> bytes:
    with file.open() as opened:
        return opened.read()


def test_places() -> None:
    assert place("a/b.ckpt") == Path("a/b.ckpt")
    assert place(Path("/a/b.ckpt")) == Path("/a/b.ckpt")
    assert place("file:///a/b%20c.ckpt") == Path("/a/b c.ckpt")
    there = place("s3://bucket/a/b.ckpt")
    assert isinstance(there, RemoteFile)
    assert (there.name, there.stem, str(there)) == ("b.ckpt", "b", "s3://bucket/a/b.ckpt")
    assert there.with_name("c") == RemoteFile("s3://bucket/a/c")


def test_a_checkpoint_is_kept_with_the_one_before_it(file: RemoteFile) -> None:
    assert not file.exists()
    for iteration in (1, 2, 3):
        save(file, iteration)
    assert file.exists()
    assert saved(file) == 3
    assert checkpoint.check(file).iteration == 3
    before = checkpoint.previous(file)
    assert checkpoint.read_header(before).iteration == 2
    assert [found.name for found in file.siblings("*")] == ["abc.ckpt", "abc.ckpt.previous"]


def test_a_damaged_one_gives_way_to_the_one_before_it(file: RemoteFile, caplog: pytest.LogCaptureFixture) -> None:
    save(file, 1)
    save(file, 2)
    damaged = bytearray(content(file))
    damaged[-20] ^= 1
    file.write(bytes(damaged))
    with pytest.raises(CheckpointError, match=r"ab/abc\.ckpt: damaged"):
        checkpoint.check(file)
    with caplog.at_level(logging.WARNING):
        assert saved(file) == 1
    file.write(b"nonsense")
    save(file, 3)
    file.write(b"nonsense")
    assert saved(file) == 1, "what cannot be read does not push out what can"
    assert str(checkpoint.set_aside(file)).endswith("abc.ckpt.damaged")
    assert not file.exists()


@pytest.mark.parametrize("step", ["size", "copy", "replace"])
def test_a_write_that_is_cut_leaves_the_last_good_state(
    file: RemoteFile, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(file, 1)
    save(file, 2)

    def cut(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFile, step, cut)
        with pytest.raises(KeyboardInterrupt):
            save(file, 3)
    assert saved(file) == 2
    assert not file.siblings(f"*{checkpoint.PART}")


def test_what_arrives_short_is_not_taken(file: RemoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file, 1)
    write = RemoteFile.write
    monkeypatch.setattr(RemoteFile, "write", lambda self, line, payload: write(self, line, bytes(payload)[:-5]))
    with pytest.raises(CheckpointError, match=r"were written\)"):
        save(file, 2)
    assert saved(file) == 1


def test_removal_takes_everything_of_the_trial_and_nothing_else(file: RemoteFile) -> None:
    other = file.with_name("abd.ckpt")
    for each in (file, file, other):
        save(each, 1)
    file.with_name(f"{file.name}.x{checkpoint.PART}").write(b"half")
    checkpoint.remove(file)
    assert [found.name for found in file.siblings("*")] == ["abd.ckpt"]
    checkpoint.remove(file)


def test_one_is_handed_down(file: RemoteFile) -> None:
    save(file, 4)
    child = file.with_name("child.ckpt")
    assert checkpoint.hand_down(file, child, parent="k", child="c")
    assert checkpoint.load(child, key="c")["iteration"] == 4
    assert not checkpoint.hand_down(file.with_name("nobody.ckpt"), child, parent="k", child="c")


def test_a_store_that_fails_is_an_error_of_the_system(file: RemoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file, 1)

    class RefusedError(Exception):
        pass

    def refuse(*arguments: Any, **options: Any) -> None:
        raise RefusedError("403, and then a page of HTML\n<html>")

    for name in ("open", "exists", "info"):
        monkeypatch.setattr(type(file._system), name, refuse)
    with pytest.raises(OSError, match="RefusedError 403, and then a page of HTML: ") as caught:
        checkpoint.load(file, key="k")
    assert "\n" not in str(caught.value), "and not a damaged checkpoint, which would start the trial over"
    with pytest.raises(OSError, match="RefusedError 403"):
        save(file, 2)
    with pytest.raises(OSError, match="RefusedError 403"):
        file.exists()


def test_a_scheme_nobody_brings_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nosuch://b/a\.ckpt: cannot be opened"):
        RemoteFile("nosuch://b/a.ckpt").exists()
