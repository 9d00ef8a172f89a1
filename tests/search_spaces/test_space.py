from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Axis, Choice, Condition, Float, Int, Space, apply, axes_from, grid
from search_spaces.fields import COMPONENTS, filled, lookup
from trainables.config import TrialConfig, load_trial
from trainables.data import DATA_SETS
from trainables.errors import ConfigError
from trainables.methods import METHODS
from trainables.settings import Settings

PATHS = ["method", "method.c", "optim.lr", "train.batch_size", "model.drop_path"]
DOMAINS = st.sampled_from(
    [Choice(("a", [1, 2], None)), Choice((1, 2.5)), Float(1e-5, 0.1, log=True), Float(0.0, 1.0, step=0.1), Int(1, 9)]
)
CONDITIONS = st.sampled_from([None, Condition({"seed": 0}), Condition({"data": "scenes", "tasks.set": ["a", "b"]})])
axes_lists = st.lists(st.sampled_from(PATHS), unique=True).flatmap(
    lambda paths: st.tuples(
        *(
            st.builds(Axis, st.just(path), DOMAINS, CONDITIONS, st.sampled_from(["", "Table D.4: 'x'"]))
            for path in sorted(paths)
        )
    )
)

NESTED = Space(
    (
        Axis("method", Choice(("gd", "cagrad", "selective"))),
        Axis("method.c", Float(0.1, 0.9), Condition({"method": "cagrad"})),
        Axis("method.grouping", Choice(("adaptive", "random", "joint")), Condition({"method": "selective"})),
        Axis("method.grouping.groups", Int(2, 3), Condition({"method": "selective", "method.grouping": "random"})),
        Axis("optim.schedule", Choice(("polynomial", "constant"))),
        Axis("optim.power", Float(0.5, 2.0), Condition({"optim.schedule": "polynomial"})),
    )
)


def drawing(seed: int, asked: list[str] | None = None) -> Any:
    generator = random.Random(seed)

    def suggest(axis: Axis) -> Any:
        if asked is not None:
            asked.append(axis.path)
        return generator.choice(axis.domain.points(4))

    return suggest


@given(axes_lists)
def test_a_space_comes_back_from_yaml_and_from_plain_data(axes: tuple[Axis, ...]) -> None:
    space = Space(axes)
    assert Space.from_yaml(space.to_yaml()) == space
    assert Space.from_dict(space.to_dict()) == space


@given(axes_lists)
def test_composition_is_concatenation(axes: tuple[Axis, ...]) -> None:
    space = Space(axes)
    for cut in range(len(axes) + 1):
        left, right = Space(axes[:cut]), Space(axes[cut:])
        assert left + right == space
        assert space.only(left.paths) == left
        assert space.without(left.paths) == right
    assert Space() + space == space + Space() == space
    assert [space[path] for path in space.paths] == list(space)


def test_a_path_that_both_spaces_have_is_named() -> None:
    with pytest.raises(ConfigError, match=r"axes\.optim\.lr: given twice"):
        Space((Axis("optim.lr", Float(0, 1)),)) + Space((Axis("optim.lr", Choice((1.0,))),))


def test_a_component_comes_before_its_fields() -> None:
    with pytest.raises(ConfigError, match=r"axes\.method: would undo 'method\.c'"):
        Space((Axis("method.c", Float(0, 1)), Axis("method", Choice(("gd",)))))


def test_a_condition_looks_back_only() -> None:
    power = Axis("optim.power", Float(0.5, 2.0), Condition({"optim.schedule": "polynomial"}))
    schedule = Axis("optim.schedule", Choice(("polynomial", "constant")))
    with pytest.raises(ConfigError, match=r"axes\.optim\.power: when: depends on 'optim\.schedule', which comes after"):
        Space((power, schedule))
    with pytest.raises(ConfigError, match="which the axis itself sets"):
        Axis("optim.power", Float(0.5, 2.0), Condition({"optim.power": 1.0}))


def test_restrict_and_fix_stay_within() -> None:
    narrowed = NESTED.restrict("optim.power", Float(1.0, 1.5)).fix("method", "cagrad")
    assert narrowed["optim.power"].domain == Float(1.0, 1.5)
    assert narrowed["optim.power"].when == NESTED["optim.power"].when
    asked: list[str] = []
    point = narrowed.sample_with(drawing(0, asked))
    assert point["method"] == "cagrad"
    assert "method" not in asked
    with pytest.raises(ConfigError, match=r"axes\.optim\.power: 0\.1 to 1\.0 is not within 0\.5 to 2\.0"):
        NESTED.restrict("optim.power", Float(0.1, 1.0))
    with pytest.raises(ConfigError, match=r"axes\.method: one of pcgrad is not within one of gd, cagrad, selective"):
        NESTED.fix("method", "pcgrad")
    with pytest.raises(ConfigError, match=r"did you mean 'optim\.power'"):
        NESTED.fix("optim.powr", 1.0)
    with pytest.raises(ConfigError, match=r"did you mean 'method\.c'"):
        NESTED.without(["method.cc"])


