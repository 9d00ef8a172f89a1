"""Nonsense for every command: one line and exit code 2, or an answer; never a traceback, or a changed home."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_fuzz import digest, said, sound  # noqa: F401 - sound is a fixture

from study.cli import main, run
from study.home import Home

FUZZ: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
RECORDS: dict[str, list[str]] = {
    "claims": [],
    "compare": ["gd", "little"],
    "doctor": [],
    "explain": ["little"],
    "export": ["--out", "{out}/all.zip"],
    "figure": ["bars", "--study", "little", "--out", "{out}"],
    "gc": [],
    "plan": ["table4_d5"],
    "report": ["little"],
    "search-report": ["little"],
    "status": ["little"],
    "table": ["little"],
    "verify": ["little"],
}
"""Commands that read the records, and what they are asked for."""
TRAINING = {
    "run": ["table4_d5", "--profile", "smoke"],
    "search": ["tune_optimizer", "--profile", "smoke"],
    "sensitivity": ["tune_optimizer", "--profile", "smoke"],
}
"""Commands that write records."""
OTHERS = {
    *("audit", "cluster render", "cluster wait", "completion", "data check", "data show", "import", "list", "logs"),
    *("new", "schema", "submit", "trial", "ui"),
}
"""Commands that need none, or write into an empty home."""
ASKING = sorted({*RECORDS, *TRAINING, *OTHERS} - {"ui"})
"""Commands that end by themselves."""
TEXTS = st.sampled_from(
    [
        *("..", "../../etc/passwd", "%s", "a\nb", "<script>alert(1)</script>", "\\input{x}", "'; drop table runs; --"),
        *("{}", "[", "*", "~", "é", "\udcff", "0", "-1", "nan", "1e999", "{file}", "{folder}", "http://me:pw@[::1"),
    ]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def every(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        yield " ".join(path), group
        return
    for name, command in group.commands.items():
        yield from every(command, (*path, name))


COMMANDS = dict(every(main))


def test_every_command_has_its_place_here() -> None:
    assert sorted(COMMANDS) == sorted([*RECORDS, *TRAINING, *OTHERS])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(bytes(range(1, 256)))
    monkeypatch.chdir(tmp_path / "folder")
    return tmp_path


@settings(max_examples=150, **FUZZ)
@given(data=st.data())
def test_no_argument_is_anything_but_answered_or_refused_in_one_line(
    data: st.DataObject, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = data.draw(st.sampled_from(ASKING), label="command")
    command = COMMANDS[name]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in ("home", "help", "address")]
    words: list[str] = []
    for option in data.draw(st.lists(st.sampled_from(options), max_size=2, unique=True)) if options else []:
        words += [option.opts[0], *([] if option.is_flag else [data.draw(TEXTS)])]
    if any(p.name == "home" for p in command.params):
        words += ["--home", str(place / "home")]
    if any(p.name == "address" for p in command.params):
        # A cluster that is not there is asked for at once and no longer.
        words += ["--address", data.draw(st.sampled_from(["", "x://y", "nowhere:x", "http://"]))]
    if name == "cluster wait":
        words += ["--timeout", "0"]
    words.append("--")
    words += [data.draw(TEXTS) for p in command.params if isinstance(p, click.Argument) and p.required]
    given_words = [word.replace("{file}", str(place / "file")).replace("{folder}", str(place)) for word in words]
    said(capsys, [*name.split(), *given_words])
    assert not (place / "home" / "mlflow.db").exists()
    assert not (place.parent / "etc").exists()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(RECORDS))
def test_no_reader_of_a_damaged_database_changes_it(
    name: str,
    seed: int,
    sound: Home,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw, home = random.Random(f"{name} {seed}"), Home(tmp_path / "home")
    shutil.copytree(sound.path, home.path)
    data = bytearray(home.database.read_bytes())
    if seed == 0:
        del data[draw.randrange(100, len(data)) :]
    else:
        for _ in range(10 ** (seed + 1)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    home.database.write_bytes(bytes(data))
    before = digest(home.path)
    (tmp_path / "out").mkdir()
    words = [word.replace("{out}", str(tmp_path / "out")) for word in RECORDS[name]]
    said(capsys, [name, *words, "--home", str(home.path)])
    after = digest(home.path)
    assert {path: sums for path, sums in after.items() if path in before} == before


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_nothing_trains_on_a_damaged_database(
    name: str,
    sound: Home,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(sound.path, home.path)
    data = home.database.read_bytes()
    home.database.write_bytes(data[:100][::-1] + data[100:])
    before = digest(home.path)
    assert run([name, *TRAINING[name], "--executor", "local", "--home", str(home.path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {home.database}: not a usable database")
    after = digest(home.path)
    assert {path: sums for path, sums in after.items() if path in before} == before
    assert not home.data.exists()


SEARCH = """
id: own
title: My own
axes:
  optim.lr: {float: [1.0e-4, 1.0e-1], log: true}
contenders:
  - {id: gd, label: GD, set: {method: gd}}
budget: {trials: 5}
sampler: {name: tpe, startup: 2}
pruner: {name: asha, reduction: 2}
"""


@settings(max_examples=60, **FUZZ)
@given(
    place_=st.integers(0, len(SEARCH) - 1),
    byte=st.integers(0, 255),
    cut=st.booleans(),
    name=st.sampled_from(["search", "sensitivity"]),
)
def test_a_damaged_search_file_is_read_or_refused_in_one_line(
    place_: int, byte: int, cut: bool, name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(SEARCH.encode())
    if cut:
        del raw[place_:]
    else:
        raw[place_] = byte
    (place / "own.yaml").write_bytes(bytes(raw))
    words = [name, str(place / "own.yaml"), "--plan", "--profile", "smoke", "--home", str(place / "home")]
    said(capsys, words)
    assert not (place / "home").exists()
