"""The format of a home: written when it is made, raised step by step where it is older, refused where it is newer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable

from study.home import Home
from trainables.errors import StoreError

logger = logging.getLogger(__name__)

NAME = "mtl-study home"
FORMAT = 2
"""1: no format file; a run holds the whole home. 2: leases, spool and a format file."""


def read_format(home: Home) -> int:
    """The home's format; 0 where there are no records yet.

    Raises:
        StoreError: the format file is damaged, or says something that this version does not know.
    """
    path = home.format_file
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        found = fields["format"]
        if fields["name"] != NAME or type(found) is not int or found < 1:
            raise ValueError
    except FileNotFoundError:
        return 1 if home.database.exists() else 0
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreError(
            f"{path}: not the format file of a home (or a damaged one); for records of this version write "
            f'{{"name": "{NAME}", "format": {FORMAT}}} into it'
        ) from None
    if found > FORMAT:
        raise StoreError(
            f"home {home.path}: is of format {found}, made by a newer mtl-study; this one knows formats 1 to {FORMAT}"
        )
    return int(found)


def migrate(home: Home) -> int:
    """Bring the home to this version's format; returns the one it had. The caller keeps other drivers out.

    Raises:
        StoreError: as :func:`read_format`, or it cannot be written.
    """
    found = read_format(home)
    for step in range(max(1, found), FORMAT):
        _STEPS[step](home)
        logger.info("home %s: format %d to %d", home.path, step, step + 1)
    if found != FORMAT:
        _write(home)
    return found


def _write(home: Home) -> None:
    path = home.format_file
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps({"name": NAME, "format": FORMAT}) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def _one_to_two(home: Home) -> None:
    """Nothing in the records changes. A run of the older version would know nothing of leases: none may be going on."""
    with home.lock():
        pass


_STEPS: dict[int, Callable[[Home], None]] = {1: _one_to_two}
