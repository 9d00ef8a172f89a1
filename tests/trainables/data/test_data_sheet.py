from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ondisk_fixtures import NYUD_SIZE, write_nyud
from PIL import Image

from trainables.data.nyud import NYUD, NYUDConfig
from trainables.data.scenes import Scenes, ScenesConfig
from trainables.data.sheet import contact_sheet
from trainables.errors import DataError


def test_sheet_has_a_row_for_each_sample_and_a_column_for_each_label(
    small_config: ScenesConfig, small_root: Path, tmp_path: Path
) -> None:
    path = contact_sheet(Scenes, small_config, small_root, tmp_path / "new" / "sheet.png", split="val", count=10)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    columns, rows = len(Scenes.labels) + 1, 3
    assert pixels.shape == (16 + 132 * rows + 4, 132 * columns + 4, 3)
    for column in range(columns):
        cell = pixels[20 : 20 + 132 * rows, 4 + 132 * column : 132 * (column + 1)]
        assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 1, column


def test_a_sheet_that_cannot_be_written_names_its_path(
    small_config: ScenesConfig, small_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"sheet\.png: the contact sheet cannot be written"):
        contact_sheet(Scenes, small_config, small_root, tmp_path / "file" / "sheet.png")


def test_what_is_to_be_ignored_is_white_and_does_not_hide_the_rest(tmp_path: Path) -> None:
    write_nyud(tmp_path / "nyud")
    config = NYUDConfig(root=str(tmp_path / "nyud"), image_size=(64, 64), val_fraction=0.0)
    path = contact_sheet(NYUD, config, tmp_path, tmp_path / "sheet.png", count=1)
    with Image.open(path) as sheet:
        cells = np.asarray(sheet)[20:148]
    for label in ("semseg", "edge"):
        left = 4 + 132 * (1 + NYUD.labels.index(label))
        cell = cells[:, left : left + 128]
        border = (64 - NYUD_SIZE[0]) // 2 * 2
        assert (cell[:border] == 255).all()
        assert len(np.unique(cell[border:-border, 16:-16].reshape(-1, 3), axis=0)) > 1
        assert (cell[border:-border, 16:-16] != 255).any(axis=-1).mean() > 0.9
    with pytest.raises(DataError, match="split 'val' has no sample to show"):
        contact_sheet(NYUD, config, tmp_path, tmp_path / "none.png", split="val")
