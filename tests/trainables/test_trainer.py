from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.clock import PHASES
from trainables.config import load_trial
from trainables.errors import CheckpointError, Diverged
from trainables.history import History
from trainables.methods import METHODS, StepLog
from trainables.presets import merge
from trainables.trainer import Trainer

ONE_TASK = {"tasks": {"include": ["normal"]}}
CASES: dict[str, dict[str, Any]] = {
    "gd": {"method": "gd"},
    "gd, three steps per batch": {"method": {"name": "gd", "steps_per_batch": 3}},
    "gd, clipped": {"method": "gd", "optim": {"clip_norm": 0.1}},
    "single_task": {"method": "single_task", **ONE_TASK},
    "selective": {"method": {"name": "selective", "beta": 0.5}},
    "selective as released": {"method": {"name": "selective", "beta": 0.5}, "preset": "released"},
    "selective, random groups": {"method": {"name": "selective", "grouping": {"name": "random", "groups": 2}}},
    "selective, heterogeneous": {"method": {"name": "selective", "beta": 0.9, "grouping": "heterogeneous"}},
    "selective, by affinity": {"method": {"name": "selective", "beta": 0.9, "order": "affinity"}},
    "uw": {"method": {"name": "uw", "lr": 0.1}},
    "dtp": {"method": {"name": "dtp", "reference_iterations": 2}},
    "dwa": {"method": {"name": "dwa", "window": 2}},
    "famo": {"method": {"name": "famo", "max_norm": 1.0}},
    "imtl_l": {"method": {"name": "imtl_l", "decoder_grads": "plain"}},
    "graddrop": {"method": {"name": "graddrop", "leak": 0.25}},
    "graddrop, representation": {"method": {"name": "graddrop", "grad_space": "representation"}},
    "mgda": {"method": "mgda"},
    "pcgrad": {"method": {"name": "pcgrad", "decoder_grads": "weighted"}},
    "cagrad": {"method": "cagrad"},
    "cagrad, representation": {"method": {"name": "cagrad", "grad_space": "representation"}},
    "imtl_g": {"method": "imtl_g"},
    "imtl": {"method": {"name": "imtl", "lr": 0.1}},
    "aligned_mtl": {"method": "aligned_mtl"},
    "nash_mtl": {"method": "nash_mtl"},
    "nash_mtl, weights kept": {"method": {"name": "nash_mtl", "update_weights_every": 2}},
    "nash_mtl, bf16": {"method": "nash_mtl", "train": {"precision": "bf16"}},
    "torchjd:UPGrad": {"method": "torchjd:UPGrad"},
    "torchjd:PCGrad, representation": {"method": {"name": "torchjd:PCGrad", "grad_space": "representation"}},
    "torchjd:ExcessMTL": {"method": "torchjd:ExcessMTL"},
    "torchjd:scalarization.FAMO": {"method": "torchjd:scalarization.FAMO"},
    "torchjd:scalarization.UW": {"method": {"name": "torchjd:scalarization.UW", "lr": 0.1}},
    "bf16": {"method": "gd", "train": {"precision": "bf16"}},
}


def make(tiny: dict[str, Any], data_root: Path, **over: Any) -> Trainer:
    return Trainer(load_trial(merge(tiny, over)), data_root)


def flat(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.network.parameters()])


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def points(trainer: Trainer) -> list[tuple[str, int, float]]:
    return [(p.name, p.step, p.value) for p in trainer.history.points]


