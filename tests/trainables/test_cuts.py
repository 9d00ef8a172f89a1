"""Graphs in pieces: what is passed back through them is what autograd passes back through the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.contestants import contestants
from benchmarks.workbench import Setting, memory_of
from trainables.config import data_set_of, load_trial, trial_key
from trainables.cuts import CutGraph, cut_after
from trainables.errors import ConfigError
from trainables.models import BACKBONES
from trainables.models.backbones import backbone_spec
from trainables.trainer import Trainer


class Skips(nn.Module):
    """Three stages; the output reads the first one's result, too."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x).tanh()
        second = self.two(first).tanh()
        return torch.cat([self.three(second), first], dim=-1)


def passed(
    module: nn.Module, stages: Sequence[nn.Module], x: Tensor, at: Sequence[Tensor]
) -> list[list[Tensor | None]]:
    """By row, the gradient of every parameter, by way of cuts."""
    parameters = list(module.parameters())
    with cut_after(stages) as cuts:
        output = module(x)
    graph = CutGraph(output, cuts, parameters)
    rows: list[list[Tensor | None]] = [[None] * len(parameters) for _ in at]
    for again in (True, False):
        for segment, passes in graph.back(at, again=again):
            for row, found in zip(rows, passes, strict=True):
                for place, gradient in zip(segment.parameters, found, strict=True):
                    row[place] = gradient
    assert len(graph.segments) == len(cuts) + 1
    return rows


