from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from study.cli import run
from study.cli.schemas import KINDS
from study.json_schema import SCHEMAS, field_paths
from study.search.spec import search_names
from study.spec import profiles, spec_names
from trainables.config import load_trial
from trainables.errors import ConfigError
from trainables.methods import METHODS
from trainables.settings import parse_yaml


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    return {kind: Draft202012Validator(make()) for kind, make in SCHEMAS.items()}


def shipped(folder: str, name: str) -> Any:
    return parse_yaml((files("study") / folder / f"{name}.yaml").read_text(encoding="utf-8"), name)


def complaints(validator: Draft202012Validator, value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(json.dumps(value)))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_prints_a_valid_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", kind]) == 0
    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed == SCHEMAS[kind]()
    references = {part.split('"')[0] for part in json.dumps(printed).split('"#/$defs/')[1:]}
    assert references <= set(printed["$defs"])


def test_the_command_has_every_kind() -> None:
    assert set(KINDS) == set(SCHEMAS)


@pytest.mark.parametrize("name", spec_names())
def test_every_shipped_study_passes(name: str, validators: dict[str, Draft202012Validator]) -> None:
    assert complaints(validators["study"], shipped("specs", name)) == []


@pytest.mark.parametrize("name", search_names())
def test_every_shipped_search_passes(name: str, validators: dict[str, Draft202012Validator]) -> None:
    assert complaints(validators["search"], shipped("searches", name)) == []


@pytest.mark.parametrize("name", profiles())
def test_the_profiles_are_parts_of_trial_configs(name: str, validators: dict[str, Draft202012Validator]) -> None:
    spec = {"id": "x", "extend": "d4", "base": profiles()[name].set}
    assert complaints(validators["study"], spec) == []


@pytest.mark.parametrize("method", [name for name in METHODS if ":" not in name])
def test_a_whole_config_passes_with_all_defaults_written_out(
    method: str, validators: dict[str, Draft202012Validator], tiny: dict[str, Any]
) -> None:
    alone = {"set": "taskonomy", "include": ["normal"]}
    raw = {**tiny, "method": method, **({"tasks": alone} if method == "single_task" else {})}
    assert complaints(validators["trial"], raw) == []
    assert complaints(validators["trial"], load_trial(raw).to_dict()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"optim": {"lrr": 1e-3}},
        {"optim": {"lr": 0}},
        {"optim": {"lr": "1e-3"}},
        {"method": "pcgradd"},
        {"method": {"beta": 1e-3}},
        {"method": {"name": "gd", "beta": 1e-3}},
        {"method": {"name": "selective", "beta": 2}},
        {"method": {"name": "selective", "grouping": {"name": "random"}}},
        {"method": {"name": "selective", "grouping": {"name": "adaptive", "clusterer": "kmeans"}}},
        {"data": {"name": "scenes", "image_sise": 64}},
        {"data": "imagenet"},
        {"tasks": {"set": "taskonomi"}},
        {"tasks": {"include": ["deepth"]}},
        {"model": {"backbone": "vit_huge"}},
        {"train": {"budget": {"unit": "epochs"}}},
        {"seed": -1},
        {"preset": "publisht"},
        {"sede": 1},
    ],
)
def test_what_a_trial_refuses_the_schema_refuses(
    change: dict[str, Any], validators: dict[str, Draft202012Validator], tiny: dict[str, Any]
) -> None:
    raw = {**copy.deepcopy(tiny), **change}
    with pytest.raises(ConfigError):
        load_trial(raw)
    assert complaints(validators["trial"], raw)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("study", {"titel": "x"}),
        ("study", {"base": {"optim": {"lrr": 1}}}),
        ("study", {"base": {"method": {"betta": 1}}}),
        ("study", {"profile": "cpuu"}),
        ("study", {"profiles": {"cpuu": {}}}),
        ("study", {"extend": "d44"}),
        ("study", {"rows": [{"id": "A row", "label": "x"}]}),
        ("study", {"rows": [{"id": "a", "label": "x", "axes": {"method.betta": [1]}}]}),
        ("study", {"rows": [{"id": "a", "label": "x", "axes": {"method.beta": 1}}]}),
        ("search", {"space": ["optimiser"]}),
        ("search", {"axes": {"optim.lr": {"float": [1]}}}),
        ("search", {"axes": {"optim.lr": {"float": [1, 2], "int": [1, 2]}}}),
        ("search", {"budget": {}}),
        ("search", {"sampler": {"name": "tpee"}}),
        ("search", {"contenders": []}),
        ("search", {"points": [{"optim.lrr": 1}]}),
    ],
)
def test_mistakes_in_studies_and_searches_are_found(
    kind: str, change: dict[str, Any], validators: dict[str, Draft202012Validator]
) -> None:
    good = shipped("specs", "d4") if kind == "study" else shipped("searches", "tune_selective")
    assert complaints(validators[kind], good) == []
    assert complaints(validators[kind], {**good, **change})


def test_a_part_of_a_component_needs_no_name_where_others_are_laid_on(
    validators: dict[str, Draft202012Validator],
) -> None:
    spec = {"id": "x", "extend": "d4", "base": {"method": {"beta": 0.5, "grouping": {"groups": 2}}}}
    assert complaints(validators["study"], spec) == []


def test_paths_reach_into_components() -> None:
    paths = field_paths()
    for path in ("seed", "optim.lr", "method.name", "method.beta", "method.grouping.clusterer.preference", "data.root"):
        assert paths[path] or path.endswith("name"), path


def test_every_field_of_a_schema_is_described() -> None:
    for kind, make in SCHEMAS.items():
        made = make()
        for where, owner in [("", made), *made["$defs"].items()]:
            for field, schema in owner.get("properties", {}).items():
                if where not in ("axes", "paths"):
                    assert schema.get("description") or "$ref" in schema, f"{kind}: {where}.{field}"
