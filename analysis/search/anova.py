"""Analysis of variance of a complete factorial, exact: no model, no sampling."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Decomposition:
    """Shares of the variance of all values; they and ``higher`` and ``residual`` add up to 1.

    Attributes:
        main: (D,) of each factor alone.
        pairs: (D, D) of each pair beyond its two factors; symmetric, zeros on the diagonal.
        higher: of three factors and more together.
        residual: between replicates of one cell.
    """

    main: Array
    pairs: Array
    higher: float
    residual: float


def is_complete_factorial(levels: Sequence[Sequence[Any]]) -> bool:
    """Whether every combination of the levels that occur occurs, and all equally often.

    Args:
        levels: N rows of D hashable levels.
    """
    if not levels or not levels[0]:
        return False
    counts = Counter(map(tuple, levels))
    size = 1
    for column in zip(*levels, strict=True):
        size *= len(set(column))
    return len(counts) == size and len(set(counts.values())) == 1


def decompose(levels: Sequence[Sequence[Any]], values: Sequence[float]) -> Decomposition:
    """The functional ANOVA of a complete factorial, every level weighing the same (for a balanced design the classical
    sums of squares).

    Args:
        levels: N rows of D hashable levels, with :func:`is_complete_factorial`.
        values: (N,) finite.

    Raises:
        ValueError: the factorial is not complete, or the values are all the same.
    """
    if not is_complete_factorial(levels):
        raise ValueError("every combination of levels is wanted, equally often")
    numbers = np.asarray(values, dtype=np.float64)
    columns = [
        {level: code for code, level in enumerate(dict.fromkeys(column))} for column in zip(*levels, strict=True)
    ]
    codes = np.array([[columns[d][level] for d, level in enumerate(row)] for row in levels])
    shape = tuple(len(column) for column in columns)
    total = np.zeros(shape)
    count = np.zeros(shape)
    np.add.at(total, tuple(codes.T), numbers)
    np.add.at(count, tuple(codes.T), 1)
    cells = total / count
    variance = float(np.mean((numbers - numbers.mean()) ** 2))
    # Rounding alone leaves less than this between equal values.
    if variance <= 1e-24 * max(1.0, float(np.max(np.abs(numbers))) ** 2):
        raise ValueError("the values are all the same")
    dimensions = range(len(shape))
    centred = cells - cells.mean()

    def effect(kept: tuple[int, ...]) -> Array:
        away = tuple(d for d in dimensions if d not in kept)
        mean: Array = centred.mean(axis=away, keepdims=True) if away else centred
        return mean

    single = [effect((d,)) for d in dimensions]
    main = np.array([np.mean(part**2) for part in single]) / variance
    pairs = np.zeros((len(shape), len(shape)))
    for a, b in itertools.combinations(dimensions, 2):
        pairs[a, b] = pairs[b, a] = np.mean((effect((a, b)) - single[a] - single[b]) ** 2) / variance
    between = float(np.mean(centred**2)) / variance
    higher = max(0.0, between - main.sum() - pairs.sum() / 2)
    return Decomposition(main, pairs, higher, max(0.0, 1.0 - between))
