"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def machine(device: str = "cpu") -> str:
    """Device, versions and the load at the moment, in one line."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}; load {os.getloadavg()[0]:.2f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, 1 of {os.cpu_count()} cores"
