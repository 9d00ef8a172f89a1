"""Two generations of checkpoints: whichever write is cut wherever, a whole one can be read."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables import checkpoint
from trainables.errors import CheckpointError

CALLS = ("fsync", "link", "replace")


def save(path: Path, iteration: int) -> None:
    checkpoint.save(path, {"iteration": iteration}, key="k", iteration=iteration)


def saved(path: Path) -> int:
    state: dict[str, int] = checkpoint.load(path, key="k")
    return state["iteration"]


def damage(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.ckpt"
    for iteration in (1, 2, 3):
        save(path, iteration)
    assert saved(path) == 3
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert saved(path) == 2
    assert "going on from the checkpoint before it" in caplog.text
    path.write_bytes(b"nonsense")
    assert checkpoint.read_header(path).iteration == 2
    damage(checkpoint.previous(path))
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a checkpoint"):
        saved(path)


def test_a_checkpoint_with_an_unreadable_header_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, 1)
    save(path, 2)
    path.write_bytes(b"nonsense")
    save(path, 3)
    damage(path)
    assert saved(path) == 1


@given(stop=st.integers(0, 8))
def test_a_write_that_is_cut_at_any_call_leaves_the_last_good_state(stop: int) -> None:
    """Every system call that changes the folder fails in its turn; the process may end there."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "a.ckpt"
        save(path, 1)
        save(path, 2)
        calls = 0

        def counted(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > stop:
                    raise KeyboardInterrupt
                return original(*args, **kwargs)

            return call

        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            save(path, 3)
            done = True
        except KeyboardInterrupt:
            done = False
        patch.undo()
        assert path.exists()
        assert saved(path) in ((3,) if done else (2, 3))
        if done:
            damage(path)
            assert saved(path) == 2
        checkpoint.remove(path)
        assert list(Path(folder).iterdir()) == []


def test_what_does_not_read_back_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckpt"
    save(path, 1)

    def rotten(file: Path) -> None:
        raise CheckpointError(f"{file}: damaged")

    monkeypatch.setattr(checkpoint, "check", rotten)
    with pytest.raises(CheckpointError):
        save(path, 2)
    assert saved(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_file_is_set_aside_under_a_name_that_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"nonsense")
    assert checkpoint.set_aside(path).read_bytes() == b"nonsense"
    assert not path.exists()


@given(data=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_checkpoint_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ckpt"
        path.write_bytes(data)
        for read in (checkpoint.read_header, checkpoint.check, lambda p: checkpoint.load(p, key="k")):
            with pytest.raises(CheckpointError) as caught:
                read(path)
            assert "\n" not in str(caught.value)


@given(at=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_is_noticed_wherever_it_is(at: int, value: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ckpt"
        save(path, 7)
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= value
        path.write_bytes(bytes(data))
        try:
            header = checkpoint.check(path)
        except CheckpointError:
            return
        # Only the key and the iteration of the first line are outside the checksum, and the key is compared.
        assert (header.key, header.iteration) != ("k", 7)
