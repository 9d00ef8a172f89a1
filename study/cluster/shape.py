"""What a launcher needs to know about a cluster."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from trainables.errors import ConfigError

RAY_PORT = 6379
CREDENTIALS = "mtl-study-env"
"""Name of the file or secret that holds credentials as ``NAME=VALUE`` lines. Nothing that is written here holds one."""

NODE_ENVIRONMENT = {
    # The cluster's token is wanted of whoever joins; Ray's own default differs between its entry points.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A trial that asked for no GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Nothing is downloaded at run time.
    "HF_HUB_OFFLINE": "1",
}
"""Of every Ray node, and so of its workers."""

DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
"""Ray's name for the time between SIGTERM to ``ray start --block`` and the end of the node's workers."""
_ENDING_SECONDS = 20

_NAME = re.compile(r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")
_IMAGE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")
_PATH = re.compile(r"^/[A-Za-z0-9._/+-]*$")
_WORD = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


@dataclass(frozen=True)
class ClusterShape:
    """A cluster to be launched; all its nodes are alike.

    Attributes:
        nodes: machines that train.
        cpus_per_node: cores of each.
        gpus_per_node: GPUs of each; 0 for a CPU cluster.
        memory_per_node: GiB of each.
        image: container image; empty for none, where the launcher can do without.
        name: of the cluster: lower-case letters, digits and hyphens.
        home: folder of all state, on a file system that every node mounts.
        study: what the launched job runs.
        run_options: of ``mtl-study run``.
        hosts: for ``ray up`` on machines that are there: their addresses, the head's first.
        instance_type: for ``ray up`` on AWS.
        region: for ``ray up`` on AWS.
        ssh_user: for ``ray up``.
        hours: for Slurm, the job's time limit.
        notice_seconds: time between SIGTERM and the end of a node.

    Raises:
        ConfigError: a value that is not allowed, or could not be written into a shell script or manifest as it is.
    """

    nodes: int
    cpus_per_node: int
    gpus_per_node: int = 0
    memory_per_node: int = 16
    image: str = ""
    name: str = "mtl-study"
    home: str = "/mnt/mtl-study"
    study: str = "table4_d5"
    run_options: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    instance_type: str = ""
    region: str = "us-east-1"
    ssh_user: str = "ubuntu"
    hours: int = 24
    notice_seconds: int = 120

    def __post_init__(self) -> None:
        for name, least in (
            ("nodes", 1),
            ("cpus_per_node", 1),
            ("gpus_per_node", 0),
            ("memory_per_node", 1),
            ("hours", 1),
            ("notice_seconds", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{_option(name)} {getattr(self, name)}: at least {least} is wanted")
        checks = [
            ("name", self.name, _NAME, "lower-case letters, digits and hyphens, at most 40, starting with a letter"),
            ("home", self.home, _PATH, "an absolute path of letters, digits and . _ / + -"),
            ("region", self.region, _WORD, "a name of letters, digits and . _ -"),
            ("ssh_user", self.ssh_user, _WORD, "a name of letters, digits and . _ -"),
            *(("host", host, _WORD, "an address or host name") for host in self.hosts),
        ]
        if self.image:
            checks.append(("image", self.image, _IMAGE, "an image name like registry/mtl-study:0.1.0"))
        if self.instance_type:
            checks.append(("instance_type", self.instance_type, _WORD, "a name like g5.12xlarge"))
        for name, value, pattern, wanted in checks:
            if not pattern.match(value):
                raise ConfigError(f"{_option(name)} {value!r}: {wanted} is wanted")

    @property
    def environment(self) -> dict[str, str]:
        """Of every Ray node. A node that is told to end takes no new trials and lets the running ones leave their next
        checkpoint."""
        return {**NODE_ENVIRONMENT, DRAIN: str(max(self.notice_seconds - _ENDING_SECONDS, 0))}

    @property
    def options(self) -> tuple[str, ...]:
        """Of ``mtl-study run``: what was given, and a trial for every GPU (without any: every core) of the full
        cluster, however few nodes it has when the study starts."""
        if any(word.partition("=")[0] == "--workers" for word in self.run_options):
            return self.run_options
        return (*self.run_options, "--workers", str(self.nodes * (self.gpus_per_node or self.cpus_per_node)))

    @property
    def run_words(self) -> tuple[str, ...]:
        """The command that runs the study on the cluster it is started in."""
        return ("mtl-study", "run", self.study, *self.options, "--home", self.home, "--cluster", "auto")

    @property
    def run_command(self) -> str:
        """The same as one shell line."""
        return shlex.join(self.run_words)

    def need_image(self, launcher: str) -> str:
        """The image; raises :class:`ConfigError` where none was given."""
        if not self.image:
            raise ConfigError(
                f"--image: {launcher} starts containers and needs one; see docs/cluster.md for the recipe"
            )
        return self.image


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
