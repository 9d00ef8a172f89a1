"""Seeds for independent streams of random numbers, all derived from the trial's one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, the same on every machine and Python (unlike ``hash``)."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class RandomState:
    """Torch's global random state as one trial owns it.

    Drop path and dropout draw from the global generators. Inside :meth:`active` these hold this trial's state;
    outside they are as they were, so that trials in one process do not disturb each other.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.Generator().manual_seed(seed).get_state()
        self.cuda: torch.Tensor | None = None
        if device.type == "cuda":
            self.cuda = torch.Generator(device).manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Swap this state in, and out again with its progress kept."""
        outer_cpu = torch.get_rng_state()
        outer_cuda = torch.cuda.get_rng_state(self.device) if self.cuda is not None else None
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
        try:
            yield
        finally:
            self.cpu = torch.get_rng_state()
            torch.set_rng_state(outer_cpu)
            if outer_cuda is not None:
                self.cuda = torch.cuda.get_rng_state(self.device)
                torch.cuda.set_rng_state(outer_cuda, self.device)

    def state_dict(self) -> dict[str, torch.Tensor | None]:
        """The generators' states."""
        return {"cpu": self.cpu, "cuda": self.cuda}

    def load_state_dict(self, state: dict[str, torch.Tensor | None]) -> None:
        """Put back what :meth:`state_dict` gave; a CUDA state is dropped on a CPU."""
        assert state["cpu"] is not None
        self.cpu = state["cpu"].cpu()
        if self.device.type == "cuda" and state["cuda"] is not None:
            self.cuda = state["cuda"].cpu()


def random_of(
    seed: int,
    device: torch.device,
    rank: int = 0,
    saved: Sequence[dict[str, torch.Tensor | None]] = (),
    iteration: int = 0,
) -> RandomState:
    """The random state of one of the processes that train a trial together: a stream of its own.

    Args:
        seed: of the trial.
        device: that it trains on.
        rank: of the process; the first one's stream is that of a trial in one process.
        saved: what the processes' states were when the trial was saved, by rank. One that was not there begins a stream
            of its own at this ``iteration``.
        iteration: of the saved trial.
    """
    fresh = bool(saved) and rank >= len(saved)
    state = RandomState(derive(seed, "torch", *([rank] if rank else []), *([iteration] if fresh else [])), device)
    if saved and not fresh:
        state.load_state_dict(saved[rank])
    return state
