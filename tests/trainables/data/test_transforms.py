from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainables.data.invpt import finish
from trainables.data.nyud import NYUDConfig
from trainables.data.transforms import (
    AugmentConfig,
    View,
    adapt,
    draw_view,
    nearest,
    pad,
    photometric,
    recolor,
    take,
    take_image,
)

PLAIN = AugmentConfig()
STILL = {"scale": (1.0, 1.0), "flip": 0.0, "photometric": False, "crop_max_ratio": 1.0}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_nearest_is_the_pixel_under_the_centre() -> None:
    assert nearest(4, 8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert nearest(8, 4).tolist() == [1, 3, 5, 7]
    assert nearest(3, 3).tolist() == [0, 1, 2]
    assert nearest(2, 3).tolist() == [0, 1, 1]


@given(st.integers(1, 50), st.integers(1, 50))
def test_nearest_stays_inside_in_order_and_reads_the_same_from_both_ends(length: int, resized: int) -> None:
    index = nearest(length, resized)
    assert ((index >= 0) & (index < length)).all()
    assert (np.diff(index) >= 0).all()
    exact = (np.arange(resized) + 0.5) * length / resized
    assert (np.abs(index + 0.5 - exact) <= 0.5).all()


def test_a_view_of_a_ramp_is_the_ramp_moved() -> None:
    ramp = np.arange(20 * 30).reshape(20, 30)
    view = View((20, 30), 3, 5, (10, 12))
    assert (take(ramp, view) == ramp[3:13, 5:17]).all()
    flipped = View((20, 30), 3, 5, (10, 12), flip=True)
    assert (take(ramp, flipped) == ramp[3:13, 5:17][:, ::-1]).all()
    double = View((40, 60), 6, 10, (20, 24), scale=2.0)
    assert (take(ramp, double) == np.repeat(np.repeat(ramp[3:13, 5:17], 2, 0), 2, 1)).all()


def test_depth_is_divided_by_the_scale_unless_kept() -> None:
    depth = np.array([[3.0, 0.0]], dtype=np.float32)
    view = View((2, 4), 0, 0, (2, 4), scale=1.5)
    assert adapt(depth, "depth", view, PLAIN).tolist() == [[2.0, 0.0]]
    assert adapt(depth, "depth", view, PLAIN).dtype == np.float32
    assert adapt(depth, "depth", view, AugmentConfig(depth_scaling="keep")).tolist() == [[3.0, 0.0]]
    assert adapt(depth, "edge", view, PLAIN).tolist() == [[3.0, 0.0]]


def test_a_flipped_normal_points_the_other_way_unless_kept() -> None:
    normal = np.array([[[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]]], dtype=np.float32)
    view = View((1, 2), 0, 0, (1, 2), flip=True)
    turned = adapt(normal, "normal", view, PLAIN)
    assert turned.tolist() == (normal * [-1, 1, 1]).tolist()
    assert (adapt(normal, "normal", view, AugmentConfig(flip_normals="keep")) == normal).all()
    assert (adapt(normal, "normal", View.whole((1, 2)), PLAIN) == normal).all()


def test_padding_is_around_the_middle() -> None:
    padded = pad(np.ones((2, 3), dtype=np.uint8), (5, 5), 255)
    assert (padded == 255).sum() == 19
    assert (padded[1:3, 1:4] == 1).all()
    with pytest.raises(ValueError, match="6x5 pixels do not fit into 5x5"):
        pad(np.ones((5, 6)), (5, 5), 0)


@pytest.mark.parametrize("size", [(26, 38), (10, 15), (40, 64)])
def test_a_crop_of_a_resized_image_is_the_resized_image_cropped(size: tuple[int, int]) -> None:
    image = rng().integers(0, 256, (20, 30, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    view = View(size, 2, 3, (7, 9))
    part = take_image(image, view)
    assert part.shape == (7, 9, 3)
    assert np.abs(part.astype(int) - whole[2:9, 3:12]).max() <= 1
    flipped = take_image(image, View(size, 2, 3, (7, 9), flip=True))
    assert (flipped == part[:, ::-1]).all()


def test_an_image_that_is_not_resized_is_not_touched() -> None:
    image = rng().integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert (take_image(image, View((20, 30), 4, 6, (8, 10))) == image[4:12, 6:16]).all()


def test_views_are_within_the_ranges_asked_for() -> None:
    config = AugmentConfig(scale=(0.5, 2.0))
    views = [draw_view((20, 30), (24, 24), None, config, rng(seed)) for seed in range(400)]
    scales = np.array([view.scale for view in views])
    assert 0.5 <= scales.min() < 0.55
    assert 1.95 < scales.max() <= 2.0
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6
    for view in views:
        assert view.size == (int(20 * view.scale), int(30 * view.scale))
        assert view.crop == (min(24, view.size[0]), min(24, view.size[1]))
        assert 0 <= view.top <= view.size[0] - view.crop[0]
        assert 0 <= view.left <= view.size[1] - view.crop[1]
    still = AugmentConfig(**{**STILL, "scale": (1.0, 1.0)})
    places = {(v.top, v.left) for v in (draw_view((6, 7), (4, 4), None, still, rng(seed)) for seed in range(300))}
    assert places == {(top, left) for top in range(3) for left in range(4)}


def test_a_crop_of_one_class_is_drawn_anew() -> None:
    """One column in ten has a second class: a crop three wide shows it in 3 of 8 places, and at most 8 of 9 tries fail
    to find one of these at random."""
    semseg = np.zeros((10, 30), dtype=np.uint8)
    semseg[:, 14:16] = 1
    semseg[:, :5] = 255
    config = AugmentConfig(**{**STILL, "crop_max_ratio": 0.75, "crop_tries": 100})
    for seed in range(60):
        view = draw_view((10, 30), (10, 4), semseg, config, rng(seed))
        part = take(semseg, view)
        labelled = part[part != 255]
        counts = np.bincount(labelled)
        assert (counts > 0).sum() == 2
        assert counts.max() / counts.sum() < 0.75
    free = [draw_view((10, 30), (10, 4), semseg, AugmentConfig(**STILL), rng(seed)).left for seed in range(300)]
    assert set(free) == set(range(27))


def test_tries_end() -> None:
    config = AugmentConfig(**{**STILL, "crop_max_ratio": 0.5, "crop_tries": 3})
    assert draw_view((9, 9), (4, 4), np.zeros((9, 9), dtype=np.uint8), config, rng()).crop == (4, 4)


def test_a_grey_image_keeps_its_grey_and_follows_brightness_and_contrast() -> None:
    image = np.full((2, 2, 3), 100, dtype=np.uint8)
    seen = np.array([photometric(image, rng(seed))[0, 0] for seed in range(3000)]).astype(int)
    assert (seen[:, 0] == seen[:, 1]).all()
    assert (seen[:, 1] == seen[:, 2]).all()
    assert 34 <= seen.min() < 50  # (100 - 32) * 0.5
    assert 180 < seen.max() <= 198  # (100 + 32) * 1.5
    assert 0.23 < (seen[:, 0] == 100).mean() < 0.29  # neither, at a half times a half


@pytest.mark.parametrize("rgb", [(200, 40, 90), (10, 220, 130), (30, 60, 240), (128, 128, 128), (255, 0, 0)])
@pytest.mark.parametrize(("saturation", "hue"), [(0.5, 0.0), (1.5, 0.0), (1.0, 36.0), (0.7, -36.0)])
def test_colours_turn_as_in_hsv(rgb: tuple[int, int, int], saturation: float, hue: float) -> None:
    h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in rgb))
    expected = colorsys.hsv_to_rgb((h + hue / 360) % 1.0, min(1.0, s * saturation), v)
    found = recolor(np.array([[rgb]], dtype=np.uint8), saturation, hue)[0, 0]
    assert np.abs(found / 255 - expected).max() < 6 / 255


def test_no_change_of_colour_is_none() -> None:
    image = rng().integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert recolor(image, 1.0, 0.0) is image


def sample() -> dict[str, np.ndarray]:
    rows, columns = np.mgrid[:20, :30]
    normal = np.zeros((20, 30, 3), dtype=np.float32)
    normal[..., 0], normal[..., 2] = 0.6, 0.8
    return {
        "image": np.stack([rows * 5, columns * 5, rows + columns], axis=-1).astype(np.uint8),
        "semseg": (columns // 3).astype(np.uint8),
        "depth": (1.0 + columns).astype(np.float32),
        "normal": normal,
        "edge": (columns % 3 == 0).astype(np.uint8),
        "human_parts": np.where(columns == 29, 3, 0).astype(np.uint8),
    }


def finished(seed: int | None, labels: tuple[str, ...], **augment: Any) -> dict[str, np.ndarray]:
    config = NYUDConfig(image_size=(32, 32), augment=AugmentConfig(**augment))
    image, found = finish(sample(), labels, seed, config=config)
    return {"image": image.numpy(), **{name: label.numpy() for name, label in found.items()}}


def test_labels_stay_on_their_pixels() -> None:
    """Depth, class and edge tell the same column, and so does the image, wherever a sample is moved."""
    for seed in range(30):
        out = finished(seed, ("semseg", "depth", "edge", "normal"), depth_scaling="keep", photometric=False)
        inside = out["semseg"] != 255
        column = out["depth"][0][inside] - 1
        assert (out["semseg"][inside] == column // 3).all()
        assert (out["edge"][0][inside] == (column % 3 == 0)).all()
        assert (out["depth"][0][~inside] == 0).all()
        assert (out["edge"][0][~inside] == 255).all()
        assert (out["image"][:, ~inside] == 0).all()
        green = (out["image"][1][inside] * 0.224 + 0.456) * 255 / 5
        assert np.abs(green - column).max() < 1.5
        assert np.allclose(np.abs(out["normal"][:, inside]), np.array([[0.6], [0.0], [0.8]]), atol=1e-6)


def test_a_flip_mirrors_the_sample() -> None:
    still = {"scale": (1.0, 1.0), "photometric": False, "crop_max_ratio": 1.0}
    labels = ("semseg", "depth", "normal", "edge")
    plain, flipped = finished(0, labels, **still, flip=0.0), finished(0, labels, **still, flip=1.0)
    for name, array in plain.items():
        mirrored = array[..., ::-1] * (np.array([-1, 1, 1])[:, None, None] if name == "normal" else 1)
        assert (flipped[name] == mirrored).all(), name


def test_without_augmentation_a_seed_changes_nothing() -> None:
    off, plain = finished(5, ("depth",), enabled=False), finished(None, ("depth",))
    assert all((off[name] == plain[name]).all() for name in plain)


def test_a_view_without_people_ignores_all_parts() -> None:
    seen = set()
    for seed in range(40):
        parts = finished(seed, ("human_parts",), scale=(2.0, 2.0), flip=0.0)["human_parts"]
        seen.add(bool((parts == 3).any()))
        assert (parts == 255).all() or (parts == 3).any()
    assert seen == {True, False}
