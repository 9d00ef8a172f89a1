from __future__ import annotations

import os
import subprocess
import sys
from subprocess import PIPE

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from skimage.morphology import thin as skimage_thin

from study.testing import IgnoringMetricContract
from trainables.metrics import OdsF, lines
from trainables.metrics.edges import threshold_values
from trainables.metrics.lines import match_count, outline, suppress_non_maxima, thin
from trainables.processes import helpers

masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def assigned(a, b, radius):
    """The size of the largest matching, as an assignment problem over all pairs."""
    near = cdist(np.argwhere(a), np.argwhere(b)) <= radius if a.any() and b.any() else np.zeros((0, 0))
    rows, columns = linear_sum_assignment(near, maximize=True)
    return int(near[rows, columns].sum())


class OdsFContract(IgnoringMetricContract):
    sizes = (16, 24)
    waits = True
    max_dist = 0.08
    nms = False
    truth = "thin"

    def make(self):
        return OdsF(self.max_dist, thresholds=4, nms=self.nms, truth=self.truth)

    def batch(self, count, generator):
        noise = torch.randn(count, 2, *self.sizes, generator=generator).numpy()
        smooth = gaussian_filter(noise, (0, 0, 1.5, 1.5))
        target = torch.from_numpy(np.abs(smooth[:, :1]) < 0.04).float()
        prediction = torch.from_numpy(2 - 30 * np.abs(smooth[:, :1] + 0.3 * smooth[:, 1:])).double()
        return prediction, target

    def ignore(self, target, where):
        return target.masked_fill(where.unsqueeze(1), 255)

    def reference(self, prediction, target):
        probability = torch.from_numpy(prediction).sigmoid().numpy()[:, 0]
        levels = np.floor(probability * 255) / 255
        matched, called, true = np.zeros(4), np.zeros(4), 0
        for raw, label in zip(levels, target[:, 0], strict=True):
            valid = label != 255
            level = suppress_non_maxima(np.where(valid, raw, 0)) if self.nms else raw
            edges = (label == 1) & valid
            line = skimage_thin(outline(edges) & valid if self.truth == "outline" else edges)
            true += line.sum()
            radius = self.max_dist * np.hypot(*self.sizes)
            for k in range(4):
                mine = skimage_thin((level > (k + 1) / 5) & valid)
                matched[k] += assigned(mine, line, radius)
                called[k] += mine.sum()
        precision, recall = matched / np.maximum(called, 1), matched / true
        return 100 * float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))

    def test_perfect_lines_are_hundred(self):
        target = torch.zeros(2, 1, 40, 40)
        target[0, 0, 20, 8:32] = 1
        target[1, 0, 8:32, 17] = 1
        metric = self.make()
        metric.update(40 * target - 20, target)
        assert metric.compute() == pytest.approx(100)

    def test_no_edges_anywhere_is_zero(self):
        assert self.measured(torch.full((1, 1, 16, 24), -9.0), torch.zeros(1, 1, 16, 24)) == 0.0


class TestOdsF(OdsFContract):
    def test_shifted_lines_match_within_the_tolerance_only(self):
        target, prediction = torch.zeros(1, 1, 40, 30), torch.full((1, 1, 40, 30), -9.0)
        target[..., 20, 8:24] = 1
        prediction[..., 23, 8:24] = 9.0
        for radius, expected in ((2.9, 0.0), (3.1, 100.0)):
            metric = OdsF(radius / 50, thresholds=4, nms=False)
            metric.update(prediction, target)
            assert metric.compute() == pytest.approx(expected)

    def test_padding_that_is_ignored_changes_nothing(self):
        prediction, target = self.samples()
        padded_p = torch.nn.functional.pad(prediction, (3, 4, 5, 6), value=7.0)
        padded_t = torch.nn.functional.pad(target, (3, 4, 5, 6), value=255)
        assert self.measured(padded_p, padded_t) == self.measured(prediction, target)

    def test_picks_one_threshold_for_the_whole_set(self):
        # Each image has one right pixel and one wrong one; no single threshold is right for both images.
        target = torch.zeros(2, 1, 5, 5)
        target[:, 0, 2, 1] = 1
        level = torch.full((2, 1, 5, 5), 1e-3)
        level[0, 0, 2, 1], level[0, 0, 2, 3] = 0.95, 0.5
        level[1, 0, 2, 1], level[1, 0, 2, 3] = 0.5, 0.1
        metric = OdsF(0.01, thresholds=4, nms=False)
        metric.update(level.logit(), target)
        # Above .4 both right pixels and one wrong one, above .6 one right pixel and nothing wrong.
        assert metric.compute() == pytest.approx(100 * 2 * 2 / (3 + 2))


