from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, fbeta_score, jaccard_score

from study.testing import IgnoringMetricContract
from trainables.metrics import MaxF, MeanIoU


def class_batch(count, classes, generator):
    prediction = torch.randn(count, classes, 7, 5, generator=generator).double()
    return prediction, torch.randint(0, classes, (count, 7, 5), generator=generator)


class ClassMetricContract(IgnoringMetricContract):
    def ignore(self, target, where):
        return target.masked_fill(where, 255)


class TestMeanIoU(ClassMetricContract):
    def make(self):
        return MeanIoU(classes=4)

    def batch(self, count, generator):
        return class_batch(count, 4, generator)

    def reference(self, prediction, target):
        labelled = target != 255
        return 100 * jaccard_score(target[labelled], prediction.argmax(1)[labelled], average="macro")

    def test_sums_are_the_confusion_matrix(self):
        prediction, target = self.samples()
        metric = self.make()
        metric.update(prediction, target)
        expected = confusion_matrix(target.flatten(), prediction.argmax(1).flatten())
        assert np.array_equal(metric.sums.numpy(), expected)

    @pytest.mark.parametrize(("rule", "expected"), [("zero", 200 / 4), ("nan", math.nan), ("drop", 200 / 3)])
    def test_absent_class(self, rule, expected):
        # Classes 0 and 1 have an IoU of 2 / 4, class 2 of 1, class 3 is seen on an ignored pixel only.
        target = torch.tensor([[[0, 0, 0, 2], [1, 1, 1, 255]]])
        called = torch.tensor([[[0, 0, 1, 2], [1, 1, 0, 3]]])
        prediction = torch.nn.functional.one_hot(called, 4).permute(0, 3, 1, 2).float()
        metric = MeanIoU(4, absent_classes=rule)
        metric.update(prediction, target)
        assert metric.compute() == pytest.approx(expected, nan_ok=True)

    @pytest.mark.parametrize("label", [4, 5, 254, -2])
    def test_label_out_of_range_is_refused(self, label):
        target = torch.zeros(1, 2, 2, dtype=torch.int64)
        target[0, 0, 0] = label
        with pytest.raises((ValueError, RuntimeError)):
            self.make().update(torch.zeros(1, 4, 2, 2), target)


class MaxFContract(ClassMetricContract):
    scores = "softmax"

    def make(self):
        return MaxF(scores=self.scores)

    def batch(self, count, generator):
        prediction, target = class_batch(count, 2, generator)
        prediction[:, 1] += 2 * target
        return prediction, target

    def score(self, prediction):
        return 1 / (1 + np.exp(prediction[:, 0] - prediction[:, 1]))

    def reference(self, prediction, target):
        labelled = target != 255
        score, truth = self.score(prediction)[labelled], target[labelled]
        called = [score >= k / 20 for k in range(1, 20)]
        return 100 * max(fbeta_score(truth, c, beta=0.3**0.5, zero_division=0) for c in called)

    def test_perfect_is_hundred(self):
        _, target = self.samples()
        prediction = torch.stack([1 - target, target], dim=1) * 40.0
        assert self.measured(prediction, target) == pytest.approx(100)

    def test_no_salient_pixel_is_zero(self):
        assert self.measured(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64)) == 0.0

    def test_label_out_of_range_is_refused(self):
        with pytest.raises(ValueError, match="index"):
            self.make().update(torch.full((1, 2, 3, 3), 9.0), torch.full((1, 3, 3), 2))


class TestMaxF(MaxFContract):
    pass


class TestMaxFDoubleSigmoid(MaxFContract):
    scores = "double_sigmoid"

    def score(self, prediction):
        return 1 / (1 + np.exp(-super().score(prediction)))

    @pytest.mark.parametrize("cut", [0.201, 0.405, 0.619, 0.847])
    def test_tells_probabilities_apart_at_four_places_only(self, cut):
        def measured(low, high, scores):
            logit = torch.tensor([low, high]).logit()
            prediction = torch.stack([torch.zeros(2), logit]).view(1, 2, 1, 2)
            metric = MaxF(scores=scores)
            metric.update(prediction, torch.tensor([[[0, 1]]]))
            return metric.compute()

        everything = 100 * 1.3 / (0.3 + 2)
        assert measured(cut - 0.002, cut + 0.002, "double_sigmoid") == pytest.approx(100)
        assert measured(cut + 0.002, cut + 0.14, "double_sigmoid") == pytest.approx(everything)
        assert measured(cut + 0.002, cut + 0.14, "softmax") == pytest.approx(100)
