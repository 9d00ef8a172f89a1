from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainables.models import torchvision_shim

ROOT = Path(__file__).parents[3]

FRESH = """
import sys
from concurrent.futures import ThreadPoolExecutor

from trainables.models import ModelConfig, check
from trainables.models.torchvision_shim import ensure_importable

check(ModelConfig.parse({"backbone": "vit_large"}), (448, 576))
assert not {"timm", "torchvision"} & set(sys.modules), "a config was checked, and timm imported"
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: ensure_importable(), range(32)))
import timm
import torch
import torchvision
ensure_importable()
assert "Tensor scores, float iou_threshold) -> Tensor" in str(torch.ops.torchvision.nms.default._schema)
print(torchvision.__version__, timm.create_model("test_vit", num_classes=0)(torch.zeros(1, 3, 160, 160)).shape[1])
"""


def test_timm_imports_in_a_fresh_process_and_only_when_needed() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "64"


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process beside a CPU torch that has not met torchvision, and what the shim declares in it."""
    calls: list[str] = []
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_shim, "_extension_loads", lambda: False)
    monkeypatch.setattr(torchvision_shim, "_declare", lambda: calls.append("declared"))
    return calls


def test_declares_where_the_extension_does_not_load(declared: list[str]) -> None:
    torchvision_shim.ensure_importable()
    assert declared == ["declared"]


def test_nothing_is_done_beside_a_cuda_torch(declared: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    torchvision_shim.ensure_importable()
    assert declared == []


def test_nothing_is_done_once_torchvision_is_there(declared: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", torch)
    torchvision_shim.ensure_importable()
    assert declared == []


def test_nothing_is_done_where_the_extension_loads(declared: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_shim, "_extension_loads", lambda: True)
    torchvision_shim.ensure_importable()
    assert declared == []


def test_timm_is_imported_by_one_module_only() -> None:
    users = [
        path.relative_to(ROOT).as_posix()
        for package in ("trainables", "study", "search_spaces", "analysis")
        for path in (ROOT / package).rglob("*.py")
        if any(
            line.split()[:2] in (["import", "timm"], ["from", "timm"]) or line.lstrip().startswith("from timm.")
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert users == ["trainables/models/backbones.py"]