def test_processes_that_help_change_nothing():
    generator = torch.Generator().manual_seed(0)
    batches = [TestOdsFSuppressed().batch(count, generator) for count in (3, 1, 5)]
    alone, helped = OdsF(0.08), OdsF(0.08)
    with helpers(2) as executor:
        assert executor is not None
        helped.executor = executor
        for prediction, target in batches:
            alone.update(prediction, target)
            helped.update(prediction, target)
    assert torch.equal(helped.sums, alone.sums)


def test_nobody_helps_where_nobody_can():
    with helpers(1) as executor:
        assert executor is None


def test_helpers_leave_with_a_killed_parent(tmp_path):
    """The parent starts two, says who they are, and is killed while they wait for work."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os\nfrom trainables.processes import helpers\n"
        "if __name__ == '__main__':\n"
        "    with helpers(2) as executor:\n"
        "        print(*{executor.submit(os.getpid).result() for _ in range(2)}, flush=True)\n"
        "        input()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, script], stdin=PIPE, stdout=PIPE, text=True, env=environment) as parent:
        helping = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert helping
        parent.kill()
    gone, alive = psutil.wait_procs(helping, timeout=30)
    assert gone
    assert not alive


class TestOdsFSmallTolerance(OdsFContract):
    max_dist = 0.011


class TestOdsFOutline(OdsFContract):
    truth = "outline"

    def test_perfect_lines_are_hundred(self):
        assert outline(np.eye(4)[:, :3]).sum() > np.eye(4)[:, :3].sum()


class TestOdsFSuppressed(OdsFContract):
    nms = True

    def test_the_border_is_that_of_the_valid_pixels(self):
        prediction, target = self.samples()
        where = torch.zeros(9, *self.sizes, dtype=torch.bool)
        where[..., :2] = True
        cropped = self.measured(prediction[..., 2:], target[..., 2:])
        assert self.measured(prediction, self.ignore(target, where)) == cropped
        assert cropped != self.measured(prediction, target)


def test_full_thresholds_are_the_benchmarks():
    values = threshold_values(101)
    assert values.shape == (101,)
    assert values[[0, 1, 50, 99, 100]].tolist() == [0.001, 0.01, 0.5, 0.99, 0.999]
    assert np.isin(np.round(threshold_values(19), 9), np.round(values, 9)).all()


@given(masks)
def test_thinning_is_that_of_scikit_image(mask):
    assert np.array_equal(thin(mask[None])[0], skimage_thin(mask))


def test_thinning_of_blobs_is_that_of_scikit_image():
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal((6, 60, 40)), (0, 2, 2))
    stack = smooth > np.quantile(smooth, 0.5)
    assert np.array_equal(thin(stack), np.stack([skimage_thin(mask) for mask in stack]))


@given(masks, st.data())
def test_matching_is_the_largest(a, data):
    b = data.draw(hnp.arrays(bool, a.shape))
    radius = data.draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.3, 6.0]))
    count = match_count(a, b, radius)
    assert count == assigned(a, b, radius)
    assert count == match_count(b, a, radius)


def test_outline_of_regions():
    regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    assert outline(regions).tolist() == [[False, True, False], [True, True, True], [False, False, False]]


class TestSuppression:
    """Against values worked out pixel by pixel, with the direction across the edge known by symmetry."""

    @pytest.mark.parametrize("transposed", [False, True])
    def test_keeps_the_crest_of_a_ridge_and_fades_the_border(self, transposed):
        profile = np.exp(-((np.arange(41) - 20.0) ** 2) / 18)
        ridge = np.tile(profile, (31, 1))
        kept = suppress_non_maxima(ridge.T if transposed else ridge)
        kept = kept.T if transposed else kept
        assert np.array_equal(np.flatnonzero(kept[15]), [20])
        fade = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
        assert kept[:6, 20] == pytest.approx(fade)
        assert kept[::-1][:6, 20] == pytest.approx(fade)

    def test_never_raises_a_value(self):
        edges = np.random.default_rng(0).random((20, 33))
        kept = suppress_non_maxima(edges)
        inside = kept[5:-5, 5:-5]
        assert (kept <= edges).all()
        assert np.isin(inside, np.append(edges[5:-5, 5:-5], 0.0)).all()
        assert 0 < (inside > 0).mean() < 0.7

    def test_agrees_with_a_loop_over_pixels(self):
        edges = gaussian_filter(np.random.default_rng(1).random((14, 18)), 1)
        assert suppress_non_maxima(edges) == pytest.approx(loop(edges))

    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
    def test_tiny_images(self, shape):
        assert suppress_non_maxima(np.ones(shape)).shape == shape


def loop(edges):
    """Suppression from its definition, one pixel at a time."""
    height, width = edges.shape
    weights = [1, 2, 3, 4, 5, 4, 3, 2, 1]

    def at(image, y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(min(y, height - 1.001)), int(min(x, width - 1.001))
        fy, fx = y - y0, x - x0
        top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
        return top * (1 - fy) + (image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx) * fy

    padded = np.pad(edges, 4, mode="symmetric")
    smooth = np.array(
        [
            [(padded[y : y + 9, x : x + 9] * np.outer(weights, weights)).sum() / 625 for x in range(width)]
            for y in range(height)
        ]
    )
    gy, gx = np.gradient(smooth)
    gxy, gxx = np.gradient(gx)
    gyy = np.gradient(gy)[0]
    kept = edges.copy()
    for y in range(height):
        for x in range(width):
            angle = np.arctan(gyy[y, x] * np.sign(-gxy[y, x]) / (gxx[y, x] + 1e-5)) % np.pi
            sides = [at(edges, y + s * np.sin(angle), x + s * np.cos(angle)) for s in (-1, 1)]
            if 1.01 * edges[y, x] < max(sides):
                kept[y, x] = 0
            kept[y, x] *= min(min(y, height - 1 - y, 5) / 5, 1) * min(min(x, width - 1 - x, 5) / 5, 1)
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_pyedgeeval(seed):
    """The benchmark's own C++: suppression to the last bits, matching never smaller and at most 0.2 % larger (its
    solver works on a random sparse graph). To install it: Cython and NumPy, then ``pip install --no-build-isolation
    pyEdgeEval opencv-python-headless``."""
    theirs = pytest.importorskip("pyEdgeEval._lib", reason="pyEdgeEval is not installed; it has to be compiled")
    rng = np.random.default_rng(seed)
    edges = gaussian_filter(rng.random((200, 260)), 1 + seed)
    edges = np.floor((edges - edges.min()) / np.ptp(edges) * 255) / 255
    mine = suppress_non_maxima(edges)
    np.testing.assert_allclose(mine, theirs.nms(edges, lines.across(edges), r=1, s=5, m=1.01), rtol=0, atol=1e-15)
    moved = gaussian_filter(np.roll(edges, 2, 0) + 0.02 * rng.standard_normal(edges.shape), 1)
    a, b = thin(np.stack([mine > 0.5, moved > 0.55]))
    for distance in (0.0075, 0.011):
        matched, *_ = theirs.correspond_pixels(a.astype(float), b.astype(float), max_dist=distance)
        size = match_count(a, b, distance * np.hypot(*a.shape))
        assert 0 <= size - (matched > 0).sum() <= 0.002 * size
