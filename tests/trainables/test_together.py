"""A trial shared out over processes is the trial that one process trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_losses import DENSE, MASKED
from test_trainer import CASES, flat, points, through_a_file
from torch import Tensor, distributed, nn

from trainables import losses
from trainables.config import load_trial
from trainables.errors import ConfigError, Diverged
from trainables.presets import merge
from trainables.together import Share, Together, check_shares, join, part, whole
from trainables.trainer import Trainer

# Shares of one and of two samples; no drop path, whose draws each process makes for itself.
SHARED: dict[str, Any] = {
    "model": {"drop_path": 0.0},
    "train": {"batch_size": 3, "budget": {"amount": 4}},
    "record": {"eval_every": 2, "points": 2, "eval_batch_size": 1},
}
DROPPED = {"model": {"drop_path": 0.3}}
RESUMED = ("selective", "nash_mtl", "famo")
MOVED = 2e-3
"""Largest distance between the final parameters, as a share of how far training moved them. Adam divides gradients by
their own size, so that what is rounding in a gradient near zero is not in its step."""
MOVED_BF16 = 5e-2
"""Under bfloat16, whose rounding is 1/256."""


def make(base: dict[str, Any], root: Path, together: Together | None = None, **case: Any) -> Trainer:
    return Trainer(load_trial(merge(merge(base, SHARED), case)), root, together=together)


def result(trainer: Trainer) -> dict[str, Any]:
    arrays = trainer.history.arrays() or {}
    return {
        "flat": flat(trainer),
        "points": [list(point) for point in points(trainer)],
        "counters": dict(vars(trainer.counters)),
        "groups": [arrays["group"].tolist(), arrays["count"].tolist()] if arrays else [],
    }


def work(rank: int, folder: str, base: dict[str, Any], root: Path) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/meeting", 2)
    together = join(store, rank, 2, "cpu")
    out: dict[str, Any] = {"of": {}, "resumed": {}}
    for name, case in CASES.items():
        trainer = make(base, root, together, **case)
        trainer.advance(seconds=0.0 if rank == 0 else 1e9)
        assert trainer.iteration == 1  # The first process decides when a chunk is over.
        trainer.advance()
        out["of"][name] = result(trainer)
    for name in RESUMED:
        trainer = make(base, root, together, **CASES[name])
        trainer.load_state_dict(torch.load(f"{folder}/{name}.one.pt", weights_only=True))
        trainer.advance()
        out["resumed"][name] = result(trainer)
        trainer = make(base, root, together, **CASES[name])
        trainer.advance(iterations=2)
        state = trainer.state_dict()
        if rank == 0:
            torch.save(state, f"{folder}/{name}.two.pt")
    trainer = make(base, root, together, **DROPPED)
    trainer.advance()
    again = make(base, root, together, **DROPPED)
    again.advance(iterations=2)
    state = through_a_file(again.state_dict())
    again = make(base, root, together, **DROPPED)
    again.load_state_dict(state)
    again.advance()
    out["dropped"] = [flat(trainer), flat(again)]
    trainer = make(base, root, together)
    if rank == 1:
        with torch.no_grad():
            next(iter(trainer.network.decoders.values())).bias.fill_(float("nan"))
    try:
        trainer.evaluate("val")
    except Diverged as error:
        out["diverged"] = str(error)
    torch.save(out, f"{folder}/{rank}.pt")
    part()


@pytest.fixture(scope="module")
def shared(
    tiny: dict[str, Any], data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    """What two processes made of every case, by rank, and the folder they worked in."""
    folder = tmp_path_factory.mktemp("together")
    for name in RESUMED:
        trainer = make(tiny, data_root, **CASES[name])
        trainer.advance(iterations=2)
        torch.save(trainer.state_dict(), folder / f"{name}.one.pt")
    torch.multiprocessing.spawn(work, (str(folder), tiny, data_root), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)], folder


def same(found: dict[str, Any], expected: dict[str, Any], start: Tensor, tolerance: float = MOVED) -> None:
    moved = (expected["flat"] - start).norm()
    assert moved > 0
    assert (found["flat"] - expected["flat"]).norm() <= tolerance * moved
    assert [point[:2] for point in found["points"]] == [point[:2] for point in expected["points"]]
    for (name, step, value), (_, _, wanted) in zip(found["points"], expected["points"], strict=True):
        if not name.startswith("solver/"):
            assert value == pytest.approx(wanted, rel=tolerance, abs=1e-5, nan_ok=True), (name, step)
    assert found["counters"] == expected["counters"]
    assert found["groups"] == expected["groups"]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_where_one_does(
    case: str, shared: tuple[list[dict[str, Any]], Path], tiny: dict[str, Any], data_root: Path
) -> None:
    trainer = make(tiny, data_root, **CASES[case])
    start = flat(trainer)
    trainer.advance()
    first, second = (found["of"][case] for found in shared[0])
    assert torch.equal(first["flat"], second["flat"])
    assert np.array_equal([p[2] for p in first["points"]], [p[2] for p in second["points"]], equal_nan=True)
    same(first, result(trainer), start, MOVED_BF16 if "bf16" in case else MOVED)


@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_is_taken_up_by_another_number_of_processes(
    case: str, shared: tuple[list[dict[str, Any]], Path], tiny: dict[str, Any], data_root: Path
) -> None:
    found, folder = shared
    trainer = make(tiny, data_root, **CASES[case])
    start = flat(trainer)
    trainer.advance()
    same(found[0]["resumed"][case], result(trainer), start)
    alone = make(tiny, data_root, **CASES[case])
    alone.load_state_dict(torch.load(folder / f"{case}.two.pt", weights_only=True))
    assert alone.iteration == 2
    alone.advance()
    same(result(alone), result(trainer), start)


def test_drop_path_draws_for_each_process_and_a_checkpoint_has_all_of_them(
    shared: tuple[list[dict[str, Any]], Path],
) -> None:
    first, second = (found["dropped"] for found in shared[0])
    assert torch.equal(first[0], first[1])
    assert torch.equal(second[0], second[1])
    assert torch.equal(first[0], second[0])


def test_what_one_process_cannot_predict_ends_the_trial_in_all(shared: tuple[list[dict[str, Any]], Path]) -> None:
    first, second = shared[0]
    assert first["diverged"] == second["diverged"]
    assert "predictions of depth_zbuffer on the val split is not finite" in first["diverged"]


# ---- losses ------------------------------------------------------------------------------------------


class Tally:
    """Stands for the processes: notes what one of them counts, or tells it what all of them have counted."""

    alone = False

    def __init__(self, samples: tuple[int, ...], rank: int, known: list[Tensor] | None = None) -> None:
        self.samples, self.rank, self.size = list(samples), rank, len(samples)
        self.noted: list[Tensor] = []
        self.known = None if known is None else iter(known)

    def counts(self, number: int) -> list[int]:
        assert number == self.samples[self.rank]
        return self.samples

    def total(self, tensor: Tensor) -> Tensor:
        self.noted.append(tensor)
        return tensor if self.known is None else next(self.known)


def spoiled(target: Tensor, value: float) -> Tensor:
    """Nearly nothing of the first sample counts, a part of the others."""
    target = target.clone()
    target[0, ..., :3, :] = value
    target[1:, ..., 0] = value
    return target


LOSSES: dict[str, tuple[Any, int, Tensor]] = {
    **{name: (loss, channels, spoiled(target, value)) for name, (loss, channels, target, value) in MASKED.items()},
    **DENSE,
    "l1, labelled": (partial(losses.l1, ignore=255), 3, spoiled(DENSE["l1"][2], 255)),
    "mse, labelled": (partial(losses.mse, ignore=255), 2, spoiled(DENSE["mse"][2], 255)),
    "standardized_mse": (
        losses.standardized_mse,
        1,
        torch.rand(3, 2, 4, 6, generator=torch.Generator().manual_seed(0)),
    ),
    "of another package": (lambda p, t: (p - t).abs().sqrt().mean(), 3, DENSE["l1"][2]),
}


@pytest.mark.parametrize("sizes", [(1, 2), (3, 0), (1, 1, 1)])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_shares_sum_up_to_that_of_the_batch(name: str, sizes: tuple[int, ...]) -> None:
    loss, channels, target = LOSSES[name]
    inputs = torch.randn(3, channels, 4, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    expected = loss(inputs, target)
    (wanted,) = torch.autograd.grad(expected, inputs)

    def parts(known: list[Tensor] | None) -> tuple[list[Tensor], list[list[Tensor]]]:
        found, noted, first = [], [], 0
        for rank, size in enumerate(sizes):
            tally: Any = Tally(sizes, rank, known)
            here = slice(first, first + size)
            found.append(Share(tally, size).loss(loss, inputs[here], target[here]))
            noted.append(tally.noted)
            first += size
        return found, noted

    _, noted = parts(None)
    found, _ = parts([torch.stack(counted).sum(0) for counted in zip(*noted, strict=True)])
    total = torch.stack(found).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(torch.autograd.grad(total, inputs)[0], wanted)


def test_the_whole_is_the_value_and_the_share_its_gradient() -> None:
    together: Any = Tally((1, 1), 0, [torch.tensor([7.0, 9.0])])
    own = torch.tensor([3.0, 4.0], requires_grad=True)
    values = Share(together, 1).whole(list(own))
    assert [value.item() for value in values] == [7.0, 9.0]
    (values[0] + 10 * values[1]).backward()
    assert own.grad is not None
    assert own.grad.tolist() == [2.0, 20.0]  # Averaged over the two processes, the gradient of the sum.


def test_alone_nothing_is_changed() -> None:
    count = torch.tensor(3)
    assert whole(count) is count
    share = Share(Together(), 4)
    losses = [torch.tensor(1.0), torch.tensor(2.0)]
    assert all(a is b for a, b in zip(share.whole(losses), losses, strict=True))
    assert (share.first, share.samples, share.total) == (0, 4, 4)


@pytest.mark.parametrize(("count", "size"), [(7, 3), (8, 4), (2, 2), (1, 1)])
def test_shares_are_the_whole(count: int, size: int) -> None:
    taken = [index for rank in range(size) for index in range(count)[Together(rank, size).part(count)]]
    assert taken == list(range(count))
    assert all(len(range(count)[Together(rank, size).part(count)]) for rank in range(size))


def test_an_aggregator_of_whole_rows_is_refused_parts_of_them(tiny: dict[str, Any], data_root: Path) -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(ConfigError, match=r"method.grad_space: 'torchjd:GradDrop' sees the gradients themselves"):
        make(tiny, data_root, Together(0, 2), method={"name": "torchjd:GradDrop", "grad_space": "representation"})


def test_what_cannot_be_shared_out_is_refused(tiny: dict[str, Any], data_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.batch_size: 4 processes share a batch of 3"):
        make(tiny, data_root, Together(0, 4))
    with pytest.raises(ConfigError, match=r"its layer 1 normalises over the batch"):
        check_shares(Together(0, 2), 4, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
