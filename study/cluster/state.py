"""What a cluster is doing: nodes, CPUs and GPUs taken, trials, jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from study.cluster.jobs import Job, JobClient
from study.progress import duration

TRIAL_ACTORS = {"TrialTrainable", "ResourceTrainable"}
"""Names of the classes whose actors train: our own, and what ``tune.with_resources`` makes of it."""
_MESSAGE = 120
_LIMIT = 10_000


@dataclass(frozen=True)
class Amount:
    """Of a resource, taken and there."""

    used: float
    total: float

    def __str__(self) -> str:
        return f"{self.used:g} of {self.total:g}"


@dataclass(frozen=True)
class NodeState:
    """A node. ``trials`` counts the trial workers on it; reused ones may be between two trials."""

    id: str
    address: str
    head: bool
    cpus: Amount
    gpus: Amount
    trials: int


@dataclass(frozen=True)
class ClusterState:
    """A cluster at one moment.

    Attributes:
        address: as it was asked.
        nodes: the alive ones, the head first.
        dead: nodes that have left or were lost since the head started.
        cpus: of all nodes.
        gpus: of all nodes.
        trials: trial workers alive.
        pending: trial workers that wait for a free node, or for the autoscaler to start one.
        jobs: submitted ones, the newest first.
    """

    address: str
    nodes: list[NodeState]
    dead: int
    cpus: Amount
    gpus: Amount
    trials: int
    pending: int
    jobs: list[Job]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """Totals, a line per node, a line per job."""
        console.print(
            f"{self.address}: {len(self.nodes)} nodes{f' ({self.dead} gone)' if self.dead else ''}, CPUs {self.cpus}, "
            f"GPUs {self.gpus}, trial workers {self.trials} running and {self.pending} waiting",
            highlight=False,
            soft_wrap=True,
        )
        nodes = Table(title="nodes", title_justify="left")
        for name in ("node", "CPUs taken", "GPUs taken", "trial workers"):
            nodes.add_column(name, justify="left" if name == "node" else "right")
        for node in self.nodes:
            label = f"{node.address} {node.id[:8]}{' (head)' if node.head else ''}"
            nodes.add_row(label, str(node.cpus), str(node.gpus), str(node.trials))
        console.print(nodes)
        if self.jobs:
            print_jobs(self.jobs, console)


def print_jobs(jobs: list[Job], console: Console) -> None:
    """A line per job."""
    table = Table(title="jobs", title_justify="left")
    for name in ("job", "study", "state", "time", "message"):
        table.add_column(name, justify="right" if name == "time" else "left")
    for job in jobs:
        seconds = job.ended - job.started if job.started and job.ended else None
        # Ray appends the end of a failed job's output; `logs` has it whole.
        message = job.message if len(job.message) <= _MESSAGE else job.message[: _MESSAGE - 3] + "..."
        table.add_row(job.id, job.study, job.state, duration(seconds) if seconds is not None else "", message)
    console.print(table)


def cluster_state(client: JobClient) -> ClusterState:
    """Ask the head.

    Raises:
        ClusterError: it does not answer.
    """
    found = _rows(client.get(f"/api/v0/nodes?detail=1&limit={_LIMIT}"))
    actors = [
        actor
        for actor in _rows(client.get(f"/api/v0/actors?limit={_LIMIT}"))
        if str(actor["class_name"]).rpartition(".")[2] in TRIAL_ACTORS
    ]
    running = Counter(actor["node_id"] for actor in actors if actor["state"] == "ALIVE")
    report = (client.get("/api/cluster_status").get("clusterStatus") or {}).get("loadMetricsReport") or {}
    usage = report.get("usageByNode") or {}
    alive = [node for node in found if node["state"] == "ALIVE"]
    nodes = [
        NodeState(
            id=node["node_id"],
            address=node["node_ip"],
            head=bool(node["is_head_node"]),
            cpus=_amount(node, usage, "CPU"),
            gpus=_amount(node, usage, "GPU"),
            trials=running[node["node_id"]],
        )
        for node in alive
    ]
    return ClusterState(
        address=client.address,
        nodes=sorted(nodes, key=lambda node: (not node.head, node.address, node.id)),
        dead=len(found) - len(alive),
        cpus=_sum([node.cpus for node in nodes]),
        gpus=_sum([node.gpus for node in nodes]),
        trials=running.total(),
        pending=sum(actor["state"] in {"PENDING_CREATION", "DEPENDENCIES_UNREADY"} for actor in actors),
        jobs=client.jobs(),
    )


def _rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (data.get("result") or {}).get("result") or []
    return rows


def _amount(node: Mapping[str, Any], usage: Mapping[str, Any], resource: str) -> Amount:
    total = float((node.get("resources_total") or {}).get(resource, 0.0))
    used = float(((usage.get(node["node_id"]) or {}).get(resource) or [0.0])[0])
    return Amount(used, total)


def _sum(amounts: list[Amount]) -> Amount:
    return Amount(sum(amount.used for amount in amounts), sum(amount.total for amount in amounts))
