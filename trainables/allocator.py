"""What this process does with memory that it frees.

glibc gives large blocks back to the system and asks for them anew, page by page, a moment later. A backward pass frees
what it made at every layer, so that a step which makes one pass per task spends a twentieth to a tenth of its time on
pages (``docs/benchmarks/step_cost.md``).
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""Of ``mallopt``, in glibc's ``malloc.h``."""

LARGEST = 2**25
"""Bytes of a block from which on glibc lets every one be mapped for itself, and given back when it is freed: as many as
it takes."""

_NEVER = 2**31 - 1


def keep_freed() -> bool:
    """Let this process keep the memory of blocks up to :data:`LARGEST` for its next ones, until it ends.

    Changes no result. Does nothing where the environment says how memory is to be had (``MALLOC_..._`` or
    ``GLIBC_TUNABLES``), and where the C library is not glibc.

    Returns:
        Whether it does so from now on.
    """
    told = any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    if told or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    return give_back_from(_NEVER)


def give_back_from(trim: int) -> bool:
    """Let this process give freed memory back once ``trim`` bytes of it lie at the end of its heap.

    glibc comes to twice :data:`LARGEST` by itself, in a process that has freed a block of that size.

    Returns:
        Whether the C library can be told so.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, trim))
