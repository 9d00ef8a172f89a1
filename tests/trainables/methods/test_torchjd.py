"""TorchJD's aggregators and scalarizers as methods: every one, against TorchJD called directly."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
import torchjd._mixins
import torchjd.aggregation
import torchjd.scalarization

from study.testing import Bench, MethodContract, Scripted, same_bits
from trainables.errors import ConfigError
from trainables.methods import METHODS
from trainables.methods.torchjd import AGGREGATORS, PREFIX, SCALARIZER_PREFIX, SCALARIZERS
from trainables.settings import component

K = 6
OPTIONS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.4},
    "Constant": {"weights": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]},
    "COSMOS": {"lambda_": 0.1, "weights": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]},
    "FairGrad": {"alpha": 1.0},
    "GradDrop": {"leak": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
    "Krum": {"n_byzantine": 1, "n_selected": 2},
    "PBI": {"theta": 0.5, "weights": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]},
    "STCH": {"mu": 0.1},
    "TrimmedMean": {"trim_number": 1},
}
EVERY = [f"{PREFIX}{name}" for name in AGGREGATORS] + [f"{SCALARIZER_PREFIX}{name}" for name in SCALARIZERS]
RANDOM = {"GradDrop", "GradVac", "PCGrad", "Random"}
ROWS = [[1.0, -0.5, 0.2, 0.0], [0.3, 0.8, -0.1, 0.5], [-0.2, 0.1, 0.4, -0.9]]

pytestmark = pytest.mark.filterwarnings("ignore:.*not DPP.*:UserWarning")


def config(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "options": OPTIONS.get(name.removeprefix(SCALARIZER_PREFIX).removeprefix(PREFIX), {}),
        **fields,
    }


class TestTorchJD(MethodContract):
    task_counts: ClassVar[tuple[int, ...]] = (2, 6)

    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        forms: dict[str, Mapping[str, Any]] = {
            "upgrad": {"name": "torchjd:UPGrad"},
            "gradvac": {"name": "torchjd:GradVac", "options": {"beta": 0.1}, "decoder_grads": "weighted"},
            "graddrop": {"name": "torchjd:GradDrop", "options": {"leak": [0.5] * tasks}},
            "random": {"name": "torchjd:Random", "max_norm": 1.0},
            "loss_random": {"name": "torchjd:scalarization.Random"},
            "loss_uw": {"name": "torchjd:scalarization.UW", "lr": 0.1, "decoder_grads": "plain"},
            "loss_famo": {"name": "torchjd:scalarization.FAMO", "options": {"weight_decay": 0.01}},
        }
        return forms


def parse_and_check(value: Any) -> None:
    parsed = component(METHODS, value, "method")
    METHODS[parsed.name].check(parsed, ["depth"])


@pytest.mark.parametrize("name", EVERY)
def test_every_one_trains_and_continues_bit_for_bit(name: str) -> None:
    whole = Bench(config(name), K)
    before = whole.bits()
    whole.iterate(3)
    saved = whole.save()
    expected = whole.iterate(4)
    torch.manual_seed(5)  # what it draws does not come from the process's generator
    resumed = Bench(config(name), K)
    resumed.load(saved)
    logs = resumed.iterate(4)
    assert same_bits(whole.bits(), resumed.bits())
    assert [log.scalars for log in logs] == [log.scalars for log in expected]
    assert not same_bits(before, whole.bits())
    assert all(bool(bits.isfinite().all()) for bits in whole.bits())
    assert {log.scalars.get("grads/skipped", log.scalars.get("losses/skipped")) for log in logs} == {0.0}
    forwards, backwards, steps = METHODS[name].expected_work(whole.config, whole.tasks)
    assert (whole.forwards, whole.backwards, whole.steps) == (7 * forwards, 7 * backwards, 7 * steps)


def test_every_one_of_the_library_is_listed() -> None:
    helpers = {"Aggregator", "GramianWeightedAggregator", "WeightedAggregator", "Scalarizer"}

    def concrete(module: Any, base: type) -> set[str]:
        return {name for name in module.__all__ if issubclass(getattr(module, name), base)} - helpers

    assert concrete(torchjd.aggregation, torchjd.aggregation.Aggregator) == set(AGGREGATORS)
    assert concrete(torchjd.scalarization, torchjd.scalarization.Scalarizer) == set(SCALARIZERS)
    assert set(EVERY) == {name for name in METHODS if name.startswith("torchjd:")}


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - RANDOM))
def test_the_trunk_gets_what_the_aggregator_gives(name: str) -> None:
    rows = torch.randn(K, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    bench = Scripted(config(f"{PREFIX}{name}"), rows)
    options = {
        key: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for key, value in OPTIONS.get(name, {}).items()
    }
    if name == "NashMTL":
        options["n_tasks"] = K
    reference = getattr(torchjd.aggregation, name)(**options)
    for _ in range(3):
        bench.iterate([1.0] * K)
        expected = reference(bench.rows)
        torch.testing.assert_close(bench.trunk.grad, expected)
        assert [head.grad.item() for head in bench.heads if head.grad is not None] == [1.0] * K


def test_decoders_may_get_the_weights() -> None:
    weights = [0.5, 2.0, 1.0]
    bench = Scripted({"name": "torchjd:Constant", "options": {"weights": weights}, "decoder_grads": "weighted"}, ROWS)
    bench.iterate([1.0, 1.0, 1.0])
    assert [head.grad.item() for head in bench.heads if head.grad is not None] == weights
    torch.testing.assert_close(bench.trunk.grad, torch.tensor(weights, dtype=torch.float64) @ bench.rows)


@pytest.mark.parametrize(
    ("name", "options"),
    [("GeometricMean", {}), ("STCH", {"mu": 0.5}), ("PBI", {"theta": 0.5, "weights": [1.0, 2.0, 3.0]}), ("Mean", {})],
)
def test_the_network_gets_the_gradient_of_the_scalarizer(name: str, options: dict[str, Any]) -> None:
    bench = Scripted({"name": f"{SCALARIZER_PREFIX}{name}", "options": options}, ROWS)
    other = Scripted("gd", ROWS)
    tensors = {
        key: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for key, value in options.items()
    }
    reference = getattr(torchjd.scalarization, name)(**tensors)
    for offsets in ([1.0, 2.0, 3.0], [3.0, 1.0, 0.5]):
        bench.iterate(offsets)
        other.optimizer.zero_grad()
        reference(other.values(offsets)).backward()
        other.optimizer.step()
    torch.testing.assert_close(bench.trunk, other.trunk)
    torch.testing.assert_close(torch.cat(bench.heads), torch.cat(other.heads))


def test_an_epochs_end_is_told_to_dwa() -> None:
    ours = Scripted({"name": "dwa", "temperature": 1.5}, ROWS, iterations_per_epoch=2)
    theirs = Scripted(
        {"name": "torchjd:scalarization.DWA", "options": {"temperature": 1.5}}, ROWS, iterations_per_epoch=2
    )
    for step in range(9):
        given = [1.0 + step, 2.0, 3.0 / (1 + step)]
        assert ours.weights(ours.replay(given)) == pytest.approx(theirs.weights(theirs.replay(given)))


@pytest.mark.parametrize(("name", "ours"), [("UW", "uw"), ("IMTLL", "imtl_l")])
def test_parameters_of_a_scalarizer_are_learned(name: str, ours: str) -> None:
    own = Scripted({"name": ours}, ROWS, lr=0.05)
    theirs = Scripted(f"{SCALARIZER_PREFIX}{name}", ROWS, lr=0.05)
    for step in range(10):
        given = [1.0 + step, 2.0, 3.0 / (1 + step)]
        assert own.weights(own.replay(given)) == pytest.approx(theirs.weights(theirs.replay(given)))


def test_weights_that_are_not_finite_leave_the_iteration_out() -> None:
    bench = Scripted("torchjd:scalarization.GeometricMean", torch.eye(2))
    log = bench.replay([0.0, 1.0])
    assert log.scalars == {"losses/skipped": 1.0}
    assert bench.trunk.grad is None
    assert bench.replay([1.0, 1.0]).scalars["losses/skipped"] == 1.0


def test_an_aggregator_that_raises_leaves_the_iteration_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("torchjd:UPGrad", 3)
    bench.iterate(2)
    before = bench.bits()

    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(torchjd.aggregation.UPGradWeighting, "forward", fails)
        (log,) = bench.iterate()
    assert log.scalars["grads/skipped"] == 1.0
    assert same_bits(before, bench.bits())
    bench.iterate()
    assert not same_bits(before, bench.bits())


@pytest.mark.parametrize("module", ["torchjd.aggregation", "torchjd.scalarization"])
def test_without_the_library_the_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = "torchjd:UPGrad" if module.endswith("aggregation") else "torchjd:scalarization.UW"
    parsed = component(METHODS, name, "method")
    with pytest.raises(ConfigError, match=r"^method\.name: '(UPGrad|UW)' needs the extra 'torchjd' of mtl-study"):
        METHODS[name].check(parsed, ["a", "b"])


def test_a_missing_solver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchjd._mixins, "find_spec", lambda name: None if name == "ecos" else object())
    with pytest.raises(ConfigError, match=r"^method\.name: .* needs the extra 'torchjd' of mtl-study \(.*'ecos'"):
        METHODS["torchjd:NashMTL"].check(component(METHODS, "torchjd:NashMTL", "method"), ["a", "b"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("torchjd:UPGard", r"^method\.name: unknown method 'torchjd:UPGard'; did you mean 'torchjd:UPGrad'\?"),
        ("torchjd:NashMTL", r"^method: NashMTL refuses 1 tasks: "),
        ("torchjd:CAGrad", r"^method\.options\.c is missing: CAGrad has no default for it$"),
        ({"name": "torchjd:CAGrad", "options": {"c": -1.0}}, r"^method\.options: .*-1"),
        (
            {"name": "torchjd:CAGrad", "options": {"c": 0.4, "norm_esp": 0.0}},
            r"^method\.options: unknown option of CAGrad 'norm_esp'; did you mean 'norm_eps'\?",
        ),
        ({"name": "torchjd:UPGrad", "options": {"projector": "x"}}, r"unknown option of UPGrad 'projector'"),
        ({"name": "torchjd:GradDrop", "options": {"f": "x"}}, r"unknown option of GradDrop 'f' \(allowed: leak\)"),
        ({"name": "torchjd:NashMTL", "options": {"n_tasks": 4}}, r"unknown option of NashMTL 'n_tasks'"),
        ({"name": "torchjd:MGDA", "options": {"epsilon": [1.0]}}, r"^method\.options\.epsilon: a number is wanted$"),
        (
            {"name": "torchjd:Constant", "options": {"weights": "x"}},
            r"^method\.options\.weights: a list of numbers is wanted$",
        ),
        ({"name": "torchjd:Constant", "options": {"weights": [1.0, 2.0]}}, r"^method: Constant refuses 1 tasks: "),
        ({"name": "torchjd:UPGrad", "scale": "mean"}, r"^method\.scale: an aggregator of TorchJD has the scale"),
        ({"name": "torchjd:ConFIG", "decoder_grads": "weighted"}, r"^method\.decoder_grads: 'torchjd:ConFIG' makes no"),
        ({"name": "torchjd:scalarization.UW", "lr": 0}, r"^method\.lr: "),
    ],
)
def test_mistakes_are_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_and_check(value)


def test_options_are_those_of_the_constructors() -> None:
    for name in EVERY:
        module = torchjd.scalarization if name.startswith(SCALARIZER_PREFIX) else torchjd.aggregation
        cls = getattr(module, name.removeprefix(SCALARIZER_PREFIX).removeprefix(PREFIX))
        own = set(inspect.signature(cls).parameters) - {"projector", "f", "shape", "n_tasks"}
        with pytest.raises(ConfigError, match="unknown option") as caught:
            METHODS[name].check(component(METHODS, {"name": name, "options": {"zzz": 1}}, "method"), ["a", "b"])
        allowed = str(caught.value).split("(allowed: ")[1].rstrip(")")
        assert set(allowed.split(", ")) - {"none"} == own
