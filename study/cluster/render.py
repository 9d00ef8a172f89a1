"""Files that launch a cluster, for each launcher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from study.cluster import kuberay, ray_up, slurm
from study.cluster.shape import ClusterShape
from trainables.errors import ConfigError, StoreError, unknown

LAUNCHERS: dict[str, Callable[[ClusterShape], dict[str, str]]] = {
    "ray": ray_up.render,
    "kuberay": kuberay.render,
    "slurm": slurm.render,
}


def render(launcher: str, shape: ClusterShape) -> dict[str, str]:
    """File name to text; raises :class:`ConfigError` for another launcher or a shape it cannot launch."""
    if launcher not in LAUNCHERS:
        raise ConfigError(unknown("launcher", launcher, LAUNCHERS))
    return LAUNCHERS[launcher](shape)


def write(files: dict[str, str], out: Path) -> list[Path]:
    """Write them into ``out``, which is made; raises :class:`StoreError` where it cannot be written."""
    paths = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = out / name
            path.write_text(text, encoding="utf-8")
            paths.append(path)
    except OSError as error:
        raise StoreError(f"--out {out}: cannot be written: {error.strerror}") from None
    return paths
