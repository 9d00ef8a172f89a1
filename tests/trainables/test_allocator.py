import ctypes
import os
import subprocess
import sys

import pytest

FREES = """
import resource
import torch
from trainables.allocator import keep_freed
print(keep_freed())
def tensors():
    return [torch.ones(2**21) for _ in range(4)]
for _ in range(5):
    tensors()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    tensors()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Ten times 32 MiB: pages of 4 KiB are 8192 each time they are had anew."""


def _run(**environment: str) -> tuple[bool, int]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", FREES], capture_output=True, text=True, check=True, env={**inherited, **environment}
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_what_is_freed_is_not_had_from_the_system_again() -> None:
    kept, few = _run()
    # To be told of any of its thresholds, glibc stops to raise them by itself.
    left_alone, many = _run(MALLOC_TOP_PAD_="0")
    assert kept
    assert not left_alone
    assert 10 * few < many


def test_tunables_of_the_environment_stand() -> None:
    assert _run(GLIBC_TUNABLES="glibc.malloc.top_pad=0")[0] is False
