"""JSON schemas of the files that people write (studies, searches, trial configs), made from the classes that read them,
so that editors complete and check them.

A schema is a first check: it knows fields, types, ranges and names. What fields ask of each other (a label the data set
lacks, two rows of one id) is found when the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final

from search_spaces import space_names
from search_spaces.fields import COMPONENTS
from study.search.spec import SearchSpec
from study.spec import StudySpec, profiles, spec_names
from trainables.config import TrialConfig
from trainables.data.base import DataConfig
from trainables.methods import MethodConfig
from trainables.methods.selective.clusterers import ClustererConfig
from trainables.methods.selective.grouping import GroupingConfig
from trainables.models import BACKBONES
from trainables.models.backbones import TIMM_PREFIX
from trainables.presets import PRESETS
from trainables.registry import Registry
from trainables.settings import Settings
from trainables.task_sets import TASK_SETS

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_BASES: Mapping[str, type[Settings]] = MappingProxyType(
    {
        "data": DataConfig,
        "method": MethodConfig,
        "method.grouping": GroupingConfig,
        "method.grouping.clusterer": ClustererConfig,
    }
)
"""Path of each component in a trial config to the class that its field is declared with."""

_TRIAL: Final = "trial"
_PATHS: Final = "paths"
_AXES: Final = "axes"
_AXIS: Final = "axis"


def trial_schema() -> Schema:
    """Of a trial config, as ``mtl-study trial FILE`` reads it."""
    definitions = _trial_definitions(partial=False)
    return _finished("Trial config", definitions.pop(_TRIAL), definitions)


def study_schema() -> Schema:
    """Of a study, as ``mtl-study run FILE`` reads it."""
    body, definitions = _with_fragments(StudySpec)
    body["required"] = ["id"]
    # What a study gives that extends another is laid on the other's.
    body["anyOf"] = [{"required": ["extend"]}, {"required": ["title", "baseline", "rows"]}]
    body["properties"]["extend"]["enum"] = ["", *spec_names()]
    definitions["Row"]["properties"]["axes"] = _described({"$ref": f"#/$defs/{_AXES}"}, definitions["Row"], "axes")
    return _finished("Study", body, definitions)


def search_schema() -> Schema:
    """Of a search, as ``mtl-study search FILE`` reads it."""
    body, definitions = _with_fragments(SearchSpec)
    for owner in (body, definitions["Contender"]):
        owner["properties"]["axes"] = _described({"$ref": f"#/$defs/{_AXES}"}, owner, "axes")
        owner["properties"]["space"]["items"] = {"enum": list(space_names())}
    body["properties"]["points"]["items"] = {"$ref": f"#/$defs/{_PATHS}"}
    body["properties"]["budgets"]["propertyNames"] = {"enum": list(profiles())}
    # Either limit makes a budget; neither is refused when the file is read.
    some = [{"required": ["trials"]}, {"required": ["trunk_passes"]}]
    definitions["BudgetSpec"]["anyOf"] = some
    return _finished("Search", body, definitions)


SCHEMAS: Mapping[str, Callable[[], Schema]] = MappingProxyType(
    {"study": study_schema, "search": search_schema, "trial": trial_schema}
)
"""Kind of file to what makes its schema."""


def model_of(entry: Any) -> type[Settings]:
    """The config class of a registry's entry."""
    model: type[Settings] = getattr(entry, "Config", entry)
    return model


def classes_of(registry: Registry[Any]) -> dict[type[Settings], list[str]]:
    """Config classes of the entries, each with the names that it stands for."""
    out: dict[type[Settings], list[str]] = {}
    for name in registry:
        out.setdefault(model_of(registry[name]), []).append(name)
    return out


def field_paths() -> dict[str, str]:
    """Dotted path of every trial-config field, of all components too, to its description."""
    out: dict[str, str] = {}
    for path, description in _paths(TrialConfig, ""):
        out.setdefault(path, description)
    return out


def plain(text: str) -> str:
    """A docstring's markup as Markdown's, on one line."""
    text = re.sub(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"\s+", " ", text).strip()


def _paths(model: type[Settings], below: str) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        path = f"{below}.{name}" if below else name
        yield path, plain(info.description or "")
        if path in COMPONENTS:
            for inner in classes_of(COMPONENTS[path]):
                yield from _paths(inner, path)
        elif isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            yield from _paths(info.annotation, path)


def _with_fragments(model: type[Settings]) -> tuple[Schema, Schema]:
    """A spec's own schema and its definitions, its parts of trial configs described too."""
    body = model.model_json_schema()
    definitions = body.pop("$defs", {})
    for owner in (body, *definitions.values()):
        for field in ("base", "set"):
            if field in owner["properties"]:
                owner["properties"][field] = _described({"$ref": f"#/$defs/{_TRIAL}"}, owner, field)
    names = list(profiles())
    body["properties"]["profile"]["enum"] = names
    body["properties"]["profiles"]["propertyNames"] = {"enum": names}
    return body, {**definitions, **_trial_definitions(partial=True), **_axis_definitions()}


def _described(schema: Schema, owner: Schema, field: str) -> Schema:
    return {**schema, "description": owner["properties"][field].get("description", "")}


