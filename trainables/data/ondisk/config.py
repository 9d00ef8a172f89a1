"""What the configs of all data sets on disk have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from trainables.data.base import DataConfig


def _absolute(value: str | None) -> str | None:
    if value is None:
        return None
    if not value:
        raise ValueError("the path of a folder is wanted")
    # Workers run in folders of their own.
    return str(Path(value).expanduser().absolute())


class OnDiskConfig(DataConfig):
    """A data set that people have in a folder of their own. Nothing is downloaded, and nothing written there."""

    root: Annotated[str | None, AfterValidator(_absolute)] = None
    """The folder. ``null``: not given, which is enough to plan but not to train. No part of the trial key: what the
    files are counts, not where they are."""

    on_bad: Literal["error", "skip"] = "error"
    """What to do with a sample whose file is missing or damaged. ``error``: stop and name the file. ``skip``: leave it
    out and count it; in training the next readable sample takes its place."""


class HoldoutConfig(OnDiskConfig):
    """A data set published with a training and a test split only."""

    val_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    """Share of the training samples held out as validation split, chosen by a hash of their names. 0 trains on all of
    them, as the published numbers do, and leaves the validation split empty."""
