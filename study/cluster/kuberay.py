"""Manifests for the KubeRay operator (API ``ray.io/v1``, KubeRay 1.5 and newer for token authentication)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from study.cluster.shape import CREDENTIALS, ClusterShape
from study.cluster.text import yaml_text

CLUSTER_FILE, JOB_FILE, STORAGE_FILE = "raycluster.yaml", "rayjob.yaml", "storage.yaml"
_VOLUME = "home"
_HEAD_CPUS, _HEAD_MEMORY = 2, 8
_GROUP = 1000


def render(shape: ClusterShape) -> dict[str, str]:
    """File name to text: a ``RayCluster`` that stays, a ``RayJob`` that runs one study on a cluster of its own, and
    the claim on the shared volume both mount.

    The head is a small pod of its own that trains nothing, so that an evicted GPU node never takes the driver along.

    Raises:
        ConfigError: no image.
    """
    spec = _cluster_spec(shape)
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": shape.name}, "spec": spec}
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": f"{shape.name}-run"},
        "spec": {
            "entrypoint": shape.run_command,
            "submissionMode": "K8sJobMode",
            # A study takes up where it was, so a lost head costs no finished trial.
            "backoffLimit": 2,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": spec,
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{shape.name}-home"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}},
    }
    secret = f"kubectl create secret generic {CREDENTIALS} --from-env-file=FILE"
    return {
        STORAGE_FILE: yaml_text(
            claim, about=("The home of all state; every pod mounts it. Set a storageClassName that can be shared.",)
        ),
        CLUSTER_FILE: yaml_text(
            cluster,
            about=(
                f"A cluster that stays. Credentials, optional: {secret}",
                f"Dashboard and jobs: kubectl port-forward service/{shape.name}-head-svc 8265:8265",
            ),
        ),
        JOB_FILE: yaml_text(
            job, about=("One study on a cluster of its own, which ends with it.", f"Credentials, optional: {secret}")
        ),
    }


def _cluster_spec(shape: ClusterShape) -> dict[str, Any]:
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": 300},
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            # The operator and the job's pod reach the dashboard through the head's service, inside the cluster only;
            # both carry the token.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": _pod(shape, "ray-head", _HEAD_CPUS, _HEAD_MEMORY, gpus=0, head=True),
        },
        "workerGroupSpecs": [
            {
                "groupName": "trainers",
                # Pending trials are pending resources: the autoscaler adds pods for them and ends idle ones.
                "replicas": 0,
                "minReplicas": 0,
                "maxReplicas": shape.nodes,
                "rayStartParams": {"num-cpus": str(shape.cpus_per_node), "num-gpus": str(shape.gpus_per_node)},
                "template": _pod(
                    shape,
                    "ray-worker",
                    shape.cpus_per_node,
                    shape.memory_per_node,
                    gpus=shape.gpus_per_node,
                    head=False,
                ),
            }
        ],
    }


def _pod(shape: ClusterShape, name: str, cpus: int, memory: int, *, gpus: int, head: bool) -> dict[str, Any]:
    amounts: dict[str, str] = {"cpu": str(cpus), "memory": f"{memory}Gi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    # KubeRay sets the token and its mode itself.
    variables = {key: value for key, value in shape.environment.items() if not key.startswith("RAY_AUTH")}
    container: dict[str, Any] = {
        "name": name,
        "image": shape.need_image("KubeRay"),
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "envFrom": [{"secretRef": {"name": CREDENTIALS, "optional": True}}],
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [{"name": _VOLUME, "mountPath": shape.home}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if head:
        container["ports"] = [
            {"containerPort": 6379, "name": "gcs-server"},
            {"containerPort": 8265, "name": "dashboard"},
        ]
    return {
        "spec": {
            "containers": [container],
            # The image's unprivileged user writes into the volume.
            "securityContext": {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"},
            "volumes": [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": f"{shape.name}-home"}}],
            "terminationGracePeriodSeconds": shape.notice_seconds,
        }
    }
