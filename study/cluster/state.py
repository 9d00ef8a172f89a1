"""What a cluster is doing: nodes, CPUs and GPUs taken, trials, jobs."""

from __future__ import annotations

import math
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
    """A node.

    Attributes:
        id: of Ray.
        address: its IP.
        head: whether it is the head.
        cpus: that are taken of those it has.
        gpus: likewise.
        trials: trial workers on it; reused ones may be between two trials.
        gpu_trials: of them, those that hold a GPU, or a share of one.
        cpu_percent: how busy its processors are, 0 to 100; ``None`` where it does not tell yet.
        gpu_percent: how busy its GPUs are, likewise, mean over them; ``None`` where none tells.
    """

    id: str
    address: str
    head: bool
    cpus: Amount
    gpus: Amount
    trials: int
    gpu_trials: int = 0
    cpu_percent: float | None = None
    gpu_percent: float | None = None

    @property
    def trials_per_gpu(self) -> float | None:
        """On each GPU that is taken, mean over them; ``None`` where none is."""
        taken = math.ceil(self.gpus.used)
        return self.gpu_trials / taken if taken else None


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
        prometheus: URL at which Prometheus learns where the nodes' metrics are (``http_sd_configs``).
    """

    address: str
    nodes: list[NodeState]
    dead: int
    cpus: Amount
    gpus: Amount
    trials: int
    pending: int
    jobs: list[Job]
    prometheus: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        plain = asdict(self)
        for node, state in zip(plain["nodes"], self.nodes, strict=True):
            node["trials_per_gpu"] = state.trials_per_gpu
        return plain

    def print(self, console: Console) -> None:
        """Totals, a line per node, a line per job, and where there is more to see."""
        console.print(
            f"{self.address}: {len(self.nodes)} nodes{f' ({self.dead} gone)' if self.dead else ''}, CPUs {self.cpus}, "
            f"GPUs {self.gpus}, trial workers {self.trials} running and {self.pending} waiting",
            highlight=False,
            soft_wrap=True,
        )
        nodes = Table(title="nodes", title_justify="left")
        for name in ("node", "CPUs taken", "busy", "GPUs taken", "GPUs busy", "trial workers", "per GPU"):
            nodes.add_column(name, justify="left" if name == "node" else "right")
        for node in self.nodes:
            label = f"{node.address} {node.id[:8]}{' (head)' if node.head else ''}"
            nodes.add_row(
                label,
                str(node.cpus),
                _percent(node.cpu_percent),
                str(node.gpus),
                _percent(node.gpu_percent),
                str(node.trials),
                "" if node.trials_per_gpu is None else f"{node.trials_per_gpu:.3g}",
            )
        console.print(nodes)
        if self.jobs:
            print_jobs(self.jobs, console)
        console.print(f"Ray dashboard: {self.address}", highlight=False, soft_wrap=True)
        if self.prometheus:
            console.print(f"Prometheus:    {self.prometheus} (http_sd_configs)", highlight=False, soft_wrap=True)


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
        for actor in _rows(client.get(f"/api/v0/actors?detail=1&limit={_LIMIT}"))
        if str(actor["class_name"]).rpartition(".")[2] in TRIAL_ACTORS
    ]
    there = [actor for actor in actors if actor["state"] == "ALIVE"]
    running = Counter(actor["node_id"] for actor in there)
    on_gpus = Counter(actor["node_id"] for actor in there if _holds_gpu(actor))
    busy = {row["raylet"]["nodeId"]: row for row in _summary(client) if "nodeId" in (row.get("raylet") or {})}
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
            gpu_trials=on_gpus[node["node_id"]],
            cpu_percent=busy.get(node["node_id"], {}).get("cpu"),
            gpu_percent=_gpus_busy(busy.get(node["node_id"], {})),
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
        prometheus=f"{client.address}/api/prometheus/sd",
    )


def _summary(client: JobClient) -> list[dict[str, Any]]:
    """What the nodes' agents measure; empty until they have."""
    rows: list[dict[str, Any]] = client.get("/nodes?view=summary").get("summary") or []
    return rows


def _holds_gpu(actor: Mapping[str, Any]) -> bool:
    # In a placement group the resource has the group's id behind its name.
    held = actor.get("required_resources") or {}
    return any(amount > 0 for name, amount in held.items() if name == "GPU" or name.startswith("GPU_group_"))


def _gpus_busy(row: Mapping[str, Any]) -> float | None:
    told = [gpu["utilizationGpu"] for gpu in row.get("gpus") or [] if gpu.get("utilizationGpu") is not None]
    return sum(told) / len(told) if told else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


def _rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (data.get("result") or {}).get("result") or []
    return rows


def _amount(node: Mapping[str, Any], usage: Mapping[str, Any], resource: str) -> Amount:
    total = float((node.get("resources_total") or {}).get(resource, 0.0))
    used = float(((usage.get(node["node_id"]) or {}).get(resource) or [0.0])[0])
    return Amount(used, total)


def _sum(amounts: list[Amount]) -> Amount:
    return Amount(sum(amount.used for amount in amounts), sum(amount.total for amount in amounts))
