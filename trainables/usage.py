"""What a trial takes of its machine while it trains."""

from __future__ import annotations

import psutil
import torch

_MEGABYTE = 1e6


class Usage:
    """Samples of this process and, where it trains on one, of its GPU. On a CPU a sample takes 0.1 ms or less.

    Args:
        device: what the trial trains on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._process.cpu_percent(None)
        self._busy = device.type == "cuda"

    def sample(self) -> dict[str, float]:
        """``process_cpu_percentage`` since the sample before (100 is one core), ``process_memory_megabytes`` and
        ``system_memory_usage_percentage`` (of the whole machine); of a GPU ``gpu_memory_megabytes`` (this trial's) and,
        with `nvidia-ml-py`, ``gpu_utilization_percentage`` (by all that use it)."""
        taken = {
            "process_cpu_percentage": self._process.cpu_percent(None),
            "process_memory_megabytes": self._process.memory_info().rss / _MEGABYTE,
            "system_memory_usage_percentage": psutil.virtual_memory().percent,
        }
        if self._device.type == "cuda":
            taken["gpu_memory_megabytes"] = torch.cuda.memory_reserved(self._device) / _MEGABYTE
        if self._busy:
            try:
                taken["gpu_utilization_percentage"] = float(torch.cuda.utilization(self._device))
            except Exception:  # noqa: BLE001 - no library, or a driver that does not tell: not asked again
                self._busy = False
        return taken
