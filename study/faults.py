"""Telling faults apart by what a worker says of them."""

from __future__ import annotations

import re

from study.addresses import mask

# Ray's texts, without the names of its exceptions, which it does not write down.
_NODE = re.compile(
    r"its node has died|node (?:\S+ )?(?:died|failed|was terminated|was removed)|actor (?:\S+ )?is unavailable", re.I
)


def node_lost(reason: str) -> bool:
    """Whether a failure is of the machine a trial ran on, as Ray says it, and none of the trial's."""
    return bool(_NODE.search(reason))


def first_line(error: BaseException) -> str:
    """What an error says, in one line without passwords; of a database's error inside another one, that one's."""
    inner: BaseException | None = error
    while inner is not None:
        original = getattr(inner, "orig", None)
        if original is not None:
            error = original
            break
        inner = inner.__cause__
    return mask((str(error).strip().splitlines() or [type(error).__name__])[0])


def store_trouble(error: BaseException) -> str:
    """What a database or MLflow says is wrong with the records, in one line; empty for any other error."""
    if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "sqlite3"):
        return ""
    return f"the records cannot be used: {first_line(error)}"
