from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.scenes import Scenes, ScenesSplit, decode, encode

TASKONOMY_CHANNELS = {
    "depth_euclidean": 1,
    "depth_zbuffer": 1,
    "edge_occlusion": 1,
    "edge_texture": 1,
    "keypoints2d": 1,
    "keypoints3d": 1,
    "normal": 3,
    "principal_curvature": 2,
    "reshading": 3,
    "segment_unsup2d": 1,
    "segment_unsup25d": 1,
}


def decoded(label: str, values: list[int], dtype: str = "uint16") -> list[float]:
    stored = np.array(values, dtype=dtype).reshape(1, 1, -1)
    return decode.DECODERS[label][1](stored).flatten().tolist()


@pytest.mark.parametrize("label", ["depth_euclidean", "depth_zbuffer"])
def test_log_depth_of_known_codes(label: str) -> None:
    # 0 -> 0; 255 -> log(256) / log(65536) = 1/2; a hole, 65535, is 1 and not the logarithm of an overflow.
    assert decoded(label, [0, 255, 65535]) == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)


def test_metres_and_holes() -> None:
    assert decoded("depth", [512, 1280, 65535]) == [1.0, 2.5, 0.0]


@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [
        ("edge_texture", [0, 2621, 65535], [-1.0, 0.0, 1.0]),  # 0.08 * 65536 = 5242.88, clipped
        ("keypoints2d", [0, 164, 9000], [-1.0, 0.0, 1.0]),  # 0.005 * 65536 = 327.68, clipped
        ("keypoints3d", [0, 32768, 65535], [-1.0, 0.0, 1.0]),
    ],
)
def test_scaled_labels_of_known_codes(label: str, values: list[int], expected: list[float]) -> None:
    assert decoded(label, values) == pytest.approx(expected, abs=2.5e-3)


@pytest.mark.parametrize("size", [64, 512])
def test_occlusion_edges_are_per_pixel_of_a_512_pixel_image_and_not_clipped(size: int) -> None:
    stored = np.zeros((1, 1, size), dtype=np.uint16)
    stored[0, 0, :3] = np.array([0, 204.8, 1228.8]) * 512 / size  # 0.00625 * 65536 = 409.6
    out = decode.occlusion(stored)
    assert out.shape == (1, 1, 1, size)
    assert out[0, 0, 0, :3].tolist() == pytest.approx([-1.0, 0.0, 5.0], abs=5e-3)


@pytest.mark.parametrize("label", ["segment_unsup2d", "segment_unsup25d"])
def test_segment_ids_are_regressed(label: str) -> None:
    assert decoded(label, [0, 51, 255], "uint8") == pytest.approx([-1.0, -0.6, 1.0], abs=1e-6)


def test_reshading_repeats_its_channel() -> None:
    out = decode.reshading(np.array([[[0, 255]]], dtype=np.uint8))
    assert out.tolist() == [[[[-1.0, 1.0]]] * 3]


def test_curvature_is_standardised() -> None:
    out = decode.curvature(np.array([[[[127, 127], [0, 254]]]], dtype=np.uint8))
    assert out.shape == (1, 2, 1, 2)
    assert out[0, :, 0, 0].tolist() == pytest.approx([(127 - 123.572) / 31.922, (127 - 120.1) / 21.658], abs=1e-5)
    assert out[0, :, 0, 1].tolist() == pytest.approx([-123.572 / 31.922, (254 - 120.1) / 21.658], abs=1e-5)


@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 1e-3))
def test_normals_come_back_as_unit_vectors(vector: tuple[float, ...]) -> None:
    unit = np.array(vector) / np.linalg.norm(vector)
    out = decode.normal(encode.normal(unit[None, None, None]))[0, :, 0, 0].numpy()
    assert np.linalg.norm(out) == pytest.approx(1.0, abs=1e-5)
    assert np.degrees(np.arccos(np.clip(out @ unit, -1, 1))) < 0.5


def test_hole_of_the_normals_is_the_zero_vector() -> None:
    assert decode.normal(np.full((1, 2, 2, 3), 128, dtype=np.uint8)).abs().max() == 0


def test_image_is_standardised_by_imagenet() -> None:
    stored = np.array([[[[0, 128, 255]]]], dtype=np.uint8)
    out = decode.image(stored)[0, :, 0, 0].tolist()
    assert out == pytest.approx([-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225], abs=1e-5)


def test_batch_shapes_types_and_order(small_split: ScenesSplit) -> None:
    indices = np.array([5, 0, 5])
    images, labels = small_split.batch(indices, Scenes.labels)
    assert images.shape == (3, 3, 48, 48)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    for name, channels in {**TASKONOMY_CHANNELS, "depth": 1, "edge": 1}.items():
        assert labels[name].shape == (3, channels, 48, 48), name
        assert labels[name].dtype == torch.float32, name
    for name in ("semseg", "human_parts", "saliency"):
        assert labels[name].shape == (3, 48, 48), name
        assert labels[name].dtype == torch.int64, name
    alone, _ = small_split.batch(np.array([0]), [])
    assert torch.equal(images[1], alone[0])
    assert torch.equal(images[0], images[2])


def test_every_label_is_finite_and_varies(small_split: ScenesSplit) -> None:
    _, labels = small_split.batch(np.arange(len(small_split)), Scenes.labels)
    for name, label in labels.items():
        assert torch.isfinite(label.float()).all(), name
        assert all(channel.float().std() > 0 for channel in label.movedim(1, 0)) or label.ndim == 3, name
        assert label.float().std() > 0, name
        # Each sample differs from the first one, but for the pictures without people.
        if name != "human_parts":
            assert not torch.equal(label[0], label[1]), name
    assert labels["edge_occlusion"].max() > 0
    assert labels["keypoints3d"].max() > -0.5
    assert (labels["keypoints2d"] >= 1).float().mean() < 0.2
    assert (labels["edge_texture"] >= 1).float().mean() < 0.2


def test_labels_of_one_batch_agree_with_each_other(small_split: ScenesSplit) -> None:
    _, labels = small_split.batch(np.arange(len(small_split)), Scenes.labels)
    hole = labels["depth"][:, 0] == 0
    assert 0.04 < hole.float().mean() < 0.06
    assert torch.equal(hole, labels["depth_zbuffer"][:, 0] == 1)
    assert torch.equal(hole, labels["normal"].abs().sum(1) == 0)
    assert torch.equal(hole, labels["semseg"] == 255)
    assert (labels["depth_euclidean"] >= labels["depth_zbuffer"]).all()
    person = labels["semseg"] == Scenes.SEMSEG_CLASSES.index("person")
    parts = labels["human_parts"]
    assert labels["semseg"][~hole].max() < len(Scenes.SEMSEG_CLASSES)
    for i in range(len(small_split)):
        if (parts[i] == 255).all():
            assert not person[i].any()
        else:
            assert parts[i].max() < Scenes.NUM_PARTS
            assert torch.equal((parts[i] > 0) & ~hole[i], person[i])
            assert torch.equal(labels["saliency"][i].bool() & ~hole[i], person[i])
    assert {255, 0, 2} <= set(parts.unique().tolist())
    assert set(labels["saliency"].unique().tolist()) == {0, 1}
    assert set(labels["edge"].unique().tolist()) == {0.0, 1.0}