def test_every_method_is_among_the_cases() -> None:
    named = {case["method"] if isinstance(case["method"], str) else case["method"]["name"] for case in CASES.values()}
    # Those of TorchJD are two classes under many names, each tested with the methods.
    ours = {name for name in METHODS if not name.startswith("torchjd:")}
    assert named - set(METHODS) == set()
    assert ours - named == set()


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_it_ends_with_the_same_bits(case: str, tiny: dict[str, Any], data_root: Path) -> None:
    whole = make(tiny, data_root, **CASES[case])
    whole.advance()
    state: dict[str, Any] | None = None
    resumed = whole
    for stop in (1, 3, 1, 1):  # inside a window, at an evaluation, inside the second epoch
        resumed = make(tiny, data_root, **CASES[case])
        if state is not None:
            resumed.load_state_dict(state)
        resumed.advance(iterations=stop)
        state = through_a_file(resumed.state_dict())
    assert resumed.done
    assert torch.equal(flat(whole), flat(resumed))
    assert points(whole) == points(resumed)
    assert vars(whole.counters) == vars(resumed.counters)
    arrays, again = whole.history.arrays(), resumed.history.arrays()
    assert (arrays is None) == (again is None)
    for name in arrays or {}:
        assert np.array_equal(arrays[name], again[name], equal_nan=arrays[name].dtype.kind == "f")


def test_a_method_knows_how_many_iterations_an_epoch_has(tiny: dict[str, Any], data_root: Path) -> None:
    for batch_size, iterations in ((2, 4), (3, 2), (8, 1)):
        trainer = make(tiny, data_root, train={"batch_size": batch_size})
        assert trainer.method.update.iterations_per_epoch == iterations


@pytest.mark.parametrize("case", CASES)
def test_counted_passes_are_the_passes_made(case: str, tiny: dict[str, Any], data_root: Path) -> None:
    trainer = make(tiny, data_root, **CASES[case], record={"eval_every": 0})
    made = {"forward": 0, "backward": 0}

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if module.training:
            made["forward"] += 1
            if output.requires_grad:
                output.register_hook(lambda grad: made.__setitem__("backward", made["backward"] + 1))

    trainer.network.trunk.patch_embed.register_forward_hook(count)
    steps = 0
    step = trainer.optimizer.step

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(*args, **kwargs)

    trainer.optimizer.step = counted  # type: ignore[method-assign]
    trainer.advance()
    counters = trainer.counters
    assert made == {"forward": counters.forward_passes, "backward": counters.backward_passes}
    assert steps == counters.optimizer_steps
    assert counters.samples == 6 * 2
    assert counters.trunk_passes == counters.forward_passes + counters.backward_passes


def test_trials_in_one_process_do_not_disturb_each_other(tiny: dict[str, Any], data_root: Path) -> None:
    alone = [make(tiny, data_root, seed=seed, method="selective") for seed in (0, 1)]
    for trainer in alone:
        trainer.advance()
    before = torch.get_rng_state()
    together = [make(tiny, data_root, seed=seed, method="selective") for seed in (0, 1)]
    while not all(trainer.done for trainer in together):
        for trainer in together:
            trainer.advance(iterations=1)
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(flat(one), flat(other))
    assert not torch.equal(flat(alone[0]), flat(alone[1]))


def test_how_often_it_is_evaluated_changes_no_result(tiny: dict[str, Any], data_root: Path) -> None:
    often = make(tiny, data_root, record={"eval_every": 1})
    never = make(tiny, data_root, record={"eval_every": 0})
    often.advance()
    never.advance()
    assert torch.equal(flat(often), flat(never))
    assert often.key == never.key
    assert len([p for p in often.history.points if p.name == "val/normal/l1"]) == 6
    assert len([p for p in never.history.points if p.name == "val/normal/l1"]) == 1


def test_the_test_split_is_looked_at_once_at_the_end(
    tiny: dict[str, Any], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int]] = []
    original = Trainer.evaluate

    def evaluate(self: Trainer, split: str) -> dict[str, float]:
        opened.append((split, self.iteration))
        return original(self, split)

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    make(tiny, data_root).advance()
    assert opened == [("val", 3), ("val", 6), ("test", 6)]


def test_a_single_task_network_starts_where_the_multi_task_network_does(tiny: dict[str, Any], data_root: Path) -> None:
    many = make(tiny, data_root)
    one = make(tiny, data_root, method="single_task", **ONE_TASK)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, many.network.state_dict()[name]), name


