"""Edge maps as lines: non-maximum suppression, thinning, outlines of regions, one-to-one matching. NumPy, CPU."""

from __future__ import annotations

import functools

import numpy as np
from scipy.ndimage import convolve1d, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""The eight neighbours (dy, dx), counter-clockwise from east: x1 ... x8 of Guo & Hall."""

_FADE = 5
"""Width of the faded border, in pixels."""
_TOLERANCE = 1.01
"""How much a neighbour must exceed a pixel to suppress it."""


def thin(masks: np.ndarray) -> np.ndarray:
    """Thin every mask of a stack to lines one pixel wide that keep its connectivity.

    The two-pass parallel algorithm of Guo and Hall (Communications of the ACM 32, 1989), the one behind ``bwmorph(...,
    'thin', Inf)`` and ``skimage.morphology.thin``. Only pixels that are still set are looked at, so sparse maps are
    cheap.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, H, W) bool.
    """
    framed = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    width = framed.shape[2]
    flat = framed.reshape(-1).astype(np.uint8)
    offsets = [dy * width + dx for dy, dx in _AROUND]
    pixels = np.flatnonzero(flat)
    removable = _removable()
    while True:
        before = pixels.size
        for table in removable:
            code = np.zeros(pixels.size, dtype=np.uint8)
            for bit, offset in enumerate(offsets):
                code |= flat[pixels + offset] << np.uint8(bit)
            gone = table[code]
            flat[pixels[gone]] = 0
            pixels = pixels[~gone]
        if pixels.size == before:
            break
    return flat.reshape(framed.shape)[:, 1:-1, 1:-1].astype(bool)


@functools.cache
def _removable() -> tuple[np.ndarray, np.ndarray]:
    """Two (256,) bool tables, one a pass: whether a pixel with these neighbours (bit k is x(k+1)) goes."""
    codes = np.arange(256)
    x = [(codes >> k) % 2 == 1 for k in range(8)]
    crossings = sum((~x[2 * i] & (x[2 * i + 1] | x[(2 * i + 2) % 8])).astype(int) for i in range(4))
    pairs = [sum((x[(2 * i + s) % 8] | x[(2 * i + s + 1) % 8]).astype(int) for i in range(4)) for s in (0, 1)]
    fewest = np.minimum(*pairs)
    simple = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    first = simple & ~((x[1] | x[2] | ~x[7]) & x[0])
    second = simple & ~((x[5] | x[6] | ~x[3]) & x[4])
    return first, second


def outline(regions: np.ndarray) -> np.ndarray:
    """Boundaries of regions: where the pixel to the east, south or south-east differs (BSDS's ``seg2bmap``).

    Args:
        regions: (H, W) of any type.

    Returns:
        (H, W) bool.
    """
    padded = np.pad(regions, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:])


def match_count(a: np.ndarray, b: np.ndarray, radius: float) -> int:
    """The most pairs of a pixel of ``a`` and one of ``b``, each at most ``radius`` pixels apart, no pixel twice.

    A maximum flow (Dinic); ``scipy.sparse.csgraph.maximum_bipartite_matching`` is exact as well but took minutes on
    single images.

    Args:
        a: (H, W) bool.
        b: (H, W) bool.
        radius: in pixels.
    """
    if radius < 1:
        return int((a & b).sum())
    ys, xs = np.nonzero(a)
    reach = int(radius)
    number = np.full((b.shape[0] + 2 * reach, b.shape[1] + 2 * reach), -1)
    count_a, count_b = ys.size, int(b.sum())
    if not count_a or not count_b:
        return 0
    number[reach : reach + b.shape[0], reach : reach + b.shape[1]][b] = np.arange(count_b)
    sources, sinks = [], []
    span = range(-reach, reach + 1)
    for dy, dx in ((dy, dx) for dy in span for dx in span if dy * dy + dx * dx <= radius * radius):
        other = number[ys + reach + dy, xs + reach + dx]
        near = np.flatnonzero(other >= 0)
        sources.append(near)
        sinks.append(other[near])
    left, right = np.concatenate(sources), np.concatenate(sinks)
    if not left.size:
        return 0
    # Nodes: the source, a's pixels, b's pixels, the sink; every edge carries one.
    end = 1 + count_a + count_b
    tails = np.concatenate([np.zeros(count_a, dtype=int), 1 + left, 1 + count_a + np.arange(count_b)])
    heads = np.concatenate([1 + np.arange(count_a), 1 + count_a + right, np.full(count_b, end)])
    graph = coo_array((np.ones(tails.size, dtype=np.int32), (tails, heads)), shape=(end + 1, end + 1)).tocsr()
    return int(maximum_flow(graph, 0, end, method="dinic").flow_value)


def suppress_non_maxima(edges: np.ndarray) -> np.ndarray:
    """Keep only the crests of an edge map: what does not fall off across the edge becomes zero.

    The direction across the edge is that of the second derivatives of the map after a triangle filter of radius 4; a
    pixel stays where 1.01 times its value reaches both bilinear samples one pixel away in that direction. The outer 5
    pixels are then faded linearly to zero (structured edge detection, Dollar and Zitnick 2013; SEISM's reader of
    continuous edge images).

    Args:
        edges: (H, W) float, in [0, 1].

    Returns:
        (H, W) float64: each value its own, faded or zero.
    """
    edges = edges.astype(np.float64)
    height, width = edges.shape
    angle = across(edges)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    keep = np.ones(edges.shape, dtype=bool)
    for step in (-1, 1):
        where = np.stack([rows + step * np.sin(angle), columns + step * np.cos(angle)])
        keep &= edges * _TOLERANCE >= map_coordinates(edges, where, order=1, mode="nearest")
    fade = max(min(_FADE, height // 2, width // 2), 1)
    return np.where(keep, edges, 0.0) * np.outer(_ramp(height, fade), _ramp(width, fade))


def across(edges: np.ndarray) -> np.ndarray:
    """(H, W) angle in [0, pi), against the columns' axis, of the direction across the edge."""
    smooth = edges
    kernel = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
    for axis in (0, 1):
        smooth = convolve1d(smooth, kernel, axis=axis, mode="reflect")
    if min(edges.shape) < 2:
        return np.zeros(edges.shape)
    dy, dx = np.gradient(smooth)
    dxy, dxx = np.gradient(dx)
    dyy = np.gradient(dy, axis=0)
    # The benchmark has sign(-dxy), which is 0 on an exactly level edge and so takes it for an upright one.
    return np.mod(np.arctan(np.where(dxy > 0, -dyy, dyy) / (dxx + 1e-5)), np.pi)


def _ramp(size: int, fade: int) -> np.ndarray:
    """(``size``,) rising 0, 1/``fade``, 2/``fade`` ... 1 from both ends."""
    from_border = np.minimum(np.arange(size), np.arange(size)[::-1])
    return np.minimum(from_border / fade, 1.0)
