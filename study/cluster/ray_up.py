"""The configuration that ``ray up`` takes."""

from __future__ import annotations

from typing import Any

from study.cluster.shape import CREDENTIALS, RAY_PORT, ClusterShape
from study.cluster.text import yaml_text
from trainables.errors import ConfigError

FILE = "ray-cluster.yaml"
_CREDENTIALS_FILE = f"~/{CREDENTIALS}"
_TOKEN_FILE = "~/.ray/auth_token"
_HEAD, _WORKER = "head", "worker"


def render(shape: ClusterShape) -> dict[str, str]:
    """File name to text: for the machines of ``shape.hosts``, or else on AWS.

    The token and the credentials are files of the launching machine that Ray copies to the nodes.

    Raises:
        ConfigError: neither hosts nor an instance type, both, or not as many hosts as nodes.
    """
    if bool(shape.hosts) == bool(shape.instance_type):
        raise ConfigError(
            "ray up needs either --host for every machine there is, the head's first, or --instance-type for AWS"
        )
    if shape.hosts and len(shape.hosts) != shape.nodes:
        raise ConfigError(f"--nodes {shape.nodes}: --host is given {len(shape.hosts)} times")
    if len(set(shape.hosts)) != len(shape.hosts):
        raise ConfigError("--host: the same machine is given twice")
    config: dict[str, Any] = {
        "cluster_name": shape.name,
        "max_workers": shape.nodes - 1,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        **(_own_machines(shape) if shape.hosts else _aws(shape)),
        "file_mounts": {_TOKEN_FILE: _TOKEN_FILE, _CREDENTIALS_FILE: _CREDENTIALS_FILE},
        "cluster_synced_files": [],
        "head_start_ray_commands": ["ray stop", _start(shape, head=True)],
        "worker_start_ray_commands": ["ray stop", _start(shape, head=False)],
    }
    if shape.image:
        config["docker"] = {
            "image": shape.image,
            "container_name": shape.name,
            "pull_before_run": True,
            "run_options": ["--ulimit nofile=65536:65536", f"--volume {shape.home}:{shape.home}"],
        }
    about = (
        f"Start: ray up {FILE}. End: ray down {FILE}. Dashboard and jobs, on port 8265 here: ray dashboard {FILE}",
        f"Here, before: {_TOKEN_FILE} with the cluster's token (ray get-auth-token --generate) and {_CREDENTIALS_FILE}",
        "with credentials as NAME=VALUE lines (it may be empty); both of mode 0600. They are copied to the nodes.",
        f"On every node, before: {shape.home} mounted from shared storage.",
    )
    return {FILE: yaml_text(config, about=about)}


def _own_machines(shape: ClusterShape) -> dict[str, Any]:
    return {
        "provider": {"type": "local", "head_ip": shape.hosts[0], "worker_ips": list(shape.hosts[1:])},
        "auth": {"ssh_user": shape.ssh_user},
        # Machines that are there are there: all of them are used from the start.
        "min_workers": shape.nodes - 1,
    }


def _aws(shape: ClusterShape) -> dict[str, Any]:
    resources = {"CPU": shape.cpus_per_node}
    if shape.gpus_per_node:
        resources["GPU"] = shape.gpus_per_node
    node = {"InstanceType": shape.instance_type}
    spot = {**node, "InstanceMarketOptions": {"MarketType": "spot"}}
    workers = shape.nodes - 1
    return {
        "provider": {"type": "aws", "region": shape.region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": shape.ssh_user},
        "head_node_type": _HEAD,
        "available_node_types": {
            _HEAD: {"resources": resources, "node_config": node, "min_workers": 0, "max_workers": 0},
            # Pending trials are pending resources: the autoscaler adds workers for them and ends idle ones.
            _WORKER: {"resources": resources, "node_config": spot, "min_workers": 0, "max_workers": workers},
        },
        "head_setup_commands": ["python -c 'import boto3' || pip install 'boto3>=1.34,<2'"],
    }


def _start(shape: ClusterShape, *, head: bool) -> str:
    exports = " ".join(f"{name}={value}" for name, value in shape.environment.items())
    words = [f"export {exports}; set -a; . {_CREDENTIALS_FILE}; set +a; ulimit -n 65536; ray start"]
    if head:
        words += ["--head", f"--port={RAY_PORT}", "--autoscaling-config=~/ray_bootstrap_config.yaml"]
        words += ["--dashboard-host=127.0.0.1"]
    else:
        words += [f"--address=$RAY_HEAD_IP:{RAY_PORT}"]
    words += [f"--num-cpus={shape.cpus_per_node}", f"--num-gpus={shape.gpus_per_node}", "--disable-usage-stats"]
    return " ".join(words)
