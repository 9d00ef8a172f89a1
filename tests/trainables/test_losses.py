from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error

from trainables import losses

B, H, W = 3, 4, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prediction(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(B, channels, H, W, generator=generator(seed), dtype=torch.float64)


def normals(seed: int = 1) -> torch.Tensor:
    return F.normalize(torch.randn(B, 3, H, W, generator=generator(seed), dtype=torch.float64), dim=1)


def some(seed: int = 2) -> torch.Tensor:
    """(B, H, W) bool, about a third true."""
    return torch.rand(B, H, W, generator=generator(seed)) < 0.35


def classes(count: int) -> torch.Tensor:
    return torch.randint(0, count, (B, H, W), generator=generator(3))


MASKED = {
    "depth_l1": (losses.depth_l1, 1, torch.rand(B, 1, H, W, generator=generator()) + 0.5, 0),
    "normal_l1": (losses.normal_l1, 3, normals().float(), 0),
    "cosine": (losses.cosine, 3, normals().float(), 0),
    "cross_entropy": (losses.cross_entropy, 4, classes(4), 255),
    "balanced_cross_entropy": (losses.balanced_cross_entropy, 2, classes(2), 255),
    "edge_bce": (losses.edge_bce, 1, classes(2).unsqueeze(1).float(), 255),
}
"""Losses that ignore pixels: the loss, its channels, a target, the value of an ignored pixel."""

DENSE = {
    "l1": (losses.l1, 3, normals().float()),
    "mse": (losses.mse, 2, prediction(2, 4).float()),
    "cosine_along_width": (losses.cosine_along_width, 3, normals().float()),
}

masked = pytest.mark.parametrize(("loss", "channels", "target", "ignored"), MASKED.values(), ids=MASKED)
every = pytest.mark.parametrize(
    ("loss", "channels", "target"),
    [*(entry[:3] for entry in MASKED.values()), *DENSE.values()],
    ids=[*MASKED, *DENSE],
)


def spread(where: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``where`` (B, H, W), with an axis for channels where ``target`` has one."""
    return where.unsqueeze(1) if target.ndim == 4 else where


class TestEveryLoss:
    @every
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_scalar_of_at_least_float32_with_finite_gradients(self, loss, channels, target, dtype):
        x = prediction(channels).to(dtype).requires_grad_()
        value = loss(x, target)
        value.backward()
        assert value.shape == ()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.isfinite(value)
        assert value > 0
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().sum() > 0

    @every
    def test_gradient_is_that_of_finite_differences(self, loss, channels, target):
        if target.is_floating_point():
            target = target.double()
        assert torch.autograd.gradcheck(lambda x: loss(x, target), prediction(channels).requires_grad_())

    @every
    def test_zero_prediction_has_finite_gradients(self, loss, channels, target):
        x = torch.zeros(B, channels, H, W, requires_grad=True)
        loss(x, target).backward()
        assert torch.isfinite(x.grad).all()

    @every
    def test_target_is_left_alone(self, loss, channels, target):
        before = target.clone()
        loss(prediction(channels), target)
        assert torch.equal(target, before)

    @pytest.mark.parametrize(
        "loss",
        [
            losses.l1,
            losses.mse,
            losses.depth_l1,
            losses.normal_l1,
            losses.cosine,
            losses.cosine_along_width,
            losses.edge_bce,
        ],
    )
    def test_does_not_broadcast(self, loss):
        with pytest.raises(ValueError, match="differ in shape"):
            loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))


class TestIgnoredPixels:
    @masked
    def test_nothing_valid_is_zero_with_zero_gradient(self, loss, channels, target, ignored):
        x = prediction(channels).requires_grad_()
        value = loss(x, torch.full_like(target, ignored))
        value.backward()
        assert value.item() == 0
        assert torch.equal(x.grad, torch.zeros_like(x))

    @masked
    def test_predictions_there_do_not_matter(self, loss, channels, target, ignored):
        where = some()
        target = torch.where(spread(where, target), ignored, target)
        x = prediction(channels)
        disturbed = torch.where(where.unsqueeze(1), 30.0, x).requires_grad_()
        value = loss(disturbed, target)
        value.backward()
        assert value.item() == pytest.approx(loss(x, target).item(), rel=1e-12)
        assert disturbed.grad[where.unsqueeze(1).expand_as(x)].abs().max() == 0

    @masked
    def test_the_mean_is_over_the_others(self, loss, channels, target, ignored):
        # The second copy of the batch is ignored: twice the pixels, the same mean.
        x = prediction(channels)
        doubled = loss(torch.cat([x, x]), torch.cat([target, torch.full_like(target, ignored)]))
        assert doubled.item() == pytest.approx(loss(x, target).item(), rel=1e-12)


class TestClosedForms:
    def test_l1(self):
        x, t = prediction(3), normals()
        assert losses.l1(x, t).item() == pytest.approx(mean_absolute_error(t.flatten(), x.flatten()))

    def test_mse(self):
        x, t = prediction(2), prediction(2, 4)
        assert losses.mse(x, t).item() == pytest.approx(mean_squared_error(t.flatten(), x.flatten()))

    def test_depth_l1_is_over_measured_pixels(self):
        x = prediction(1)
        t = torch.where(some().unsqueeze(1), 0.0, prediction(1, 4).abs())
        measured = t > 0
        assert losses.depth_l1(x, t).item() == pytest.approx(mean_absolute_error(t[measured], x[measured]))

    def test_normal_l1_sums_channels_and_averages_pixels(self):
        t = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
        x = torch.tensor([[0.0, 5.0, 0.0], [3.0, 0.0, 4.0]]).T.reshape(1, 3, 1, 2)
        # (0, 1, 0) is 1 + 1 away, (.6, 0, .8) is .4 + .8.
        assert losses.normal_l1(x, t).item() == pytest.approx((2 + 1.2) / 2)

    def test_normal_l1_does_not_depend_on_the_length(self):
        x, t = prediction(3), normals()
        assert losses.normal_l1(7 * x, t).item() == pytest.approx(losses.normal_l1(x, t).item())

    def test_cosine(self):
        x, t = prediction(3), normals()
        expected = 1 - F.cosine_similarity(x, t, dim=1).mean()
        assert losses.cosine(x, t).item() == pytest.approx(expected.item(), rel=1e-5)
        assert losses.cosine(t, t).item() == pytest.approx(0, abs=1e-5)
        assert losses.cosine(-t, t).item() == pytest.approx(2, rel=1e-5)

    def test_cosine_along_width_compares_rows_of_pixels(self):
        x, t = prediction(3).numpy(), normals().numpy()
        rows = [
            1 - x[b, c, y] @ t[b, c, y] / np.linalg.norm(x[b, c, y]) / np.linalg.norm(t[b, c, y])
            for b in range(B)
            for c in range(3)
            for y in range(H)
        ]
        value = losses.cosine_along_width(torch.from_numpy(x), torch.from_numpy(t)).item()
        assert value == pytest.approx(np.mean(rows), rel=1e-5)

    def test_cosine_along_width_is_not_the_cosine_of_normals(self):
        x, t = prediction(3), normals()
        assert abs(losses.cosine_along_width(x, t) - losses.cosine(x, t)) > 1e-3
        # It depends on the length of single normals, and forgives a channel any factor.
        factor = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64).view(1, 3, 1, 1)
        assert losses.cosine_along_width(factor * t, t).item() == pytest.approx(0, abs=1e-4)
        assert losses.cosine(factor * t, t).item() > 0.1

    def test_cross_entropy(self):
        x, t = prediction(4), torch.where(some(), 255, classes(4))
        labelled = t != 255
        probabilities = x.softmax(dim=1).permute(0, 2, 3, 1)[labelled]
        assert losses.cross_entropy(x, t).item() == pytest.approx(log_loss(t[labelled], probabilities))

    def test_balanced_cross_entropy_weighs_by_the_other_class(self):
        # Three labelled background pixels, one salient, one ignored.
        t = torch.tensor([[[0, 0, 0, 1, 255]]])
        logits = torch.tensor([0.3, -1.0, 0.0, 0.7, 4.0])
        x = torch.stack([torch.zeros(5), logits]).view(1, 2, 1, 5)
        nll = [np.log1p(np.exp(v)) for v in (0.3, -1.0, 0.0)]
        expected = (0.25 * sum(nll) + 0.75 * np.log1p(np.exp(-0.7))) / 4
        assert losses.balanced_cross_entropy(x, t).item() == pytest.approx(expected)

    @pytest.mark.parametrize("label", [0, 1])
    def test_balanced_cross_entropy_of_one_class_only_is_zero(self, label):
        # Its weight is the share of the other class.
        assert losses.balanced_cross_entropy(prediction(2), torch.full((B, H, W), label)).item() == 0

    @pytest.mark.parametrize("weight", [0.95, 0.8, 0.5])
    def test_edge_bce(self, weight):
        x = prediction(1)
        t = torch.where(some().unsqueeze(1), 255.0, classes(2).unsqueeze(1).double())
        labelled = t != 255
        logits, truth = x[labelled], t[labelled]
        # As InvPT writes it: positives weigh w / (1 - w), all of it times 1 - w.
        ratio = torch.tensor(weight / (1 - weight), dtype=torch.float64)
        expected = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=ratio) * (1 - weight)
        assert losses.edge_bce(x, t, weight).item() == pytest.approx(expected.item())

    def test_edge_bce_of_large_logits_stays_finite(self):
        x = torch.tensor([[[[300.0, -300.0, 300.0, -300.0]]]], requires_grad=True)
        value = partial(losses.edge_bce, positive_weight=0.9)(x, torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]))
        value.backward()
        assert value.item() == pytest.approx((0.1 * 300 + 0.9 * 300) / 4)
        assert torch.isfinite(x.grad).all()
