from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from trainables.data.base import SPLITS
from trainables.data.scenes import Scenes, ScenesConfig, ScenesSplit, dataset
from trainables.data.scenes.sample import hole_mask, make_sample
from trainables.errors import ConfigError, DataError

SMALL = {"image_size": 32, "train": 3, "val": 2, "test": 2}


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name[0] != "."}


def test_same_bytes_for_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PIXELS_WORTH_A_WORKER", 0)
    config = ScenesConfig(**SMALL)
    seen: list[tuple[int, int]] = []
    Scenes.prepare(config, tmp_path / "one")
    Scenes.prepare(config, tmp_path / "two", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert seen == [(i, 7) for i in range(1, 8)]


def test_a_killed_worker_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None: ...

        def map(self, *_: object, **__: object) -> Iterator[object]:
            raise BrokenProcessPool("a child died\nabruptly")

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr(dataset, "PIXELS_WORTH_A_WORKER", 0)
    monkeypatch.setattr(dataset, "ProcessPoolExecutor", Broken)
    with pytest.raises(DataError, match=r"worker process .* was killed, .* use fewer workers") as caught:
        Scenes.prepare(ScenesConfig(**SMALL), tmp_path, workers=2)
    assert "\n" not in str(caught.value)
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_prepare_builds_once(small_config: ScenesConfig, small_root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small_root.rglob("*.npy")}
    Scenes.prepare(small_config, small_root, progress=lambda done, total: pytest.fail("built again"))
    assert before == {p: p.stat().st_mtime_ns for p in small_root.rglob("*.npy")}


def test_splits_and_samples_are_disjoint(small_config: ScenesConfig, small_root: Path) -> None:
    pictures: list[bytes] = []
    for split in SPLITS:
        opened = Scenes.open(small_config, small_root, split)
        assert len(opened) == Scenes.sizes(small_config)[split]
        pictures += [opened.batch(np.array([i]), [])[0].numpy().tobytes() for i in range(len(opened))]
    assert len(set(pictures)) == len(pictures) == 14


def test_a_sample_depends_on_its_seed_split_and_index_alone() -> None:
    base = make_sample(ScenesConfig(**SMALL), "train", 1)
    again = make_sample(ScenesConfig(**{**SMALL, "train": 50, "val": 9}), "train", 1)
    assert all(np.array_equal(base[name], again[name]) for name in base)
    for other in (
        make_sample(ScenesConfig(**SMALL), "val", 1),
        make_sample(ScenesConfig(**SMALL), "train", 0),
        make_sample(ScenesConfig(**SMALL, seed=1), "train", 1),
    ):
        assert not np.array_equal(base["image"], other["image"])
        assert not np.array_equal(base["depth_zbuffer"], other["depth_zbuffer"])


def test_noise_and_holes_leave_the_scene_alone() -> None:
    base = make_sample(ScenesConfig(**SMALL), "train", 2)
    noisy = make_sample(ScenesConfig(**SMALL, noise=20.0), "train", 2)
    pierced = make_sample(ScenesConfig(**SMALL, holes=0.25), "train", 2)
    assert np.array_equal(base["depth_zbuffer"], noisy["depth_zbuffer"])
    assert np.array_equal(base["image"], pierced["image"])
    hole = pierced["depth_zbuffer"] == 65535
    assert hole.sum() == 0.25 * 32 * 32
    assert np.array_equal(base["depth_zbuffer"][~hole], pierced["depth_zbuffer"][~hole])
    assert (pierced["normal"][hole] == 128).all()


@pytest.mark.parametrize("people", [0.0, 1.0])
def test_people_come_with_their_probability(people: float) -> None:
    config = ScenesConfig(**SMALL, people=people)
    with_people = [(make_sample(config, "train", i)["human_parts"] != 255).any() for i in range(6)]
    assert sum(with_people) == 0 if people == 0 else sum(with_people) >= 4


@pytest.mark.parametrize("size", [33, 200])
def test_any_size(size: int) -> None:
    sample = make_sample(ScenesConfig(**{**SMALL, "image_size": size}), "test", 0)
    assert {array.shape[:2] for array in sample.values()} == {(size, size)}


def test_texture_edges_do_not_follow_geometry() -> None:
    config = ScenesConfig(**{**SMALL, "image_size": 64})
    samples = [make_sample(config, "train", i) for i in range(6)]
    for other in ("edge_occlusion_blurred", "depth_zbuffer"):
        pairs = [np.corrcoef(s["edge_texture"].ravel(), s[other].ravel())[0, 1] for s in samples]
        assert np.mean(np.abs(pairs)) < 0.5


def test_fingerprint_follows_every_field() -> None:
    changed = {
        "image_size": 96,
        "train": 9,
        "val": 9,
        "test": 9,
        "seed": 1,
        "min_objects": 1,
        "max_objects": 20,
        "people": 0.25,
        "noise": 1.0,
        "holes": 0.1,
    }
    assert set(changed) | {"name"} == set(ScenesConfig.model_fields)
    prints = [Scenes.fingerprint(ScenesConfig(**{name: value})) for name, value in changed.items()]
    prints.append(Scenes.fingerprint(ScenesConfig()))
    assert len(set(prints)) == len(prints)
    assert Scenes.fingerprint(ScenesConfig(image_size=64)) == prints[-1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 16}, r"image_size: .*32.*got 16"),
        ({"image_size": 1024}, r"image_size: .*512.*got 1024"),
        ({"train": 0}, r"train: .*got 0"),
        ({"people": 1.5}, r"people: .*1.*got 1.5"),
        ({"holes": -0.1}, r"holes: .*got -0.1"),
        ({"min_objects": 9, "max_objects": 3}, r"min_objects \(9\) must not exceed max_objects \(3\)"),
        ({"imagesize": 64}, r"unknown field 'imagesize'; did you mean 'image_size'\?"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ScenesConfig.parse(fields)
    assert "\n" not in str(caught.value)


def test_unknown_label_and_split_are_named(
    small_config: ScenesConfig, small_root: Path, small_split: ScenesSplit
) -> None:
    with pytest.raises(DataError, match=r"unknown label 'normals'; did you mean 'normal'\?"):
        small_split.batch(np.array([0]), ["normals"])
    with pytest.raises(DataError, match=r"unknown split 'vall'; did you mean 'val'\?"):
        Scenes.open(small_config, small_root, "vall")


def test_a_data_set_that_was_not_prepared_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scenes.*not built"):
        Scenes.open(ScenesConfig(), tmp_path, "train")


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.9])
def test_holes_cover_their_fraction(fraction: float) -> None:
    mask = hole_mask(64, fraction, np.random.default_rng(0))
    assert mask.sum() == round(fraction * 64 * 64)
