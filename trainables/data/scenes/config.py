"""The fields of the procedural scenes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainables.data.base import DataConfig


class ScenesConfig(DataConfig):
    """Procedural rooms with objects and people, and exact labels for 16 dense tasks."""

    name: Literal["scenes"] = "scenes"

    image_size: int = Field(default=64, ge=32, le=512)
    """Height and width of the square images, in pixels."""

    train: int = Field(default=512, ge=1, le=1_000_000)
    """Number of training scenes."""

    val: int = Field(default=128, ge=1, le=1_000_000)
    """Number of validation scenes."""

    test: int = Field(default=128, ge=1, le=1_000_000)
    """Number of test scenes."""

    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the scenes. No scene of a split depends on the number of scenes, nor on the other splits."""

    min_objects: int = Field(default=4, ge=0, le=24)
    """Fewest pieces of furniture and loose objects that are tried to be placed in a room."""

    max_objects: int = Field(default=9, ge=1, le=24)
    """Most of them."""

    people: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability that a room has people in it (one, at times two or three)."""

    noise: float = Field(default=2.0, ge=0.0, le=64.0)
    """Standard deviation of the sensor noise, in steps of an 8-bit channel."""

    holes: float = Field(default=0.0, ge=0.0, le=0.9)
    """Fraction of each image's area without geometry, as the holes of scanned meshes: depth 65535, normal 128."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects ({self.min_objects}) must not exceed max_objects ({self.max_objects})")
        return self
