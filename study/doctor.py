"""What this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement

from study import environment
from study.home import Home
from study.tracking import open_client
from trainables.data import DATA_SETS
from trainables.errors import StoreError, UserError, WeightsError
from trainables.kernels import fastest
from trainables.models import BACKBONES
from trainables.models.config import ModelConfig
from trainables.models.weights import weights_fingerprint

_ENOUGH_DISK = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what.
        level: ``ok``; ``note`` for what not everyone needs; ``missing`` for what stops a run.
        found: what there is.
        fix: how to get what is missing.
    """

    name: str
    level: Literal["ok", "note", "missing"]
    found: str
    fix: str = ""

    @property
    def mark(self) -> str:
        """One word for a person."""
        return {"ok": "ok", "note": "note", "missing": "MISSING"}[self.level]

    def to_dict(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


def examine(home: Home) -> list[Finding]:
    """Look at everything."""
    return [*_packages(), *_devices(), _ray(), *_home(home), *_data(), *_weights()]


def _packages() -> Iterator[Finding]:
    right = sys.version_info >= (3, 11)
    yield Finding(
        "python", "ok" if right else "missing", sys.version.split()[0], "" if right else "Python 3.11 or newer"
    )
    try:
        wanted = [Requirement(text) for text in requires("mtl-study") or ()]
    except PackageNotFoundError:
        yield Finding("mtl-study", "missing", "not installed", "pip install -c constraints.txt -e . in its folder")
        return
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "missing", "not installed", f"pip install '{requirement}'")
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        yield Finding(
            requirement.name, "ok" if fits else "missing", installed, "" if fits else f"pip install '{requirement}'"
        )


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    yield Finding(
        "cpu", "ok", f"{cores} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    )
    if fastest() != "torch":
        yield Finding(
            "cpu kernels",
            "note",
            f"this processor multiplies faster by {fastest()} than by torch's own BLAS",
            f"in a new study: --set train.kernels={fastest()} (other last bits, so other trials)",
        )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    elif torch.version.cuda:
        yield Finding(
            "cuda", "note", "torch is a CUDA build, no device is visible", "check the driver and CUDA_VISIBLE_DEVICES"
        )
    else:
        yield Finding("cuda", "note", "torch is a CPU build", "profiles gpu and paper want a CUDA build of torch 2.13")


def _ray() -> Finding:
    environment.quiet()
    try:
        import ray
        from ray import tune
    except ImportError as error:
        return Finding("ray tune", "missing", str(error), "pip install 'ray[tune]', or run with --executor local")
    return Finding("ray tune", "ok", f"{ray.__version__}, trainable API at {tune.Trainable.__module__}")


def _home(home: Home) -> Iterator[Finding]:
    try:
        home.require()
        free = shutil.disk_usage(home.path).free
    except StoreError as error:
        yield Finding("home", "missing", str(error), "")
        return
    enough = free >= _ENOUGH_DISK
    yield Finding(
        "home",
        "ok" if enough else "note",
        f"{home.path}, {free / 2**30:.1f} GiB free",
        "" if enough else "a study at profile cpu needs about 0.2 GiB, at gpu several GiB",
    )
    if home.embedded and not home.database.exists():
        yield Finding("records", "note", "none yet", "mtl-study run table4_d5")
        return
    try:
        client = open_client(home)
        yield Finding("records", "ok", f"{len(client.search_experiments()) - 1} studies in {home.records}")
    except UserError as error:
        yield Finding("records", "missing", str(error), "")


def _data() -> Iterator[Finding]:
    for name in DATA_SETS:
        try:
            needs = DATA_SETS[name].needs()
        except UserError as error:  # of another package
            yield Finding(f"data: {name}", "missing", str(error))
            continue
        if needs is None:
            yield Finding(f"data: {name}", "ok", "built on first use")
        else:
            yield Finding(f"data: {name}", "note", *needs)


def _weights() -> Iterator[Finding]:
    for name, spec in BACKBONES.items():
        if spec.repo is None:
            continue
        try:
            weights_fingerprint(ModelConfig(backbone=name, pretrained=True))
        except WeightsError as error:
            yield Finding(f"weights: {name}", "note", "not in the Hugging Face cache", str(error))
        else:
            yield Finding(f"weights: {name}", "ok", "in the Hugging Face cache")
