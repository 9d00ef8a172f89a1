"""Errors a user can mend: one line each, naming the field, file or value and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable

_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|MemoryError|not enough memory|can't allocate memory|Cannot allocate memory"
    r"|running low on memory",
    re.I,
)


def out_of_memory(reason: str) -> bool:
    """Whether a failure, as ``Type: text``, is for want of memory, on the GPU or the machine."""
    return bool(_MEMORY.search(reason))


class UserError(Exception):
    """Something the user gave is wrong. The command line prints its text in one line and exits with code 2.

    One line whatever the name it quotes: characters that do not print are shown escaped, as Python writes them.
    """

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class ConfigError(UserError):
    """A trial config, study spec or command-line value is not allowed."""


class DataError(UserError):
    """A data set is missing, damaged, or cannot be built."""


class CheckpointError(UserError):
    """A checkpoint is damaged, or belongs to another trial config."""


class WeightsError(UserError):
    """Pretrained weights were asked for and are absent or do not fit."""


class ExtensionError(UserError):
    """Another package adds something that cannot be imported, does not fit, or has a name that is taken."""


class StoreError(UserError):
    """The home folder or the records in it cannot be used."""


class Diverged(Exception):  # noqa: N818 - an outcome of training, not a mistake of the user
    """Training left the finite numbers, or a limit. Not retried: the same trial would do the same again.

    Args:
        what: what is not finite.
        iteration: the last one done, counted from 0.
        how: what is wrong with it.
    """

    def __init__(self, what: str, iteration: int, how: str = "is not finite") -> None:
        super().__init__(what, iteration, how)
        self.what = what
        self.iteration = iteration
        self.how = how

    def __str__(self) -> str:
        return f"diverged by iteration {self.iteration}: {self.what} {self.how}"


def unknown(kind: str, name: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not among ``allowed``, with the nearest one for a typo.

    Names with one and the same word before a colon (``torchjd:UPGrad``, ...) are counted, not listed.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    families = Counter(entry.partition(":")[0] for entry in names if ":" in entry)
    many = {family: count for family, count in families.items() if count > 1}
    plain = [entry for entry in names if entry.partition(":")[0] not in many]
    shown = [*plain, *(f"{family}:... ({count} of them)" for family, count in many.items())]
    return f"unknown {kind} '{name}'{hint} (allowed: {', '.join(shown) or 'none'})"
