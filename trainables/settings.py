"""The base of every config: frozen, strictly typed, unknown fields refused, one readable line for each mistake."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from trainables.errors import ConfigError, unknown
from trainables.registry import Registry

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """A frozen group of config fields. A docstring under a field is its documentation and goes into the JSON schema."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    @classmethod
    def parse(cls: type[S], value: Mapping[str, Any], where: str = "") -> S:
        """Validate plain data (as YAML or JSON gives it); raises :class:`ConfigError` with one line naming the
        field."""
        try:
            return cls.model_validate_json(to_json(value, where))
        except ValidationError as error:
            raise ConfigError(describe(error, cls, where)) from None

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain JSON data, defaults included."""
        plain: dict[str, Any] = self.model_dump(mode="json", serialize_as_any=True)
        return plain

    def canonical(self) -> dict[str, Any]:
        """The fields that differ from their defaults, and every ``name`` that selects a kind of component.

        What a trial key is made of: a field added later, with a default that keeps the old behaviour, leaves old keys
        alone.
        """
        out: dict[str, Any] = {}
        plain: dict[str, Any] | None = None
        for name, default in _defaults(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Settings):
                inner = value.canonical()
                if inner or value != default:
                    out[name] = inner
            elif name == "name" or value != default:
                plain = self.to_dict() if plain is None else plain
                out[name] = plain[name]
        return out


@cache
def _defaults(model: type[Settings]) -> Mapping[str, Any]:
    """Every field's default; only compared with, never given out."""
    return {name: info.get_default(call_default_factory=True) for name, info in model.model_fields.items()}


def component(registry: Registry[Any], value: Any, where: str) -> Any:
    """Turn ``{"name": ..., field: ...}`` (or just a name) into the config class that the named component registered.

    ``registry`` maps a name to a :class:`Settings` subclass, or to something whose ``Config`` is one.
    """
    if isinstance(value, Settings):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: a name or a mapping with a 'name' is wanted, got {value!r}")
    if "name" not in value:
        raise ConfigError(f"{where}.name is missing (allowed: {', '.join(sorted(registry))})")
    if not isinstance(value["name"], str) or value["name"] not in registry:
        raise ConfigError(f"{where}.name: {unknown(registry.kind, value['name'], registry)}")
    entry = registry[value["name"]]
    config: type[Settings] = getattr(entry, "Config", entry)
    return config.parse(value, where)


def describe(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """The first problem of ``error`` in one line: the field's path, what is wrong with it, and what is allowed."""
    problems = error.errors(include_url=False)
    # A misspelt field makes two problems, itself and the field it leaves missing; the typo is the one to say.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return str(cause)
    loc, owner = _locate(model, problem["loc"], extra=problem["type"] == "extra_forbidden")
    path = ".".join([where, *loc] if where else loc) or "config"
    if problem["type"] == "extra_forbidden":
        return f"{path}: {unknown('field', loc[-1], getattr(owner, 'model_fields', ()))}"
    if problem["type"] == "missing":
        return f"{path} is missing"
    # A field that may be of several types has one problem for each; all of them are said.
    same = [other["msg"] for other in problems if _locate(model, other["loc"], extra=False)[0] == loc]
    given = problem.get("input")
    shown = "" if isinstance(given, Mapping) else f", got {_short(given)}"
    return f"{path}: {' or '.join(dict.fromkeys(_plain(message) for message in same))}{shown}"


def _plain(message: str) -> str:
    message = re.sub(r"\s+", " ", re.sub(r"^(Input|Value error,)\s*", "", message))
    return message[0].lower() + message[1:]


def _locate(model: Any, loc: Iterable[int | str], *, extra: bool) -> tuple[list[str], Any]:
    """The field path in an error's location, without the names pydantic puts in for validators and members of unions,
    and the type that the last part belongs to (``extra``: as a field it does not have)."""
    parts = list(loc)
    out: list[str] = []
    at: Any = model
    for index, part in enumerate(parts):
        if isinstance(part, int) or (extra and index == len(parts) - 1):
            out.append(str(part))
            at = at if extra and index == len(parts) - 1 else _item(at)
        elif isinstance(at, type) and issubclass(at, BaseModel):
            if part in at.model_fields:
                out.append(part)
                at = at.model_fields[part].annotation
        elif typing.get_origin(at) is dict:
            out.append(part)
            at = typing.get_args(at)[1]
    return out, at


def _item(annotation: Any) -> Any:
    """The element type of a tuple or list annotation."""
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_json(value: Any, where: str = "") -> str:
    """A mapping of plain data and configs as JSON; raises :class:`ConfigError` with the path of anything else."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where or 'config'}: a mapping of fields is wanted, got {_short(value)}")

    def plain(item: Any, path: str) -> Any:
        if isinstance(item, float):
            if not math.isfinite(item):
                raise ConfigError(f"{path}: a finite number is wanted, got {item}")
            return item
        # The commonest first: that nothing is a Mapping takes long to find out.
        if item is None or isinstance(item, (bool, int, str)):
            return item
        if isinstance(item, Settings):
            return item.to_dict()
        if isinstance(item, Mapping):
            for key in item:
                if not isinstance(key, str):
                    raise ConfigError(f"{path or 'config'}: field names are text, got {_short(key)}")
            return {key: plain(inner, f"{path}.{key}" if path else key) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(inner, f"{path}.{index}") for index, inner in enumerate(item)]
        if isinstance(item, Path):
            return str(item)
        raise ConfigError(f"{path}: a number, text, list or mapping is wanted, got {_short(item)}")

    return json.dumps(plain(value, where))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads ``1e-3`` as a number (YAML 1.1 takes it for text)."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    out: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict, set)):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key_node.start_mark)
        if key in out:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        out[key] = loader.construct_object(value_node, deep=True)
    return out


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, source: str) -> Any:
    """Safe YAML from text; raises :class:`ConfigError` naming ``source`` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{source}: not valid YAML: {first}") from None


def read_yaml(path: Path) -> Any:
    """Safe YAML from a file; raises :class:`ConfigError` naming the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    return parse_yaml(text, str(path))
