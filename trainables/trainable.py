"""The Ray Tune class around a trial."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainables import checkpoint
from trainables.actors import ActorPeers
from trainables.errors import UserError, out_of_memory
from trainables.session import Session, TrialTask
from trainables.trainer import Trainer

CHECKPOINT_NAME = "trial.ckpt"


class TrialTrainable(tune.Trainable):
    """One trial as Ray Tune runs it: ``config["trial"]`` is a :class:`trainables.session.TrialTask` as plain data.

    One ``step`` is a chunk of about ``config["chunk_seconds"]``. Its result holds the
    :class:`trainables.session.Report` under ``report`` and a few scalars that Tune's schedulers can read; or, of a
    trial that ends without one, why and its traceback under ``failure``. Tune tries again whatever raises, at once and
    beside the same neighbours, which is no help where memory is short or the user has to mend something: these do not
    raise.
    Actors are reused: everything of the trial before is dropped in :meth:`reset_config`, and the next one seeds its own
    random state.
    """

    _session: Session | None = None
    _failure: tuple[str, str] | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Build the trial, from its checkpoint if it has one."""
        self._chunk_seconds = float(config.get("chunk_seconds", 5.0))
        self._checkpoint_seconds = float(config.get("checkpoint_seconds", 30.0))
        self._session, self._failure = None, None
        with self._told():
            task = TrialTask(**config["trial"])
            begin = partial(config.get("session", Session), task, self._checkpoint_seconds)
            self._session = begin() if task.processes == 1 else begin(launch=ActorPeers)

    def step(self) -> dict[str, Any]:
        """Train one chunk."""
        with self._told():
            if self._session is not None:
                report = self._session.advance(self._chunk_seconds)
                return {
                    "report": report,
                    "progress": report.progress,
                    "iteration": report.iteration,
                    "done": report.over,
                }
        return {"failure": self._failure, "done": True}

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Keep what is not to be tried again as it was."""
        try:
            yield
        except UserError as error:
            self._failure = (str(error), "")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if not out_of_memory(reason):
                raise
            self._failure = (reason, traceback.format_exc())
            self._leave()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in this process."""
        self._leave()
        if torch.cuda.is_initialized():
            # What PyTorch keeps of the trial before is a neighbour's: what each may take is counted by its kind.
            gc.collect()
            torch.cuda.empty_cache()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """The actor ends."""
        self._leave()

    def _leave(self) -> None:
        """Drop the trial, and end the other processes of one that several train."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The trial's whole state."""
        trainer = self._trainer()
        path = Path(checkpoint_dir) / CHECKPOINT_NAME
        checkpoint.save(path, trainer.state_dict(), key=trainer.key, iteration=trainer.iteration)

    def load_checkpoint(self, checkpoint_dir: str | None) -> None:
        """Put back what :meth:`save_checkpoint` wrote."""
        if checkpoint_dir is None:
            return
        trainer = self._trainer()
        trainer.load_state_dict(
            checkpoint.load(Path(checkpoint_dir) / CHECKPOINT_NAME, key=trainer.key, device=trainer.device)
        )

    def _trainer(self) -> Trainer:
        if self._session is None:
            raise RuntimeError("the trial has ended")
        return self._session.trainer
