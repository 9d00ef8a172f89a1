from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
