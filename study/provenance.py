"""Where results come from: commit, versions, machine."""

from __future__ import annotations

import json
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from study import schema
from trainables.config import RESULT_VERSION

PACKAGES = (
    "mtl-study",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "optuna",
    "mlflow",
    "numpy",
    "pandas",
    "scikit-learn",
    "scikit-image",
)


def versions() -> dict[str, str]:
    """Installed versions of Python and the packages that matter; ``missing`` where one is not installed."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "missing"
    return out


@cache
def git_state() -> tuple[str, str]:
    """Commit and ``true``/``false`` for uncommitted changes, of the checkout the code runs from; ``unknown`` outside
    one."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", Path(__file__).name)
        return (
            (git("rev-parse", "HEAD"), "true" if git("status", "--porcelain", "-uno") else "false")
            if tracked
            else ("unknown",) * 2
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown", "unknown"


def tags() -> dict[str, str]:
    """As tags of a run."""
    commit, dirty = git_state()
    return {
        schema.GIT_COMMIT: commit,
        schema.GIT_DIRTY: dirty,
        schema.VERSIONS: json.dumps(versions(), sort_keys=True),
        schema.RESULT_VERSION: str(RESULT_VERSION),
    }
