"""``mtl-study data check``: what it says of whole, damaged and wrong folders, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mtan_files
import numpy as np
import pytest
from ondisk_fixtures import NYUD_TEST, NYUD_TRAIN, write_nyud, write_pascal
from PIL import Image

from study.cli import run
from trainables.data.nyud import NYUD
from trainables.data.ondisk import forget

FEW = {"train": len(NYUD_TRAIN), "val": 0, "test": len(NYUD_TEST)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_nyud(tmp_path / "NYUDv2")
    forget()
    return tmp_path / "NYUDv2"


def check(
    capsys: pytest.CaptureFixture[str], name: str, folder: Path, *more: str, home: Path | None = None
) -> tuple[int, str, str]:
    own = ["--home", str(home or folder.parent / "home"), "--workers", "2"]
    code = run(["data", "check", name, str(folder), *own, *more])
    out, err = capsys.readouterr()
    return code, out, err


def found(capsys: pytest.CaptureFixture[str], name: str, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = check(capsys, name, folder, "--json", *more)
    return code, json.loads(out)


def test_a_complete_folder_ends_with_0(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NYUD, "published", classmethod(lambda cls, config: FEW))
    before = sorted(folder.rglob("*"))
    code, out, err = check(capsys, "nyud", folder, "--set", "val_fraction=0")
    assert code == 0, out
    assert out.splitlines()[0] == f"nyud in {folder}: layout invpt"
    assert out.splitlines()[-1] == "complete"
    assert "differs" not in out
    assert "checking data set nyud: 12/12" in err
    sheet = folder.parent / "home" / "nyud-check.png"
    assert f"labels to look at: {sheet}" in out
    with Image.open(sheet) as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 100
    assert sorted(folder.rglob("*")) == before


def test_fewer_samples_than_published_are_not_complete(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = found(capsys, "nyud", folder)
    assert (code, said["complete"], said["damaged"], said["problems"]) == (1, False, 0, [])
    counts = {(c["split"], c["label"]): (c["found"], c["listed"], c["expected"]) for c in said["counts"]}
    assert counts["test", "depth"] == (4, 4, 654)
    assert counts["train", "image"][2] + counts["val", "image"][2] == 795
    assert Path(said["sheet"]).is_file()


def test_missing_and_damaged_files_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "depth/0011.npy").unlink()
    image = folder / f"images/{NYUD_TRAIN[0]}.png"
    image.write_bytes(image.read_bytes()[:200])
    code, out, err = check(capsys, "nyud", folder, "--out", str(folder.parent / "sheet.png"), "--set", "val_fraction=0")
    assert code == 1, err
    assert "missing or damaged: 2\n" in out
    assert "  data set 'nyud': depth/0011.npy: it is missing\n" in out
    assert f"  data set 'nyud': images/{NYUD_TRAIN[0]}.png: " in out
    rows = [line.split() for line in out.splitlines()]
    assert ["test", "depth", "3", "4", "654", "differs"] in rows
    assert ["train", "semseg", "7", "8", "795", "differs"] in rows
    assert out.splitlines()[-1] == "not complete"
    assert (folder.parent / "sheet.png").is_file()


def test_without_one_readable_sample_there_is_no_sheet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image in (folder / "images").iterdir():
        image.write_bytes(b"")
    code, said = found(capsys, "nyud", folder)
    assert (code, said["sheet"], said["damaged"], len(said["problems"])) == (1, None, 12, 12)
    assert {count["found"] for count in said["counts"]} == {0}


def test_a_label_without_a_single_file_does_not_hide_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "edge")
    (folder / "edge").mkdir()
    code, said = found(capsys, "nyud", folder)
    assert code == 1
    read = {(c["split"], c["label"]): c["found"] for c in said["counts"]}
    assert (read["test", "edge"], read["test", "depth"]) == (0, 4)
    with Image.open(said["sheet"]) as picture:
        assert picture.width == 4 * 132 + 4  # the image, semseg, depth, normal


@pytest.mark.parametrize("name", ["pascal_context", "cityscapes_mtan"])
def test_other_data_sets_are_checked_alike(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / name
    if name == "pascal_context":
        write_pascal(root)
    else:
        mtan_files.write_npy(root, (128, 256), 7, normals=False)
    forget()
    code, said = found(capsys, name, root)
    assert (code, said["damaged"]) == (1, 0)
    assert all(count["found"] == count["listed"] < count["expected"] for count in said["counts"])
    assert Path(said["sheet"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nyudd", "."], "unknown data set 'nyudd'; did you mean 'nyud'?"),
        (["nyud", "nowhere"], "data.root: there is no folder "),
        (["nyud", "."], "has no layout of data set 'nyud', which wants a folder with"),
        (["scenes", "."], "data set 'scenes' is built on this machine; there is no folder of it to check"),
        (["qm9", "."], "data set 'qm9' is built on this machine"),
        (["nyud", ".", "--set", "val_fractoin=0"], "did you mean 'val_fraction'?"),
    ],
)
def test_a_wrong_call_ends_with_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["data", "check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err.strip().splitlines()[-1]
    assert out == ""
    assert list(tmp_path.iterdir()) == []
