"""Damaged and nonsensical input: one line and exit code 2, or an answer; never a traceback or a changed store."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_inspection import record

from study import schema
from study.cli import run
from study.home import Home
from study.inspection import inspect
from study.spec import parse_spec
from trainables.config import load_trial, trial_key
from trainables.errors import ConfigError

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
READING = (["status", "little"], ["table", "little"], ["plan", "table4_d5"], ["figure", "bars", "--study", "little"])

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["data", "tasks", "model", "optim", "train", "method", "record", "seed", "preset", "x", ""])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("sound") / "home")
    record(home).close(schema.COMPLETE)
    with closing(sqlite3.connect(home.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return home


def digest(folder: Path) -> dict[str, str]:
    """Of every file but SQLite's own side files, which readers make."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> int:
    code = run(arguments)
    _, err = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in err
    if code == 2:
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    return code


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_database_is_said_and_left_as_it_is(
    seed: int, sound: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(seed)
    home = Home(tmp_path / "home")
    shutil.copytree(sound.path, home.path)
    data = bytearray(home.database.read_bytes())
    if seed == 0:
        del data[draw.randrange(100, len(data)) :]
    elif seed == 1:
        data[:100] = draw.randbytes(100)
    else:
        for _ in range(200):
            data[draw.randrange(len(data))] = draw.randrange(256)
    home.database.write_bytes(bytes(data))
    before = digest(home.path)
    for command in READING:
        said(capsys, [*command, "--home", str(home.path)])
    if seed < 2:
        assert {seen.name: seen.level for seen in inspect(home)}["database"] == "wrong"
    assert digest(home.path) == before


def test_an_older_database_of_mlflow_is_said(sound: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(sound.path, home.path)
    with closing(sqlite3.connect(home.database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = digest(home.path)
    assert said(capsys, ["status", "little", "--home", str(home.path)]) == 2
    assert digest(home.path) == before


@QUIET
@given(data=st.dictionaries(FIELDS, TREES, max_size=4))
def test_no_mapping_is_anything_but_a_trial_config_or_one_line(data: dict[str, Any]) -> None:
    said_of_it = ""
    try:
        config = load_trial(data)
        assert load_trial(config.to_dict()) == config
    except ConfigError as error:
        said_of_it = str(error)
    assert "\n" not in said_of_it


@QUIET
@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_no_text_is_anything_but_a_spec_or_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec(text, "own.yaml")
    assert "\n" not in str(caught.value)


SPEC = """
id: own
title: My own
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
  - {id: beta, label: B, set: {method: selective}, axes: {method.beta: [1e-3]}}
"""


@QUIET
@given(place=st.integers(0, len(SPEC) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_study_file_is_read_or_refused_in_one_line(
    place: int, byte: int, cut: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(SPEC.encode())
    if cut:
        del raw[place:]
    else:
        raw[place] = byte
    path = tmp_path / "own.yaml"
    path.write_bytes(bytes(raw))
    said(capsys, ["plan", str(path), "--profile", "smoke", "--home", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


@QUIET
@given(tree=TREES)
def test_a_config_file_with_anything_in_it_is_refused_in_one_line(
    tree: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump({"method": tree}), encoding="utf-8")
    if tree not in ("gd",):
        assert said(capsys, ["trial", str(path), "--set", "train.budget.amount=0"]) == 2


@given(
    seed=st.integers(0, 2**31 - 1),
    lr=st.floats(1e-6, 1.0),
    every=st.integers(0, 100),
    points=st.integers(2, 100),
    test=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_key_is_of_what_decides_the_result_and_of_nothing_else(
    seed: int, lr: float, every: int, points: int, test: bool
) -> None:
    base = {"seed": seed, "optim": {"lr": lr}}
    key = trial_key(load_trial(base))
    record_fields = {"eval_every": every, "points": points, "test": test}
    assert trial_key(load_trial({**base, "record": record_fields})) == key
    assert trial_key(load_trial(dict(reversed(base.items())))) == key
    assert trial_key(load_trial(load_trial(base).to_dict())) == key
    assert trial_key(load_trial({**base, "seed": (seed + 1) % 2**31})) != key
    assert trial_key(load_trial({**base, "optim": {"lr": lr * 1.0000001}})) != key
