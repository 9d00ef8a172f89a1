from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field, SerializeAsAny

from trainables.errors import ConfigError, unknown
from trainables.registry import Registry
from trainables.settings import Settings, component, parse_yaml, read_yaml


class Part(Settings):
    name: str


class Ball(Part):
    name: Literal["ball"] = "ball"
    radius: float = Field(default=1.0, gt=0)


class Box(Part):
    name: Literal["box"] = "box"
    sides: tuple[int, ...] = (1, 2)


PARTS: Registry[type[Part]] = Registry("part")
PARTS.register("ball", Ball)
PARTS.register("box", Box)


class Whole(Settings):
    count: int = Field(default=3, ge=1, le=9)
    mode: Literal["fast", "slow"] = "fast"
    part: Annotated[SerializeAsAny[Part], BeforeValidator(lambda v: component(PARTS, v, "part"))] = Ball()
    other: Ball = Ball()


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"coutn": 1}, "coutn: unknown field 'coutn'; did you mean 'count'? (allowed: count, mode, other, part)"),
        ({"count": "three"}, "count: should be a valid integer"),
        ({"count": 10}, "count: should be less than or equal to 9, got 10"),
        ({"count": True}, "count: should be a valid integer"),
        ({"count": 1.5}, "count: should be a valid integer"),
        ({"mode": "fsat"}, "mode: should be 'fast' or 'slow', got 'fsat'"),
        ({"part": "bal"}, "part.name: unknown part 'bal'; did you mean 'ball'? (allowed: ball, box)"),
        ({"part": {"radius": 1.0}}, "part.name is missing (allowed: ball, box)"),
        ({"part": {"name": "ball", "radius": -1.0}}, "part.radius: should be greater than 0, got -1.0"),
        ({"part": {"name": "ball", "radus": 1.0}}, "part.radus: unknown field 'radus'; did you mean 'radius'?"),
        ({"part": {"name": "box", "sides": ["a"]}}, "part.sides.0: should be a valid integer"),
        ({"part": {"name": ["ball"]}}, "part.name: unknown part '['ball']'"),
        ({"part": 3}, "part: a name or a mapping with a 'name' is wanted, got 3"),
        ({"other": {"radius": float("nan")}}, "other.radius: a finite number is wanted, got nan"),
        ({"other": None}, "other: should be an object"),
        ({1: 2}, "config: field names are text, got 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(given_: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Whole.parse(given_)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="a mapping of fields is wanted"):
        Whole.parse([1, 2])  # type: ignore[arg-type]


def test_a_component_is_a_name_or_a_mapping_and_keeps_its_own_fields() -> None:
    whole = Whole.parse({"part": {"name": "box", "sides": [4, 5]}})
    assert whole.part == Box(sides=(4, 5))
    assert whole.to_dict()["part"] == {"name": "box", "sides": [4, 5]}
    assert Whole.parse({"part": "box"}).part == Box()
    assert Whole.parse(whole.to_dict()) == whole


def test_canonical_leaves_out_defaults_and_keeps_names() -> None:
    assert Whole().canonical() == {"part": {"name": "ball"}, "other": {"name": "ball"}}
    assert Whole.parse({"count": 4, "part": "box"}).canonical() == {
        "count": 4,
        "part": {"name": "box"},
        "other": {"name": "ball"},
    }


@given(
    count=st.integers(1, 9),
    radius=st.floats(1e-6, 1e6),
    sides=st.lists(st.integers(-5, 5), max_size=4),
    box=st.booleans(),
)
def test_plain_data_round_trips_and_equal_configs_have_equal_canonical_forms(
    count: int, radius: float, sides: list[int], box: bool
) -> None:
    part = {"name": "box", "sides": sides} if box else {"name": "ball", "radius": radius}
    whole = Whole.parse({"count": count, "part": part})
    again = Whole.parse(whole.to_dict())
    assert again == whole
    assert again.canonical() == whole.canonical()
    assert Whole.parse(whole.canonical()) == whole


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Whole().count = 4  # type: ignore[misc]


def test_yaml_reads_1e_3_as_a_number() -> None:
    assert parse_yaml("[1e-3, 1.5e2, 1, 1e, -2E+3, 0x10, text]", "x") == [1e-3, 150.0, 1, "1e", -2000.0, 16, "text"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "spec.yaml, line 2: not valid YAML: key 'a' is given twice"),
        ("a: [1", "spec.yaml, line 1: not valid YAML"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "spec.yaml, line 1: not valid YAML: could not determine a constructor",
        ),
        ("? [1]\n: 2", "spec.yaml, line 1: not valid YAML: a key is a list or mapping"),
        ("a: \x00", "spec.yaml: not valid YAML"),
    ],
)
def test_bad_yaml_is_one_line_with_source_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "spec.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_as_yaml_gives_data_or_a_config_error(text: str) -> None:
    message = ""
    try:
        parse_yaml(text, "x")
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


def test_unreadable_files_are_named(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")


def test_a_registry_refuses_a_name_twice() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("a", 1)
    with pytest.raises(ValueError, match="thing 'a' is registered already"):
        registry.register("a", 2)
    assert list(registry) == ["a"]
    assert registry["a"] == 1
    assert 3 not in registry


class Leaf(Settings):
    size: int | None = Field(default=None, ge=1)
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] = 1.0


class Tree(Settings):
    leaf: Leaf = Leaf()
    named: dict[str, Leaf] = Field(default_factory=dict)
    listed: tuple[Leaf, ...] = ()


@pytest.mark.parametrize(
    ("given_", "start"),
    [
        ({"leaf": {"scale": -1.0}}, "leaf.scale: should be greater than 0 or should be 'auto', got -1.0"),
        ({"leaf": {"scale": "wide"}}, "leaf.scale: should be a valid number or should be 'auto', got 'wide'"),
        ({"leaf": {"size": 0}}, "leaf.size: should be greater than or equal to 1, got 0"),
        ({"named": {"a": {"size": 0}}}, "named.a.size: should be greater than or equal to 1, got 0"),
        ({"named": {"a": {"sice": 0}}}, "named.a.sice: unknown field 'sice'; did you mean 'size'?"),
        ({"listed": [{}, {"size": 0}]}, "listed.1.size: should be greater than or equal to 1, got 0"),
        ({"listed": [{}, {"sice": 0}]}, "listed.1.sice: unknown field 'sice'; did you mean 'size'?"),
    ],
)
def test_unions_maps_and_lists_are_named_as_they_are_written(given_: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Tree.parse(given_)
    assert str(caught.value).startswith(start)


def test_a_family_of_names_is_counted_and_a_single_one_shown() -> None:
    message = unknown("method", "lib:x", ["gd", "lib:a", "lib:xx", "other:b"])
    assert message == "unknown method 'lib:x'; did you mean 'lib:xx'? (allowed: gd, other:b, lib:... (2 of them))"
    assert unknown("thing", 3, []) == "unknown thing '3' (allowed: none)"


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    name = "a\nb\x1b[31m\udcffé"
    assert str(ConfigError(f"unknown field '{name}'")) == r"unknown field 'a\nb\x1b[31m\udcffé'"
