from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Axis, Choice, Float, Space, about, apply, default_point, method_space, space, space_names
from study.spec import profiles
from trainables.config import load_trial
from trainables.errors import ConfigError
from trainables.methods import METHODS
from trainables.presets import merge

KINDS = ["optimizer", "data", "model", "grouping", "order", "beta"]
WITHOUT_KNOBS = {"gd", "single_task"}
OWN = [name for name in METHODS if ":" not in name]


def base_of(name: str, profile: str) -> dict[str, Any]:
    """The config that a space is meant for, at one profile; real data is stood in for by scenes of its size."""
    method = name.removeprefix("methods/") if name.startswith("methods/") else "selective"
    fields: dict[str, Any] = merge(profiles()[profile].set, {"method": method})
    if profile == "paper":
        fields["data"] = {"name": "scenes", "image_size": 256}
    return fields


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("profile", list(profiles()))
def test_every_space_checks_and_holds_the_defaults(name: str, profile: str) -> None:
    base = base_of(name, profile)
    wanted = space(name)
    wanted.check(base)
    point = default_point(wanted, base)
    assert load_trial(apply(base, point)) == load_trial(base)


@pytest.mark.parametrize("name", space_names())
def test_every_axis_exists_somewhere_and_has_a_source(name: str) -> None:
    generator = random.Random(0)
    wanted, base = space(name), base_of(name, "smoke")
    points = [wanted.sample_with(lambda axis: generator.choice(axis.domain.points(5)), base) for _ in range(60)]
    assert {path for point in points for path in point} == set(wanted.paths)
    for point in points:
        load_trial(apply(base, point))
    assert all(len(axis.source) > 10 for axis in wanted)
    assert about(name).endswith(".")


def test_there_is_one_for_every_kind_and_every_method_with_knobs() -> None:
    assert set(space_names()) == {*KINDS, *(f"methods/{name}" for name in OWN if name not in WITHOUT_KNOBS)}
    for name in OWN:
        assert bool(len(method_space(name))) == (name not in WITHOUT_KNOBS)
        assert all(axis.when and "method" in axis.when.allowed for axis in method_space(name))


def test_the_spaces_of_all_methods_and_the_shared_one_go_together() -> None:
    # Paths of several methods may be the same field; under one method there is none twice.
    for name in OWN:
        together = space("optimizer") + space("data") + space("model") + method_space(name)
        assert len(together) == len(set(together.paths))


def test_the_selective_space_is_its_three_parts() -> None:
    assert method_space("selective") == space("beta") + space("grouping") + space("order")


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"unknown space 'optimiser'; did you mean 'optimizer'"):
        space("optimiser")
    with pytest.raises(ConfigError, match=r"unknown space 'methods/cagard'; did you mean 'methods/cagrad'"):
        about("methods/cagard")
    with pytest.raises(ConfigError, match=r"unknown method 'cagard'; did you mean 'cagrad'"):
        method_space("cagard")


FILE = """
about: Of one's own.
include: [beta]
when: {method: [selective, cagrad]}
axes:
  optim.lr: {float: [1e-4, 1e-2], log: true}
  optim.power: {float: [0.5, 2.0], when: {method: selective}}
  method.order: [random, forward]
"""


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(FILE)
    own = space(str(path))
    assert own.paths == ("method.beta", "optim.lr", "optim.power", "method.order")
    assert own["optim.lr"].domain == Float(1e-4, 1e-2, log=True)
    assert own["method.order"].domain == Choice(("random", "forward"))
    under = {method: set(own.sample_with(lambda a: a.domain.points(2)[0], {"method": method})) for method in OWN}
    assert under["selective"] == set(own.paths)
    assert under["cagrad"] == {"optim.lr", "method.order"}
    assert under["gd"] == set()
    path.write_text("axes:\n  seed: [1, 2]\n")
    assert space(str(path)) == Space((Axis("seed", Choice((1, 2))),))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("include: [beta]", "include: [bet]", r"own\.yaml: include: unknown space 'bet'; did you mean 'beta'"),
        ("about:", "abuot:", r"own\.yaml\.abuot: unknown field 'abuot'; did you mean 'about'"),
        (
            "when: {method: selective}",
            "when: {method: gd}",
            r"optim\.power: when\.method: not among those of the whole",
        ),
        ("log: true", "log: 1", r"own\.yaml\.axes\.optim\.lr: log: true or false"),
        ("optim.lr:", "method.beta:", r"axes\.method\.beta: given twice"),
    ],
)
def test_mistakes_in_a_file_are_named(old: str, new: str, match: str, tmp_path: Path) -> None:
    assert old in FILE
    path = tmp_path / "own.yaml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError, match=match):
        space(str(path))
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        space(str(tmp_path / "none.yaml"))


def test_every_grouping_and_clusterer_that_needs_no_names_of_tasks_is_in_the_space() -> None:
    from trainables.methods.selective import CLUSTERERS, GROUPINGS

    grouping = space("grouping")
    assert set(grouping["method.grouping"].values) == set(GROUPINGS) - {"fixed"}
    assert set(grouping["method.grouping.clusterer"].values) == set(CLUSTERERS)
