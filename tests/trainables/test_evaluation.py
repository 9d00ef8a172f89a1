"""Evaluation as a stream: what helps it and what it says changes no value."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from trainables import evaluation
from trainables.data.loader import Batch
from trainables.errors import Diverged
from trainables.evaluation import evaluate, values
from trainables.metrics import OdsF
from trainables.tasks import Task


class Watched(OdsF):
    """Remembers who helped with each batch."""

    helped: list[bool]

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.helped.append(self.executor is not None)
        return super().measure(prediction, target)


def batches(count: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 2, 3, 24, 24, generator=generator)
    return [(image, {"edge": (image[:, :1] > 0.7).float()}) for image in images]


def predict(images: Tensor) -> dict[str, Tensor]:
    return {"edge": 4 * (images[:, 1:2] - 0.5)}


@pytest.fixture
def edge() -> Task:
    Watched.helped = []
    return Task("edge", "edge", 1, binary_cross_entropy_with_logits, "odsf", lambda: Watched(0.1, 4), True, "E")


def measured(edge: Task, given: list[Batch], cores: int = 2) -> dict[str, float]:
    found = evaluate(predict, given, [edge], samples=8, name="val", iteration=3, cores=cores)
    return values(found)


def test_a_long_evaluation_is_helped_and_gives_the_same(edge: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = measured(edge, batches())
    assert Watched.helped == [False] * 4
    monkeypatch.setattr(evaluation, "HELP_SECONDS", 0.0)
    assert measured(edge, batches()) == alone
    assert Watched.helped[4:] == [False, True, True, True]
    assert 0 < alone["edge/odsf"] < 100


def test_one_core_has_no_help(edge: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "HELP_SECONDS", 0.0)
    measured(edge, batches(), cores=1)
    assert Watched.helped == [False] * 4


def test_a_long_evaluation_says_how_far_it_is(
    edge: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "LOG_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, logger=evaluation.__name__):
        measured(edge, batches())
    assert [line.rsplit(" in ")[0] for line in caplog.messages] == [f"val: {n} of 8 samples" for n in (2, 4, 6, 8)]


def test_batches_without_a_sample_are_passed_over(edge: Task) -> None:
    assert measured(edge, [(torch.empty(0), {}), *batches()]) == measured(edge, batches())


def test_what_is_not_finite_ends_it(edge: Task) -> None:
    image, targets = batches(1)[0]
    image[1, 1, 5, 5] = torch.nan
    with pytest.raises(Diverged, match="predictions of edge on the val split"):
        measured(edge, [(image, targets)])