def test_the_schedule_advances_once_per_iteration(tiny: dict[str, Any], data_root: Path) -> None:
    trainer = make(
        tiny,
        data_root,
        method={"name": "selective", "grouping": "separate"},
        optim={"lr": 0.5, "head_lr_scale": "tasks"},
    )
    rates = []
    step = trainer.optimizer.step

    def remember(*args: Any, **kwargs: Any) -> Any:
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        return step(*args, **kwargs)

    trainer.optimizer.step = remember  # type: ignore[method-assign]
    trainer.advance(iterations=2)
    second = 0.5 * (1 - 1 / 6) ** 0.9
    assert rates == [pytest.approx([0.5, 1.5])] * 3 + [pytest.approx([second, 3 * second])] * 3


@pytest.mark.parametrize(("unit", "iterations"), [("iterations", 7), ("optimizer_steps", 3), ("trunk_passes", 2)])
def test_a_budget_is_spent_in_its_unit(unit: str, iterations: int, tiny: dict[str, Any], data_root: Path) -> None:
    method = {"name": "selective", "grouping": "separate"}  # three steps, three forwards, three backwards
    trainer = make(tiny, data_root, method=method, train={"budget": {"amount": 7, "unit": unit}})
    trainer.advance()
    assert trainer.iteration == iterations
    assert trainer.progress == 1.0


def test_data_order_comes_from_the_seed_unless_fixed(tiny: dict[str, Any], data_root: Path) -> None:
    def order(seed: int, kind: str) -> list[list[int]]:
        trainer = make(tiny, data_root, seed=seed, train={"data_order": kind})
        return [trainer._train_order(i).indices.tolist() for i in range(8)]

    assert order(0, "seed") != order(1, "seed")
    assert order(0, "fixed") == order(1, "fixed")
    epochs = order(3, "seed")
    assert sorted(np.ravel(epochs[:4])) == sorted(np.ravel(epochs[4:])) == list(range(8))
    assert epochs[:4] != epochs[4:]


def test_a_clipped_gradient_has_the_norm_asked_for(tiny: dict[str, Any], data_root: Path) -> None:
    trainer = make(tiny, data_root, optim={"clip_norm": 1e-3})
    trainer.advance(iterations=1)
    grads = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(grads)) == pytest.approx(1e-3, rel=1e-4)


def test_divergence_names_iteration_and_task(tiny: dict[str, Any], data_root: Path) -> None:
    trainer = make(tiny, data_root)
    trainer.advance(iterations=2)
    with torch.no_grad():
        trainer.network.decoders["normal"].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"^diverged by iteration 2: the loss of normal is not finite$") as caught:
        trainer.advance()
    assert caught.value.iteration == 2
    assert not trainer.done


def test_divergence_in_the_last_step_is_found(tiny: dict[str, Any], data_root: Path) -> None:
    trainer = make(tiny, data_root, optim={"lr": 1e38}, train={"budget": {"amount": 1}})
    with pytest.raises(Diverged, match=r"diverged by iteration 0: (parameter|predictions of)"):
        trainer.advance()


def test_a_loss_above_the_limit_is_divergence_and_one_below_it_is_not(tiny: dict[str, Any], data_root: Path) -> None:
    free = make(tiny, data_root)
    losses: list[list[float]] = []
    add = free.history.add
    free.history.add = lambda iteration, log: (losses.append(log.losses.tolist()), add(iteration, log))[1]  # type: ignore[method-assign]
    free.advance()
    highest = np.array(losses).max(axis=1)
    limit = float(np.sort(highest)[-2])  # One iteration is above it.
    worst = int(highest.argmax())
    tasks = ", ".join(task.name for task, value in zip(free.tasks, losses[worst], strict=True) if value > limit)
    limited = make(tiny, data_root, train={"loss_limit": limit})
    with pytest.raises(Diverged) as caught:
        limited.advance()
    said = f"diverged by iteration {worst}: the loss of {tasks} is above train.loss_limit ({limit:g})"
    assert str(caught.value) == said
    assert (caught.value.iteration, limited.iteration, limited.done) == (worst, worst + 1, False)
    within = make(tiny, data_root, train={"loss_limit": float(highest.max())})
    within.advance()
    assert within.done
    for name, value in free.network.state_dict().items():
        assert torch.equal(value, within.network.state_dict()[name])


