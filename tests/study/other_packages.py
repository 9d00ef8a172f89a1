"""Packages beside mtl-study, installed into a folder of their own, and commands run with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(site: Path, *projects: Path) -> None:
    """As ``pip install`` would, into ``site``; nothing is fetched."""
    how = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run = [sys.executable, "-m", "pip", "install", *how, "--target", str(site), *map(str, projects)]
    subprocess.run(run, check=True, capture_output=True, text=True, timeout=240)


def python(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS`` where the packages in ``site`` and this checkout are on the path."""
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "MTL_STUDY_HOME": str(cwd / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    run = [sys.executable, *arguments]
    return subprocess.run(run, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False)
