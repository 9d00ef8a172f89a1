"""Taskonomy's normalisations, against values worked out by hand and the code of the scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from trainables.data.scenes import decode
from trainables.data.taskonomy import Taskonomy, TaskonomyConfig
from trainables.data.taskonomy.dataset import Prepare, resized
from trainables.data.taskonomy.layout import LABELS, LABELS_3D
from trainables.data.taskonomy.normalisation import NORMALISATIONS

MOD_SQUAD = NORMALISATIONS["mod_squad"]


def grey(*codes: float) -> np.ndarray:
    return np.array([codes], dtype=np.float32)


def colour(*codes: tuple[float, ...]) -> np.ndarray:
    return np.array([codes], dtype=np.float32)


def prepare(**fields: object) -> Prepare:
    return Prepare(TaskonomyConfig.parse({"image_size": 32, **fields}))


@pytest.mark.parametrize("label", ["depth_euclidean", "depth_zbuffer"])
def test_a_hole_of_depth_is_one_and_not_minus_infinity(label: str) -> None:
    # In 16 bits, 65535 + 1 is 0.
    holes = np.full((32, 32), 65535, dtype=np.uint16)
    holes[0, 0] = 0
    assert (np.uint16(1) + holes)[1, 1] == 0
    _, labels = prepare()({"image": np.zeros((32, 32, 3), np.uint8), label: holes}, [label], None)
    assert labels[label].dtype == torch.float32
    assert labels[label][0, 0, 0] == 0
    assert labels[label].flatten()[1:].tolist() == pytest.approx([1.0] * 1023, abs=1e-6)


@pytest.mark.parametrize(
    ("normalisation", "label", "codes", "wanted"),
    [
        ("mod_squad", "depth_zbuffer", (0, 511, 65535), (0, 9 / 16, 1)),
        ("mod_squad", "edge_texture", (0, 0.04 * 65536, 60000), (-1, 0, 1)),
        ("mod_squad", "keypoints2d", (0, 0.0025 * 65536, 400), (-1, 0, 1)),
        ("mod_squad", "keypoints3d", (0, 32768, 49152), (-1, 0, 0.5)),
        ("mod_squad", "segment_unsup2d", (0, 127.5, 255), (-1, 0, 1)),
        ("mod_squad", "segment_unsup25d", (0, 51, 255), (-1, -0.6, 1)),
        ("taskonomy", "depth_euclidean", (0, 511, 65535), (0, 9 / 16, 1)),
        ("taskgrouping", "depth_zbuffer", (1500, 2500, 8191), (0, 1, 6.691)),
        ("taskgrouping", "edge_occlusion", (56.0248, 295.1513), (0, 1)),
        ("taskgrouping", "edge_texture", (718, 1788), (0, 1)),
        ("taskgrouping", "keypoints2d", (50, 150, 0), (0, 1, -0.5)),
    ],
)
def test_grey_labels(normalisation: str, label: str, codes: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    out = NORMALISATIONS[normalisation][label](grey(*codes))
    assert out.shape == (1, 1, len(codes))
    assert out.flatten().tolist() == pytest.approx(list(wanted), abs=1e-5)


@pytest.mark.parametrize(
    ("normalisation", "label", "codes", "wanted"),
    [
        ("mod_squad", "normal", (0, 127.5, 255), (-1, 0, 1)),
        ("mod_squad", "principal_curvature", (123.572 + 31.922, 120.1 - 21.658, 0), (1, -1)),
        ("mod_squad", "reshading", (255, 255, 255), (1, 1, 1)),
        ("taskgrouping", "normal", (0, 127.5, 255), (-1, 0, 1)),
        ("taskgrouping", "principal_curvature", (255 * (0.5175 + 0.1373), 255 * (0.4987 - 0.0359), 0), (1, -1)),
        ("taskgrouping", "reshading", (255 * 0.4962,) * 3, (0, 0, 0)),
        ("taskgrouping", "reshading", (255 * (0.4962 + 0.2846),) * 3, (1, 1, 1)),
    ],
)
def test_colour_labels(normalisation: str, label: str, codes: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    out = NORMALISATIONS[normalisation][label](colour(codes))
    assert out.shape == (len(wanted), 1, 1)
    assert out.flatten().tolist() == pytest.approx(list(wanted), abs=1e-4)


def test_occlusion_edges_are_blurred_and_clipped_where_the_paper_clips() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 4000, (40, 40)).astype(np.float32)
    wanted = gaussian_filter(2 * codes / (0.00625 * 65536) - 1, sigma=4)
    assert wanted.max() > 1
    assert np.allclose(MOD_SQUAD["edge_occlusion"](codes)[0], wanted, atol=1e-4)
    assert np.allclose(NORMALISATIONS["taskonomy"]["edge_occlusion"](codes)[0], wanted.clip(-1, 1), atol=1e-4)


@pytest.mark.parametrize("label", ["edge_texture", "keypoints2d", "keypoints3d", "segment_unsup2d", "depth_zbuffer"])
def test_the_scenes_have_the_same_normalisation(label: str) -> None:
    top = 256 if label.startswith("segment") else 65536
    codes = np.random.default_rng(1).integers(0, top, (1, 8, 8)).astype(np.uint8 if top == 256 else np.uint16)
    theirs = decode.DECODERS[label][1](codes)[0]
    assert torch.allclose(MOD_SQUAD[label](codes[0].astype(np.float32)), theirs, atol=1e-6)


def test_what_a_normalisation_does_not_define_is_no_label_of_it() -> None:
    assert set(MOD_SQUAD) == set(LABELS) == set(Taskonomy.labels)
    assert set(LABELS) - set(NORMALISATIONS["taskonomy"]) == {"segment_unsup2d", "segment_unsup25d"}
    assert set(LABELS) - set(NORMALISATIONS["taskgrouping"]) == {"segment_unsup2d", "segment_unsup25d", "keypoints3d"}


def test_resizing_keeps_sixteen_bits_and_means() -> None:
    codes = np.full((64, 64), 40000, dtype=np.uint16)
    codes[:, 32:] = 40001
    out = resized(codes, 32, 2)
    assert out.dtype == np.float32
    assert out[:, :15].tolist() == [[40000.0] * 15] * 32
    assert out[:, 17:].tolist() == [[40001.0] * 15] * 32
    assert resized(codes, 64, 2).tolist() == codes.tolist()


def sample(side: int = 64) -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    raw = {"image": random.integers(0, 256, (side, side, 3)).astype(np.uint8)}
    for label, modes in LABELS.items():
        shape = (side, side, 3) if "RGB" in modes else (side, side)
        wide = modes[0].startswith("I")
        raw[label] = random.integers(0, 3000 if wide else 256, shape).astype(np.uint16 if wide else np.uint8)
    return raw


def seed_that(mirrors: bool, config: Prepare) -> int:
    """A seed whose draw mirrors, or does not."""
    raw = {"image": np.tile(np.arange(32, dtype=np.uint8)[None, :, None], (32, 1, 3))}
    return next(
        s for s in range(64) if bool(config(raw, [], s)[0][0, 0, 0] > config(raw, [], s)[0][0, 0, 1]) == mirrors
    )


@pytest.mark.parametrize("flip", ["mirror", "released"])
def test_a_mirrored_sample_is_the_mirrored_one_but_for_the_normals_x(flip: str) -> None:
    plain, mirroring = prepare(), prepare(flip=flip)
    raw, labels = sample(32), list(LABELS)
    image, wanted = plain(raw, labels, None)
    turned, given = mirroring(raw, labels, seed_that(True, mirroring))
    assert torch.equal(turned, image.flip(-1))
    for label in labels:
        mirrored = wanted[label].flip(-1)
        if label == "normal" and flip == "mirror":
            mirrored[0] *= -1
        assert torch.allclose(given[label], mirrored, atol=1e-5), label
    same, _ = mirroring(raw, labels, seed_that(False, mirroring))
    assert torch.equal(same, image)
    assert torch.equal(mirroring(raw, labels, None)[0], image)


def test_training_crops_at_random_and_measuring_in_the_middle() -> None:
    crop = prepare(resize=40)
    ramp = np.zeros((40, 40, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(40)[:, None], np.arange(40)[None]
    codes = (ramp[..., 0].astype(np.uint16) * 40 + ramp[..., 1]) * 20
    raw = {"image": ramp, "keypoints3d": codes}

    def corner(seed: int | None) -> int:
        return round((float(crop(raw, ["keypoints3d"], seed)[1]["keypoints3d"][0, 0, 0]) + 1) * 32768 / 20)

    assert corner(None) == 4 * 40 + 4
    corners = {corner(seed) for seed in range(400)}
    assert {value // 40 for value in corners} == set(range(9)) == {value % 40 for value in corners}
    assert corner(7) == corner(7)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_a_mask_covers_every_pixel_that_has_a_share_of_a_hole(interpolation: str) -> None:
    raw = sample(64)
    valid = np.ones((64, 64), dtype=bool)
    valid[:20, :20] = False
    _, labels = prepare(interpolation=interpolation, mask="files")({**raw, "mask": valid}, list(LABELS), None)
    for label, value in labels.items():
        masked = (value == 255).all(dim=0)
        assert torch.equal(masked, (value == 255).any(dim=0))
        if label not in LABELS_3D:
            assert not masked.any()
            continue
        assert masked[:10, :10].all()
        assert not masked[12:].any()
        assert not masked[:, 12:].any()


def test_nearest_makes_no_new_codes() -> None:
    raw = sample(64)
    out = prepare(interpolation="nearest")(raw, ["segment_unsup2d"], None)[1]["segment_unsup2d"]
    codes = ((out + 1) * 127.5).round().int()
    assert torch.allclose(codes / 127.5 - 1, out, atol=1e-5)
    assert set(codes.flatten().tolist()) <= set(raw["segment_unsup2d"].flatten().tolist())
