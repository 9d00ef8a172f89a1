"""Telling faults apart by what a worker says of them."""

from __future__ import annotations

import re

_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|MemoryError|not enough memory|can't allocate memory|Cannot allocate memory",
    re.I,
)


def out_of_memory(reason: str) -> bool:
    """Whether a failure is for want of memory, on the GPU or the machine."""
    return bool(_MEMORY.search(reason))


def store_trouble(error: BaseException) -> str:
    """What a database or MLflow says is wrong with the records, in one line; empty for any other error."""
    if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "sqlite3"):
        return ""
    text = str(getattr(error, "orig", None) or error) or type(error).__name__
    return f"the records cannot be used: {text.splitlines()[0]}"
