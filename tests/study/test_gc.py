"""What may be deleted from a home, and what never."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_records import SyntheticStore, baseline_row, plan

from study import schema
from study.cli import run
from study.cli.archive import size
from study.gc import collect, look
from study.home import Home
from study.lease import Presence
from trainables.errors import StoreError

USED, UNUSED = "a" * 16, "b" * 16
KEYS = {"over": "1" * 64, "lost": "2" * 64, "left": "3" * 64}


def write(path: Path, content: bytes = b"1234567890") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("empty")
    SyntheticStore(home)
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, template: Path) -> Home:
    """One of everything: to keep and to delete."""
    store = SyntheticStore(tmp_path / "home", template)
    store.study(plan([baseline_row()]))
    store.trial(KEYS["over"], {"depth/rmse": 1.0}, tags={schema.DATA_FINGERPRINT: USED + "0" * 48})
    store.trial(KEYS["lost"], {}, status="diverged", mlflow_status="FAILED")
    store.trial(KEYS["left"], {}, status="interrupted", mlflow_status="KILLED")
    deleted = store.trial("gone", {"depth/rmse": 1.0})
    store.artifact(deleted, schema.CONFIG_FILE, b"{}" * 5)
    store.client.delete_run(deleted)
    home = Home(store.home)
    for key in KEYS.values():
        write(home.checkpoint(key))
    write(home.checkpoint(KEYS["left"]).with_name(f"{KEYS['left']}.ckpt.damaged"))
    write(home.checkpoint(KEYS["left"]).with_name(f"{KEYS['left']}.ckptxyz.part"))
    write(home.failed(KEYS["over"]))
    write(home.failed(KEYS["left"]))
    write(home.scratch / "tune-1" / "result.json")
    for fingerprint in (USED, UNUSED):
        write(home.data / f"scenes-{fingerprint}" / "manifest.json")
    write(home.data / "my-own-folder" / "labels.npy")
    write(home.artifacts / "toy" / ("f" * 32) / "artifacts" / "x")
    write(home.path / "reports" / "toy-cpu.html")
    return home


EXPECTED = {
    "checkpoints": 20,
    "damaged checkpoints": 10,
    "configs of failures": 10,
    "artifacts": 10,
    "artifacts of no run": 10,
    "scratch": 10,
    "half-written files": 10,
    "data sets": 10,
}


def test_looking_finds_what_nothing_needs_and_deletes_nothing(home: Home) -> None:
    before = sorted(home.path.rglob("*"))
    found = look(home)
    assert {garbage.kind: garbage.bytes for garbage in found.garbage} == EXPECTED
    assert found.bytes == sum(EXPECTED.values())
    assert [path for path in before if not path.exists()] == []


def test_deleting_leaves_what_is_needed(home: Home) -> None:
    collect(home)
    assert look(home).garbage == ()
    assert home.checkpoint(KEYS["left"]).exists()
    assert home.failed(KEYS["left"]).exists()
    assert (home.data / f"scenes-{USED}" / "manifest.json").exists()
    assert (home.data / "my-own-folder" / "labels.npy").exists()
    assert (home.path / "reports" / "toy-cpu.html").exists()
    assert list(home.artifacts.glob("toy/*/artifacts/plan.json"))


def test_a_run_that_is_going_on_keeps_what_it_may_be_using(home: Home) -> None:
    presence = Presence(home.drivers)
    try:
        found = look(home)
    finally:
        presence.close()
    assert found.drivers == 1
    assert {garbage.kind for garbage in found.garbage}.isdisjoint({"scratch", "data sets", "half-written files"})


def test_a_link_is_deleted_and_not_what_it_leads_to(home: Home, tmp_path: Path) -> None:
    precious = write(tmp_path / "elsewhere" / "precious")
    (home.scratch / "link").symlink_to(tmp_path / "elsewhere")
    collect(home)
    assert precious.exists()
    assert not (home.scratch / "link").is_symlink()


def test_the_command_deletes_only_with_yes(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gc", "--home", str(home.path)]) == 0
    assert "90 B can be freed" in capsys.readouterr().out
    assert run(["gc", "--home", str(home.path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["deleted"], said["bytes"]) == (False, 90)
    assert run(["gc", "--yes", "--home", str(home.path)]) == 0
    assert "90 B freed" in capsys.readouterr().out
    assert run(["gc", "--home", str(home.path)]) == 0
    assert capsys.readouterr().out == "nothing to delete\n"


def test_there_has_to_be_a_home(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is none"):
        look(Home(tmp_path / "none"))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size(count) == text


def test_networks_whose_runs_never_came_go_unless_records_wait(home: Home) -> None:
    left = write(home.model(KEYS["left"]) / "weights.safetensors").parent
    journal = write(home.spool / "driver.jsonl")
    assert "models" not in {each.kind for each in look(home).garbage}
    journal.unlink()
    (models,) = (each for each in look(home).garbage if each.kind == "models")
    assert models.paths == (left,)
    collect(home)
    assert not left.exists()
