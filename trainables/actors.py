"""The processes of a trial as actors of a Ray cluster, in the placement group of the trial's first one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import ray
from ray.util import get_node_ip_address
from torch import distributed as dist

from trainables.company import PeerLost
from trainables.errors import UserError
from trainables.peer import Meeting, Peer, Shared
from trainables.together import PATIENCE


class PeerActor:
    """A :class:`trainables.peer.Peer` as an actor.

    Args:
        rank: its place among the processes, from 1.
    """

    def __init__(self, rank: int) -> None:
        self._peer = Peer(rank, get_node_ip_address())

    def follow(self, *deed: Any) -> None:
        """See :meth:`trainables.peer.Peer.follow`."""
        self._peer.follow(*deed)


class ActorPeers:
    """Peers as actors. Ray ends them when the process that started them ends.

    Args:
        trial: what is trained. Each actor takes its torch threads in CPUs, and a GPU where it trains on one.
    """

    def __init__(self, trial: Shared) -> None:
        threads = int(trial.config["train"]["threads"])
        actor = ray.remote(num_cpus=threads, num_gpus=1 if trial.device == "cuda" else 0, max_restarts=0)(PeerActor)
        self._actors = [actor.remote(rank) for rank in range(1, trial.processes)]
        self._waiting: list[ray.ObjectRef[None]] = []

    def open(self) -> tuple[Meeting, dist.Store | None]:
        """A port of this machine."""
        host = get_node_ip_address()
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))
        return Meeting(host=host, port=store.port), store

    def ask(self, *deed: Any) -> None:
        """See :class:`trainables.company.Peers`."""
        self._waiting = [actor.follow.remote(*deed) for actor in self._actors]

    def answered(self) -> bool:
        """See :class:`trainables.company.Peers`."""
        if not self._waiting:
            return True
        ready, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
        for one in ready:
            try:
                ray.get(one)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from None
                last = str(error).strip().splitlines()[-1]
                raise PeerLost(f"a process of the trial failed: {last}") from None
            except ray.exceptions.RayError as error:
                what = " ".join(str(error).split())
                raise PeerLost(f"a process of the trial is gone: {type(error).__name__}: {what}") from None
        return not self._waiting

    def close(self) -> None:
        """See :class:`trainables.company.Peers`."""
        for actor in self._actors:
            ray.kill(actor)
