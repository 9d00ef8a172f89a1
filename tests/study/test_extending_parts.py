"""Task sets, clusterers and backbones under the contracts that other packages inherit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from study.testing import BackboneContract, ClustererContract, TaskSetContract
from trainables.methods.selective import CLUSTERERS, Clusterer, ClustererConfig, Groups
from trainables.registry import Registry


class TestTaskonomy(TaskSetContract):
    name = "taskonomy"


class TestPascalContext(TaskSetContract):
    name = "pascal_context"


class TestPositiveAffinity(ClustererContract):
    name = "positive_affinity"
    forms = ({}, {"linkage": "minimum"})


class TestAffinityPropagation(ClustererContract):
    name = "affinity_propagation"


class TestVitPico(BackboneContract):
    name = "vit_pico"
    shape = (32, 48)
    wrong = (32, 44)


class TestMpnnSmall(BackboneContract):
    name = "mpnn_small"
    shape = (9, 8)

    def inputs(self, count: int) -> Tensor:
        """(B, 9, 8): molecules of five atoms, padded."""
        generator = torch.Generator().manual_seed(count)
        kinds = torch.nn.functional.one_hot(torch.randint(5, (count, 5), generator=generator), 5)
        out = torch.zeros(count, *self.shape)
        out[:, :5, :5] = kinds.float()
        out[:, :5, 5:] = 2 * torch.randn(count, 5, 3, generator=generator)
        return out


class Careless(Clusterer):
    """Forgets a task, or changes the map it is given."""

    Config = ClustererConfig
    changes = False

    def __call__(self, affinity: Tensor) -> Groups | None:
        if self.changes:
            affinity += 1
        return tuple((index,) for index in range(len(affinity) - (not self.changes)))


@pytest.mark.parametrize("changes", [True, False])
def test_the_contract_catches_a_careless_clusterer(changes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[type[Clusterer]] = Registry("clusterer")
    registry.register("careless", Careless)
    monkeypatch.setattr("study.testing.parts.CLUSTERERS", registry)
    monkeypatch.setattr(Careless, "changes", changes)
    contract = ClustererContract()
    monkeypatch.setattr(ClustererContract, "name", "careless", raising=False)
    with pytest.raises(AssertionError):
        contract.test_groups_cover_every_task_once({}, 3)


def test_every_registered_clusterer_is_tested() -> None:
    assert set(CLUSTERERS) == {TestPositiveAffinity.name, TestAffinityPropagation.name}


def test_without_pytest_the_contracts_say_what_to_install() -> None:
    code = "import sys; sys.modules['pytest'] = None; import study.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: study.testing is made of pytest's tests; install it: pip install 'pytest>=8.0'"
