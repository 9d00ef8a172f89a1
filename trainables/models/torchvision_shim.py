"""Lets timm be imported beside a CPU-only torch.

timm imports torchvision. The torchvision wheel of the package index is a CUDA build: beside a CPU-only torch its
compiled extension finds no CUDA library, its operators stay undeclared, and ``import torchvision`` ends with ``operator
torchvision::nms does not exist``, because two of them get a shape function at import time. Declaring those two
operators, without code behind them, is enough for the import. Nothing in this project calls a torchvision operator.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from pathlib import Path

import torch

_LOCK = threading.Lock()
_SCHEMAS = ("nms", "qnms")


def ensure_importable() -> None:
    """Make ``import torchvision`` possible in this process; called before timm's first import.

    Does nothing beside a CUDA torch, where torchvision is imported already, where its extension loads (a CPU build of
    it), or when called again. Safe to call from several threads.
    """
    with _LOCK:
        if torch.version.cuda is None and "torchvision" not in sys.modules and not _extension_loads():
            _declare()


def _extension_loads() -> bool:
    """Whether torchvision's own extension declares the operators; declaring them twice would end the process."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


@functools.cache
def _declare() -> torch.library.Library:
    """The declarations live as long as this object: the cache keeps it, and a second call declares nothing."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
