"""One scene and everything that is stored of it. What the worker processes of a build run."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from trainables.data.base import SPLITS
from trainables.data.scenes import encode, filters
from trainables.data.scenes.config import ScenesConfig
from trainables.data.scenes.furniture import HEAD, PERSON
from trainables.data.scenes.keypoints3d import keypoints3d
from trainables.data.scenes.render import Frame, cast, photograph
from trainables.data.scenes.segments import segment_unsup2d, segment_unsup25d
from trainables.data.scenes.world import random_scene
from trainables.data.store import ArraySpec

IGNORE = 255
"""Class of the pixels without a label."""

_ROOM_INSTANCES = 3
"""Wall, floor and ceiling are the first instances of every scene, and never its subject."""


def arrays(config: ScenesConfig) -> dict[str, ArraySpec]:
    """Shape and type of what is stored of a sample, by name.

    ``image`` is RGB; the eleven Taskonomy labels are in Taskonomy's encodings (``edge_occlusion_blurred`` is the label
    after the loaders' Gaussian); ``semseg`` and ``human_parts`` are class indices with 255 for ignore, ``saliency``
    and ``edge`` 0/1.
    """
    plane = (config.image_size, config.image_size)
    uint8, uint16 = ArraySpec(plane, "uint8"), ArraySpec(plane, "uint16")
    return {
        "image": ArraySpec((*plane, 3), "uint8"),
        "depth_euclidean": uint16,
        "depth_zbuffer": uint16,
        "edge_occlusion": uint16,
        "edge_occlusion_blurred": uint16,
        "edge_texture": uint16,
        "keypoints2d": uint16,
        "keypoints3d": uint16,
        "normal": ArraySpec((*plane, 3), "uint8"),
        "principal_curvature": ArraySpec((*plane, 2), "uint8"),
        "reshading": uint8,
        "segment_unsup2d": uint8,
        "segment_unsup25d": uint8,
        "semseg": uint8,
        "human_parts": uint8,
        "saliency": uint8,
        "edge": uint8,
    }


def make_sample(config: ScenesConfig, split: str, index: int) -> dict[str, np.ndarray]:
    """The arrays of :func:`arrays` for one scene, drawn from a generator of its own: (seed, split, index)."""
    seeds = np.random.SeedSequence([config.seed, SPLITS.index(split), index]).spawn(3)
    world_rng, noise_rng, hole_rng = (np.random.default_rng(seed) for seed in seeds)
    scene = random_scene(config, world_rng)
    frame = cast(scene)
    image = photograph(scene, config.noise, noise_rng)
    holes = hole_mask(config.image_size, config.holes, hole_rng)
    depth_zbuffer = encode.depth(np.where(holes, np.inf, frame.depth))
    euclidean = frame.depth * frame.ray_length
    normal = encode.normal(frame.normal)
    curvature = encode.principal_curvature(frame.curvature)
    reshading = encode.reshading(frame.normal, frame.rays, euclidean)
    normal[holes] = encode.NORMAL_HOLE
    curvature[holes] = encode.CURVATURE_FLAT
    reshading[holes] = 0
    gray = filters.gray(image)
    edge_occlusion = filters.edge_occlusion(depth_zbuffer)
    return {
        "image": image,
        "depth_euclidean": encode.depth(np.where(holes, np.inf, euclidean)),
        "depth_zbuffer": depth_zbuffer,
        "edge_occlusion": edge_occlusion,
        "edge_occlusion_blurred": filters.blur_occlusion(edge_occlusion),
        "edge_texture": filters.edge_texture(gray),
        "keypoints2d": filters.keypoints2d(gray),
        "keypoints3d": keypoints3d(depth_zbuffer, frame.normal, scene.camera.focal),
        "normal": normal,
        "principal_curvature": curvature,
        "reshading": reshading,
        "segment_unsup2d": segment_unsup2d(image),
        "segment_unsup25d": segment_unsup25d(depth_zbuffer, normal, edge_occlusion),
        "semseg": np.where(holes, IGNORE, frame.semantic).astype(np.uint8),
        "human_parts": human_parts(frame),
        "saliency": saliency(frame),
        "edge": filters.boundaries(frame.instance),
    }


def human_parts(frame: Frame) -> np.ndarray:
    """uint8 (H, W): 0 background, 1..6 parts; 255 all over where nobody is in the picture, as in PASCAL-Context."""
    if not (frame.part >= HEAD).any():
        return np.full(frame.part.shape, IGNORE, dtype=np.uint8)
    return frame.part.astype(np.uint8)


def saliency(frame: Frame) -> np.ndarray:
    """uint8 (H, W) 0/1: the people in the picture, else the object that covers most of it near its centre."""
    people = frame.semantic == PERSON
    if people.any():
        return people.astype(np.uint8)
    size = frame.instance.shape[0]
    steps = (np.arange(size) + 0.5) / size - 0.5
    central = np.exp(-(steps[:, None] ** 2 + steps[None, :] ** 2) / (2.0 * 0.25**2))
    cover = np.bincount(frame.instance.ravel(), weights=central.ravel(), minlength=_ROOM_INSTANCES + 1)
    cover[:_ROOM_INSTANCES] = 0.0
    if not cover.any():
        return np.zeros(frame.instance.shape, dtype=np.uint8)
    return (frame.instance == int(np.argmax(cover))).astype(np.uint8)


def hole_mask(size: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """(size, size) bool: blobs that cover ``fraction`` of the image."""
    count = round(fraction * size * size)
    mask = np.zeros(size * size, dtype=bool)
    if count:
        field = ndimage.gaussian_filter(rng.standard_normal((size, size)), 0.06 * size, mode="wrap")
        mask[np.argsort(field, axis=None, kind="stable")[:count]] = True
    return mask.reshape(size, size)
