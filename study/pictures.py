"""Affinity maps as pictures, for the MLflow UI: a slider over training, one map per step."""

from __future__ import annotations

import io
import math
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from study.schema import IMAGES_FOLDER

LOGGED_IMAGES = "mlflow.loggedImages"
"""Tag by which MLflow's UI knows that a run has pictures."""
_MOST = 6
"""Pictures of a trial, evenly over its training."""
_CELL, _LINE, _MARGIN = 44, 22, 10
_NARROWEST = 340
"""That the title has room."""
_THUMBNAIL = 256
_BLUE, _WHITE, _ORANGE = (33, 102, 172), (247, 247, 247), (179, 88, 6)
"""Told apart by colour-blind people, too."""


def affinity_pictures(history: Mapping[str, NDArray[Any]], run: str, time: int) -> dict[str, bytes]:
    """File name to content of the pictures of a trial, each as PNG and as small WebP, named as MLflow names images of a
    step; none for a method that keeps no affinity.

    Args:
        history: as :data:`study.schema.HISTORY_FILE` has it.
        run: an id, for names that no other run's files have.
        time: milliseconds.
    """
    if "affinity" not in history:
        return {}
    maps, steps = history["affinity"], history["iteration"]
    known = [index for index in range(len(steps)) if np.isfinite(maps[index]).any()]
    chosen = sorted({known[round(place)] for place in np.linspace(0, len(known) - 1, min(_MOST, len(known)))})
    limit = max((float(np.nanmax(np.abs(_apart(maps[index])), initial=0.0)) for index in chosen), default=0.0)
    files: dict[str, bytes] = {}
    for index in chosen:
        step = int(steps[index])
        groups = [int(group) for group in history["group"][index]]
        picture = draw(maps[index], [str(task) for task in history["tasks"]], groups, step, limit)
        own = uuid.uuid5(uuid.NAMESPACE_OID, f"{run} {step}")
        stem = f"{IMAGES_FOLDER}/affinity+step+{step}+timestamp+{time}+{own}"
        small = picture.copy()
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        files[f"{stem}.png"] = _content(picture, "PNG")
        files[f"{stem}+compressed.webp"] = _content(small, "WEBP")
    return files


def draw(affinity: NDArray[Any], tasks: list[str], groups: list[int], step: int, limit: float) -> Image.Image:
    """One map: a row and a column per task, blue below zero, orange above, the number in each cell.

    Args:
        affinity: (K, K); NaN where it is not known.
        tasks: K names.
        groups: K positions of the tasks' groups in the order of updates.
        step: iterations done.
        limit: the value that gets the full colour.
    """
    font: Any = ImageFont.load_default(size=12)
    labels = [f"{number + 1}  {task}, group {groups[number] + 1}" for number, task in enumerate(tasks)]
    left = _MARGIN + int(max(font.getlength(label) for label in labels)) + _MARGIN
    top = _MARGIN + 2 * _LINE
    side = _CELL * len(tasks) + _MARGIN
    picture = Image.new("RGB", (max(left + side, _NARROWEST), top + side), "white")
    pen = ImageDraw.Draw(picture)
    # One unit for all cells: a power of ten is what does not fit into them.
    power = math.floor(math.log10(limit)) if limit else 0
    pen.text((_MARGIN, _MARGIN), f"Affinity after {step} iterations, in units of 1e{power}", "black", font)
    for row, label in enumerate(labels):
        middle = top + _CELL * row + _CELL // 2
        pen.text((_MARGIN, middle), label, "black", font, anchor="lm")
        pen.text((left + _CELL * row + _CELL // 2, top - 4), str(row + 1), "black", font, anchor="mb")
        for column in range(len(tasks)):
            value = float(affinity[row, column])
            at = (left + _CELL * column, top + _CELL * row)
            colour = _colour(value / limit if limit else 0.0)
            pen.rectangle((*at, at[0] + _CELL - 2, at[1] + _CELL - 2), fill=colour)
            text = f"{value / 10**power:+.1f}" if math.isfinite(value) else "-"
            ink = "white" if sum(colour) < 380 else "black"
            pen.text((at[0] + _CELL // 2 - 1, at[1] + _CELL // 2 - 1), text, ink, font, anchor="mm")
    return picture


def _apart(affinity: NDArray[Any]) -> NDArray[Any]:
    """Without the diagonal, which may be far above the rest and would take its colour."""
    return np.where(np.eye(len(affinity), dtype=bool) | ~np.isfinite(affinity), 0.0, affinity)


def _colour(share: float) -> tuple[int, int, int]:
    if not math.isfinite(share):
        return (221, 221, 221)
    end = _ORANGE if share > 0 else _BLUE
    part = min(1.0, abs(share))
    red, green, blue = (round(white + part * (full - white)) for white, full in zip(_WHITE, end, strict=True))
    return red, green, blue


def _content(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()