@pytest.mark.parametrize("names", [(), ("one",), ("one", "two"), ("one", "three"), ("one", "two", "three")])
def test_any_cuts_give_the_gradients_of_the_whole_graph(names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    module, x, at = Skips(), torch.randn(3, 4), list(torch.randn(5, 3, 8))
    found = passed(module, [getattr(module, name) for name in names], x, at)
    for row, given in zip(found, at, strict=True):
        wanted = torch.autograd.grad(module(x), list(module.parameters()), given)
        for one, other in zip(row, wanted, strict=True):
            assert one is not None
            torch.testing.assert_close(one, other)


def test_a_cut_at_the_output_itself() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(3, 4)
    at = list(torch.randn(2, 3, 4))
    for row, given in zip(passed(module, [module[1]], x, at), at, strict=True):
        torch.testing.assert_close(row, list(torch.autograd.grad(module(x), list(module.parameters()), given)))


def test_a_parameter_on_both_sides_of_a_cut_is_refused() -> None:
    layer = nn.Linear(3, 3, bias=False)
    module = nn.Sequential(layer, nn.Tanh(), layer)
    with cut_after([module[1]]) as cuts:
        output = module(torch.randn(2, 3))
    with pytest.raises(ConfigError, match=r"^method\.rows: .* one of shape \(3, 3\) is part of two \(allowed: kept\)$"):
        CutGraph(output, cuts, list(layer.parameters()))


def test_a_cut_that_is_gone_round_is_refused() -> None:
    module = Skips()
    with pytest.raises(ConfigError, match=r"^method\.rows: "):
        passed(module, [module.two], torch.randn(2, 4), [torch.randn(2, 8)])


def test_nothing_is_cut_without_a_graph_or_afterwards() -> None:
    module, x = Skips(), torch.randn(2, 4)
    with cut_after([module.one]) as cuts, torch.no_grad():
        module(x)
    assert not cuts
    module(x)
    assert not cuts


IMAGES = [name for name, spec in BACKBONES.items() if spec.inputs == "images"]


@pytest.mark.parametrize("name", [*IMAGES, "timm:vit_base_patch16_clip_224", "timm:deit3_small_patch16_224"])
def test_no_stage_of_a_transformer_holds_much_of_its_parameters(name: str) -> None:
    backbone = backbone_spec(name)
    with torch.device("meta"):
        trunk = backbone.build((32, 32), 0.0)
        with cut_after(backbone.stages(trunk)) as cuts:
            features = backbone.features(trunk, torch.empty(1, 3, 32, 32), (32, 32))
    parameters = list(trunk.parameters())
    segments = CutGraph(features, cuts, parameters).segments
    assert sorted(place for segment in segments for place in segment.parameters) == list(range(len(parameters)))
    sizes = [sum(parameters[place].numel() for place in segment.parameters) for segment in segments]
    # Twelve blocks and more, and four of the smallest.
    assert max(sizes) <= (0.25 if name == "vit_pico" else 0.11) * sum(sizes)


def trainer_of(folder: Path, method: dict[str, Any], **changes: Any) -> Trainer:
    config = load_trial(
        {
            "data": {"name": "scenes", "image_size": 32, "train": 8, "val": 2, "test": 2},
            "model": {"backbone": "vit_pico"},
            "train": {"batch_size": 4, "budget": {"amount": 4}, **changes},
            "method": method,
        }
    )
    data_set_of(config).prepare(config.data, folder)
    return Trainer(config, folder)


@pytest.mark.parametrize("changes", [{}, {"kernels": "onednn"}, {"precision": "bf16"}], ids=str)
@pytest.mark.parametrize("name", ["mgda", "nash_mtl", "pcgrad"])
def test_a_trainer_writes_the_gradient_of_kept_rows(tmp_path: Path, name: str, changes: dict[str, str]) -> None:
    written = []
    for rows in ("kept", "streamed"):
        trainer = trainer_of(tmp_path, {"name": name, "rows": rows}, **changes)
        trainer.advance(iterations=1)
        assert trainer.update.cuts == ()
        written.append(torch.cat([p.grad.flatten() for p in trainer.update.shared if p.grad is not None]))
    apart = float((written[0] - written[1]).norm() / written[0].norm())
    # Weights amplify what rounding does to the Gramian, which in bfloat16 the forward's is part of.
    assert apart < (3e-2 if changes.get("precision") == "bf16" else 1e-4)


def test_a_trial_with_streamed_rows_resumes_bit_for_bit(tmp_path: Path) -> None:
    method = {"name": "nash_mtl", "rows": "streamed", "update_weights_every": 2}
    whole = trainer_of(tmp_path, method)
    whole.advance(iterations=3)
    first = trainer_of(tmp_path, method)
    first.advance(iterations=1)
    second = trainer_of(tmp_path, method)
    second.load_state_dict(first.state_dict())
    second.advance(iterations=2)
    assert second.iteration == whole.iteration
    for ours, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_streamed_rows_are_another_trial_and_do_not_go_with_a_compiled_trunk() -> None:
    kept, streamed = (load_trial({"method": {"name": "mgda", "rows": rows}}) for rows in ("kept", "streamed"))
    assert trial_key(load_trial({"method": "mgda"})) == trial_key(kept) != trial_key(streamed)
    with pytest.raises(ConfigError, match=r"^train\.compile: a compiled trunk is passed back whole"):
        load_trial({"method": {"name": "mgda", "rows": "streamed"}, "train": {"compile": True}})


def test_streamed_rows_hold_a_fraction_of_the_memory(tmp_path: Path) -> None:
    setting = Setting("nyud", "vit_tiny", 32, 2, "cpu")
    by_name = {who.label: who for who in contestants(4, ["mgda"], comparisons=False)}
    row = sum(p.numel() * 4 for p in trainer_of_setting(setting, tmp_path).update.shared)
    gd, kept = (memory_of(setting, tmp_path, by_name[name].make).peak for name in ("gd", "mgda"))
    cut = Setting("nyud", "vit_tiny", 32, 2, "cpu", cut=True)
    streamed = memory_of(cut, tmp_path, by_name["mgda, streamed rows"].make).peak
    assert kept - gd == pytest.approx(4 * row, rel=0.05)
    # Four gradients of the largest of thirteen stages, and four of features of two small images.
    assert streamed - gd < 0.15 * 4 * row


def trainer_of_setting(setting: Setting, folder: Path) -> Trainer:
    config = load_trial(setting.config())
    data_set_of(config).prepare(config.data, folder)
    return Trainer(config, folder)