def test_a_state_of_another_config_is_refused(tiny: dict[str, Any], data_root: Path) -> None:
    state = make(tiny, data_root).state_dict()
    with pytest.raises(CheckpointError, match="the checkpoint is of trial"):
        make(tiny, data_root, seed=1).load_state_dict(state)


def test_bf16_trains_close_to_float32_and_keeps_float32_parameters(tiny: dict[str, Any], data_root: Path) -> None:
    low, full = make(tiny, data_root, train={"precision": "bf16"}), make(tiny, data_root)
    for trainer in (low, full):
        trainer.advance()
    assert all(p.dtype == torch.float32 for p in low.network.parameters())
    assert not torch.equal(flat(low), flat(full))
    for one, other in zip(points(low), points(full), strict=True):
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2], rel=0.1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gd", "pcgrad", {"name": "cagrad", "grad_space": "representation"}])
def test_a_compiled_network_trains_like_a_plain_one(method: Any, tiny: dict[str, Any], data_root: Path) -> None:
    plain = make(tiny, data_root, method=method, model={"drop_path": 0.0})
    compiled = make(tiny, data_root, method=method, model={"drop_path": 0.0}, train={"compile": True})
    for trainer in (plain, compiled):
        trainer.advance(iterations=2)
    torch.testing.assert_close(flat(compiled), flat(plain), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ["gd", "selective", "cagrad", "graddrop"])
def test_on_cuda_it_trains_and_resumes(case: str, tiny: dict[str, Any], data_root: Path) -> None:
    config = load_trial(merge(tiny, CASES[case]))
    trainer = Trainer(config, data_root, "cuda")
    trainer.advance(iterations=3)
    other = Trainer(config, data_root, "cuda")
    other.load_state_dict(through_a_file(trainer.state_dict()))
    for each in (trainer, other):
        each.advance()
    torch.testing.assert_close(flat(trainer), flat(other), rtol=1e-3, atol=1e-4)
    assert trainer.done


@pytest.mark.parametrize("case", ["gd", "selective", "cagrad"])
def test_phases_add_up_to_the_time_of_the_steps(case: str, tiny: dict[str, Any], data_root: Path) -> None:
    trainer = make(tiny, data_root, **CASES.get(case, {"method": case}))
    trainer.advance(iterations=4)
    resumed = make(tiny, data_root, **CASES.get(case, {"method": case}))
    resumed.load_state_dict(through_a_file(trainer.state_dict()))
    assert resumed.costs() == trainer.costs()
    costs = trainer.costs()
    phases = {name: costs[f"seconds_{name}"] for name in PHASES}
    assert sum(phases.values()) == pytest.approx(trainer.method_seconds)
    assert trainer.method_seconds <= costs["seconds"]
    assert all(value > 0 for name, value in phases.items() if name != "clustering_and_affinity")
    assert (phases["clustering_and_affinity"] > 0) == (case == "selective")


def test_mean_groups_counts_every_iteration_once() -> None:
    history = History(["a", "b"], stride=4)
    assert history.mean_groups() is None
    for iteration in range(1, 7):
        groups = ((0, 1),) if iteration <= 4 else ((0,), (1,))
        log = StepLog(torch.zeros(2), groups=groups, affinity=torch.zeros(2, 2))
        history.add(iteration, log)
    history.close_window(6, log)  # a window of two iterations, beside one of four
    assert history.mean_groups() == pytest.approx((4 * 1 + 2 * 2) / 6)
    plain = History(["a", "b"], stride=1)
    plain.add(1, StepLog(torch.zeros(2)))
    assert plain.mean_groups() is None