def _axis_definitions() -> Schema:
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    values: Schema = {"type": "array", "minItems": 1}
    paths = field_paths()
    axis: Schema = {
        "description": "What a field may take: a list of values, or a choice, float or int with its ends.",
        "anyOf": [
            values,
            {
                "type": "object",
                "properties": {
                    "choice": {**values, "description": "One of these values."},
                    "float": {**ends, "description": "[low, high], both included."},
                    "int": {**ends, "items": {"type": "integer"}, "description": "[low, high], both included."},
                    "log": {"type": "boolean", "description": "Drawn evenly in the logarithm."},
                    "step": {"type": ["number", "null"], "description": "Between two values."},
                    "when": {
                        "type": ["object", "null"],
                        "propertyNames": {"enum": list(paths)},
                        "description": "Field path to the value or values under which this axis exists.",
                    },
                    "source": {"type": "string", "description": "Where the range is from."},
                },
                "additionalProperties": False,
                "oneOf": [{"required": [kind]} for kind in ("choice", "float", "int")],
            },
        ],
    }
    return {
        _AXIS: axis,
        _AXES: {
            "type": "object",
            "properties": {path: {"$ref": f"#/$defs/{_AXIS}", "description": text} for path, text in paths.items()},
            "additionalProperties": False,
        },
        _PATHS: {
            "type": "object",
            "properties": {path: {"description": text} for path, text in paths.items()},
            "additionalProperties": False,
        },
    }


def _trial_definitions(*, partial: bool) -> Schema:
    """The trial config under ``trial``, its groups of fields and components beside it.

    Args:
        partial: for a part of a config, which others are laid on: nothing is required, and the fields of a component
            may stand without its name.
    """
    body = TrialConfig.model_json_schema()
    definitions: Schema = body.pop("$defs")
    for path, base in _BASES.items():
        definitions.pop(base.__name__, None)
        definitions.update(_component(path, partial=partial))
    body["properties"]["preset"] = {
        "enum": list(PRESETS),
        "description": "Fills in the fields that are not given: as the paper has it, or as the released code does.",
    }
    backbone = definitions["ModelConfig"]["properties"]["backbone"]
    backbone["anyOf"] = [{"enum": list(BACKBONES)}, {"pattern": f"^{TIMM_PREFIX}."}]
    tasks = definitions["TasksConfig"]["properties"]
    tasks["set"]["enum"] = list(TASK_SETS)
    names = list(dict.fromkeys(task for entries in TASK_SETS.values() for task in entries))
    next(kind for kind in tasks["include"]["anyOf"] if kind.get("type") == "array")["items"] = {"enum": names}
    definitions[_TRIAL] = body
    if partial:
        for definition in definitions.values():
            # A component's name tells its fields apart from another one's; it is asked for where one is chosen.
            if definition.get("required") != ["name"]:
                definition.pop("required", None)
    return definitions


def _component(path: str, *, partial: bool) -> Schema:
    """The definition of a component (a name, or a mapping with one) and of everything it can be."""
    out: Schema = {}
    members: list[str] = []
    fields: dict[str, list[Schema]] = {}
    for model, names in classes_of(COMPONENTS[path]).items():
        schema = model.model_json_schema()
        own = schema.pop("$defs", {})
        out.update({name: inner for name, inner in own.items() if name not in _base_names()})
        schema["properties"]["name"] = {"enum": names, "description": plain(model.__doc__ or "")}
        schema["required"] = ["name"] if partial else sorted({"name", *schema.get("required", [])})
        members.append(f"{path}:{model.__name__}")
        out[members[-1]] = schema
        for field, inner in schema["properties"].items():
            if field != "name" and inner not in fields.setdefault(field, []):
                fields[field].append(inner)
    chosen: Schema = {
        "type": "object",
        "required": ["name"],
        "discriminator": {"propertyName": "name"},
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in members],
    }
    kinds: list[Schema] = [{"enum": list(COMPONENTS[path])}, chosen]
    if partial:
        kinds.append(
            {
                "type": "object",
                "properties": {
                    field: deepcopy(found[0]) if len(found) == 1 else {"anyOf": deepcopy(found)}
                    for field, found in fields.items()
                },
                "additionalProperties": False,
            }
        )
    out[path] = {"anyOf": kinds}
    return out


def _base_names() -> dict[str, str]:
    return {base.__name__: path for path, base in _BASES.items()}


def _finished(title: str, body: Schema, definitions: Schema) -> Schema:
    bases = _base_names()

    def clean(value: Any) -> Any:
        """Without the titles that repeat names; references to a component's base class lead to the component."""
        if isinstance(value, list):
            return [clean(item) for item in value]
        if not isinstance(value, dict):
            return value
        out = {}
        for key, inner in value.items():
            if key == "title" and isinstance(inner, str):
                continue
            if key == "$ref" and (name := inner.rpartition("/")[2]) in bases:
                out[key] = f"#/$defs/{bases[name]}"
            elif key == "description" and isinstance(inner, str):
                out[key] = plain(inner)
            else:
                out[key] = clean(inner)
        return out

    return {"$schema": DIALECT, "title": f"mtl-study: {title}", **clean(body), "$defs": clean(definitions)}
