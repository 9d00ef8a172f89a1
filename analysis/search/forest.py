"""A random forest whose variance is taken apart exactly (Hutter, Hoos, Leyton-Brown, "An Efficient Approach for
Assessing Hyperparameter Importance", ICML 2014).

Each tree is constant on boxes, so that the mean over all axes but a few, and its variance, are sums over boxes and
pairs of boxes: nothing is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TREES = 64
_SEED = 0


@dataclass(frozen=True)
class _Tree:
    """One tree on the unit cube.

    Attributes:
        low: (L, D) lower ends of the L boxes.
        high: (L, D) upper ends.
        value: (L,) on each box, less the mean over the cube.
        mean: over the cube.
    """

    low: Array
    high: Array
    value: Array
    mean: float

    @cached_property
    def width(self) -> Array:
        return self.high - self.low

    def weights(self, axes: tuple[int, ...]) -> Array:
        """(L,) value times volume over all axes but ``axes``."""
        others = [d for d in range(self.low.shape[1]) if d not in axes]
        weights: Array = self.value * self.width[:, others].prod(axis=1)
        return weights

    def variance(self, axes: tuple[int, ...]) -> float:
        """Of the mean over all axes but ``axes``, over those."""
        weights = self.weights(axes)
        overlap = np.ones((len(weights), len(weights)))
        for d in axes:
            top = np.minimum.outer(self.high[:, d], self.high[:, d])
            overlap *= np.maximum(0.0, top - np.maximum.outer(self.low[:, d], self.low[:, d]))
        return float(weights @ overlap @ weights)

    @cached_property
    def total(self) -> float:
        """Variance over the cube."""
        return float((self.value**2 * self.width.prod(axis=1)).sum())


@dataclass(frozen=True)
class Forest:
    """A fitted forest. Made by :meth:`fit`."""

    trees: tuple[_Tree, ...]
    dimensions: int

    @classmethod
    def fit(cls, places: Array, values: Array) -> Forest:
        """Fit with a fixed seed: the same trials give the same numbers.

        Args:
            places: (N, D) in the unit cube; a choice's values in the middle of cells of equal width.
            values: (N,) finite.
        """
        from sklearn.ensemble import RandomForestRegressor

        model = RandomForestRegressor(n_estimators=TREES, random_state=_SEED, n_jobs=1)
        model.fit(places, values)
        trees = tuple(_boxes(estimator.tree_, places.shape[1]) for estimator in model.estimators_)
        return cls(trees, places.shape[1])

    @cached_property
    def shares(self) -> tuple[Array, Array]:
        """(D,) share of the variance of each axis alone and (D, D) of each pair beyond its two axes (symmetric, zeros
        on the diagonal), means over the trees."""
        size = self.dimensions
        mains, pairs = [], []
        for tree in self.trees:
            # A tree whose sample had one value has no variance to share.
            if tree.total <= 1e-24 * max(1.0, tree.mean**2):
                continue
            main = np.array([tree.variance((d,)) for d in range(size)])
            pair = np.zeros((size, size))
            for a in range(size):
                for b in range(a + 1, size):
                    pair[a, b] = pair[b, a] = max(0.0, tree.variance((a, b)) - main[a] - main[b])
            mains.append(main / tree.total)
            pairs.append(pair / tree.total)
        if not mains:
            return np.zeros(size), np.zeros((size, size))
        return np.mean(mains, axis=0), np.mean(pairs, axis=0)

    def surface(self, first: int, second: int, along: Array, up: Array) -> Array:
        """(len(up), len(along)) the mean over all other axes, at each pair of places of two axes."""
        out = np.zeros((len(up), len(along)))
        for tree in self.trees:
            weights = tree.weights((first, second))
            inside_x = (tree.low[:, first, None] <= along) & (along < tree.high[:, first, None])
            inside_y = (tree.low[:, second, None] <= up) & (up < tree.high[:, second, None])
            out += tree.mean + (inside_y * weights[:, None]).T @ inside_x.astype(np.float64)
        return out / len(self.trees)


def _boxes(tree: object, dimensions: int) -> _Tree:
    left, right = tree.children_left, tree.children_right  # type: ignore[attr-defined]
    feature, threshold, value = tree.feature, tree.threshold, tree.value  # type: ignore[attr-defined]
    lows, highs, values = [], [], []
    open_ = [(0, np.zeros(dimensions), np.ones(dimensions))]
    while open_:
        node, low, high = open_.pop()
        if left[node] < 0:
            lows.append(low)
            highs.append(high)
            values.append(float(value[node].ravel()[0]))
            continue
        d = feature[node]
        cut_high, cut_low = high.copy(), low.copy()
        cut_high[d] = cut_low[d] = threshold[node]
        open_ += [(left[node], low, cut_high), (right[node], cut_low, high)]
    low, high, numbers = np.array(lows), np.array(highs), np.array(values)
    mean = float((numbers * (high - low).prod(axis=1)).sum())
    return _Tree(low, high, numbers - mean, mean)