@pytest.mark.parametrize("seed", range(40))
def test_no_point_has_a_dead_parameter(seed: int, tiny: dict[str, Any]) -> None:
    asked: list[str] = []
    point = NESTED.sample_with(drawing(seed, asked), tiny)
    assert asked == list(point)
    expected = {"method", "optim.schedule"}
    expected |= {"method.c"} if point["method"] == "cagrad" else set()
    expected |= {"method.grouping"} if point["method"] == "selective" else set()
    expected |= {"method.grouping.groups"} if point.get("method.grouping") == "random" else set()
    expected |= {"optim.power"} if point["optim.schedule"] == "polynomial" else set()
    assert set(point) == expected
    made = filled(load_trial(apply(tiny, point)).to_dict())
    for path, value in point.items():
        found = lookup(made, path)
        assert (found["name"] if path in COMPONENTS else found) == value


def test_conditions_look_at_the_config_searched_from() -> None:
    knobs = NESTED.without(["method"])
    assert "method.c" in knobs.sample_with(drawing(0), {"method": {"name": "cagrad", "c": 0.2}})
    assert "method.c" in knobs.sample_with(drawing(0), load_trial({"method": "cagrad"}))
    assert "method.c" not in knobs.sample_with(drawing(0))
    # The default grouping of a selective config that names none.
    tracked = Axis("method.grouping.warmup", Int(0, 9), Condition({"method.grouping.name": "adaptive"}))
    assert tracked.active({"method": "selective"})
    assert not tracked.active({"method": {"name": "selective", "grouping": "joint"}})
    assert not tracked.active({"method": "gd"})


def test_alive_keeps_what_exists_and_refuses_what_is_not_allowed() -> None:
    values = {"optim.power": 1.0, "optim.schedule": "constant", "method.c": 0.5, "method": "cagrad", "other": 1}
    assert list(NESTED.alive(values).items()) == [
        ("method", "cagrad"),
        ("method.c", 0.5),
        ("optim.schedule", "constant"),
    ]
    with pytest.raises(ConfigError, match=r"axes\.method\.c: a value is missing"):
        NESTED.alive({"method": "cagrad"})
    with pytest.raises(ConfigError, match=r"axes\.method\.c: 0\.1 to 0\.9 is wanted, got 2"):
        NESTED.alive({"method": "cagrad", "method.c": 2})
    with pytest.raises(ConfigError, match=r"axes\.method: one of gd is wanted, got 'cagrad'"):
        NESTED.fix("method", "gd").alive(values)


def test_another_name_replaces_a_component_and_its_own_name_keeps_it() -> None:
    base = {"method": {"name": "cagrad", "c": 0.7}}
    assert apply(base, {"method": "gd"}) == {"method": {"name": "gd"}}
    assert apply(base, {"method": "cagrad"}) == base
    steps = {"method": {"name": "gd", "steps_per_batch": 2}}
    assert apply(base, {"method": "gd", "method.steps_per_batch": 2}) == steps


def test_a_field_of_a_component_left_to_its_default_is_set_in_it() -> None:
    assert apply({}, {"method.steps_per_batch": 2}) == {"method": {"name": "gd", "steps_per_batch": 2}}
    made = load_trial(apply({"method": "selective"}, {"method.grouping.clusterer.linkage": "minimum"}))
    assert made == load_trial(
        {
            "method": {
                "name": "selective",
                "grouping": {"name": "adaptive", "clusterer": {"name": "positive_affinity", "linkage": "minimum"}},
            }
        }
    )


def test_a_space_the_config_takes_passes(tiny: dict[str, Any]) -> None:
    NESTED.check(tiny)
    NESTED.check(load_trial(tiny))


@pytest.mark.parametrize(
    ("axis", "match"),
    [
        (
            Axis("optim.lr", Float(0.0, 1.0)),
            r"^axes\.optim\.lr: the value 0\.0 is refused: optim\.lr: .*greater than 0",
        ),
        (Axis("model.drop_path", Float(0.5, 1.0)), r"^axes\.model\.drop_path: the value 1\.0 is refused"),
        (Axis("train.batch_size", Int(1, 64)), r"^axes\.train\.batch_size: the value 64 is refused: .*at most the 8"),
        (Axis("train.batch_size", Float(1.5, 2.5)), r"^axes\.train\.batch_size: the value 1\.5 is refused: .*integer"),
        (Axis("optim.schedule", Choice(("polynomial", "cosine"))), r"^axes\.optim\.schedule: the value 'cosine'"),
        (Axis("optim.lrr", Float(0.1, 1.0)), r"^axes\.optim\.lrr: .*did you mean 'lr'"),
        (Axis("method.c", Float(0.1, 1.0)), r"^axes\.method\.c: .*unknown field 'c'"),
        (Axis("method", Choice(("gd", "cagard"))), r"^axes\.method: .*did you mean 'cagrad'"),
        (
            Axis("method.c", Float(0.1, 1.0), Condition({"method": "cagard"})),
            r"^axes\.method\.c: when\.method: .*cagrad",
        ),
        (Axis("model.backbone", Choice(("vit_pico", "timm:no_such"))), r"^axes\.model\.backbone: the value 'timm:no_"),
    ],
)
def test_check_names_the_axis_before_anything_runs(axis: Axis, match: str, tiny: dict[str, Any]) -> None:
    others = Space((Axis("seed", Int(0, 3)), Axis("optim.weight_decay", Float(0.0, 1.0))))
    with pytest.raises(ConfigError, match=match):
        (others + Space((axis,))).check(tiny)


def test_check_tells_a_bad_axis_from_a_bad_config(tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^the config searched from: optim\.lr"):
        Space((Axis("seed", Int(0, 3)),)).check(apply(tiny, {"optim.lr": -1.0}))


def test_check_sees_a_mistake_that_only_one_branch_has(tiny: dict[str, Any]) -> None:
    branches = NESTED.without(["method.grouping.groups"])
    with pytest.raises(
        ConfigError, match=r"^axes\.method\.grouping: the value 'random' is refused: .*groups is missing"
    ):
        branches.check(tiny)


def test_check_grows_with_the_sum_of_the_axes(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[dict[str, Any]] = []

    def counting(value: dict[str, Any]) -> TrialConfig:
        loads.append(value)
        return load_trial(value)

    monkeypatch.setattr("search_spaces.checking.load_trial", counting)
    paths = ["optim.lr", "optim.weight_decay", "optim.power", "model.drop_path"]
    Space(tuple(Axis(path, Choice((0.1, 0.2, 0.3, 0.4))) for path in paths)).check(tiny)
    assert len(loads) == 1 + 4 * 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("optim.lr: {float: [1, 2], wen: {}}", r"s\.yaml\.axes\.optim\.lr: unknown field 'wen'; did you mean 'when'"),
        ("optim.lr: 3", r"s\.yaml\.axes\.optim\.lr: a list of values is wanted, got 3"),
        ("optim.lr: {source: x}", r"s\.yaml\.axes\.optim\.lr: one of choice, float, int is wanted"),
        ("optim.lr: [1, 1]", r"s\.yaml\.axes\.optim\.lr: the value 1 is given twice"),
        ("optim..lr: [1]", r"'optim\.\.lr' is not a field path"),
        ("optim.lr: [1]\noptim.lr: [2]", r"s\.yaml, line 2: .*given twice"),
        ("optim.lr: {choice: [1], when: []}", r"s\.yaml\.axes\.optim\.lr: when: a mapping"),
        ("optim.lr: {choice: [1], when: {a: []}}", r"s\.yaml\.axes\.optim\.lr: when\.a: at least one value"),
        ("optim.lr: {choice: [1], source: 3}", r"s\.yaml\.axes\.optim\.lr: source: text is wanted"),
        ("[1]", r"s\.yaml\.axes: a mapping of paths to axes"),
    ],
)
def test_mistakes_in_a_file_are_named(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Space.from_yaml(text, "s.yaml")


def test_a_list_is_a_choice_everywhere() -> None:
    listed = Axis("a", (1, 2))  # type: ignore[arg-type]
    assert listed == Axis("a", Choice((1, 2))) == axes_from({"a": [1, 2]}, "here")[0]
    ranges = axes_from({"a": {"int": [1, 3]}, "b": {"float": [0.0, 0.2], "step": 0.1}}, "here")
    assert [tuple(point.values()) for point in grid(ranges)] == [(a, b) for a in (1, 2, 3) for b in (0.0, 0.1, 0.2)]
    with pytest.raises(ConfigError, match=r"axes\.a: a range without steps needs a count"):
        list(grid([Axis("a", Float(0, 1))]))


def test_every_component_of_a_trial_config_is_known() -> None:
    # A field that is chosen by name is declared as a Settings class and validated by a function of its own.
    def components(model: type[Settings], prefix: str) -> set[str]:
        out = set()
        for name, info in model.model_fields.items():
            kind = info.annotation
            if isinstance(kind, type) and issubclass(kind, Settings):
                out |= {prefix + name} if "name" in kind.model_fields and info.metadata else set()
                out |= components(kind, f"{prefix}{name}.")
        return out

    found = components(TrialConfig, "")
    for path, registry in (
        ("data", DATA_SETS),
        ("method", METHODS),
        ("method.grouping", COMPONENTS["method.grouping"]),
    ):
        for entry in registry.values():
            found |= components(entry.Config, f"{path}.")
    assert found == set(COMPONENTS)


@pytest.mark.parametrize("method", ["gd", "cagrad", "selective", "famo", "nash_mtl", "dtp"])
def test_filling_in_defaults_agrees_with_the_validated_config(method: str, tiny: dict[str, Any]) -> None:
    given = apply(tiny, {"method": method})
    assert filled(given) == load_trial(given).to_dict()
    released = {**given, "preset": "released"}
    assert filled(released) == load_trial(released).to_dict()
