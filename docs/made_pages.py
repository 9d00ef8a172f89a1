"""The pages that are made from the code: command line, configs, studies, spaces, metrics, records."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from search_spaces import about, space, space_names
from search_spaces.fields import COMPONENTS
from study import environment
from study import schema as record_names
from study.cli import main
from study.json_schema import classes_of, plain
from study.search.spec import SearchSpec, load_search, search_names
from study.spec import StudySpec, bundles, load_spec, profiles, spec_names
from trainables.config import TrialConfig
from trainables.data import DATA_SETS
from trainables.presets import PRESETS
from trainables.settings import Settings
from trainables.task_sets import TASK_SETS, TasksConfig, make_tasks

ROOT = Path(__file__).resolve().parent.parent

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
    "object": "mapping",
}
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def generated_pages() -> dict[str, str]:
    """Path of every page that is made, to its Markdown."""
    environment.quiet()
    makers: dict[str, Callable[[], str]] = {
        "reference/cli.md": cli_page,
        "reference/config.md": config_page,
        "reference/studies.md": studies_page,
        "reference/spaces.md": spaces_page,
        "reference/metrics.md": metrics_page,
        "reference/records.md": records_page,
        "contributing.md": lambda: _moved("CONTRIBUTING.md"),
        "changelog.md": lambda: _moved("CHANGELOG.md"),
    }
    return {name: make() for name, make in makers.items()}


def _moved(name: str) -> str:
    """A page of the repository's root, its links to this folder as they are from inside."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def cli_page() -> str:
    """Every command with its options."""
    lines = [
        "# Command line",
        "",
        "Made from the commands. `mtl-study COMMAND --help` says the same. Exit codes: 0; 1 where trials failed or a "
        "check found something; 2 for a mistake in what was asked, said in one line; 130 after Ctrl-C.",
        "",
    ]
    for path, command in _commands(main, "mtl-study"):
        context = click.Context(command, info_name=path)
        lines += [f"## {path}", "", *_paragraphs(command.help or ""), ""]
        lines += ["```text", " ".join([path, *command.collect_usage_pieces(context)]), "```", ""]
        options = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
        rows = [(f"`{names}`", _escaped(text)) for names, text in options if not names.startswith("--help")]
        if rows:
            lines += [*_table(("option", ""), rows), ""]
        if command.epilog:
            examples = [line.strip() for line in command.epilog.splitlines() if line.strip().startswith("mtl-study")]
            lines += ["```bash", *examples, "```", ""]
    return "\n".join(lines)


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], f"{path} {name}")
    else:
        yield path, command


def config_page() -> str:
    """Every field of a trial config, those of all components too."""
    lines = [
        "# Trial config",
        "",
        "Made from the classes that read it. A trial config is a mapping; every field has a default unless it is "
        "marked as required. `data`, `method`, `method.grouping` and `method.grouping.clusterer` are components: a "
        "name, or a mapping with `name` and the component's own fields. `--set PATH=VALUE` takes the paths below.",
        "",
        *_class("Top level", TrialConfig, "", 2),
        "## `preset`",
        "",
        "`preset: NAME` at the top fills in fields that are not given (see [fidelity](../explanation/fidelity.md)).",
        "",
        *_table(("field", *PRESETS), _preset_rows()),
        "",
    ]
    for name, info in TrialConfig.model_fields.items():
        if name in COMPONENTS:
            lines += _component(name)
        elif isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            lines += _groups(name, info.annotation, 2)
    for path in COMPONENTS:
        if "." in path:
            lines += _component(path)
    return "\n".join(lines)


def _preset_rows() -> list[tuple[str, ...]]:
    paths = dict.fromkeys(path for fields in PRESETS.values() for path in fields)
    return [
        (f"`{path}`", *(_value(fields[path]) if path in fields else "default" for fields in PRESETS.values()))
        for path in paths
    ]


def _groups(path: str, model: type[Settings], level: int) -> list[str]:
    lines = _class(f"`{path}`", model, path, level)
    for name, info in model.model_fields.items():
        inner = info.annotation
        if f"{path}.{name}" not in COMPONENTS and isinstance(inner, type) and issubclass(inner, Settings):
            lines += _groups(f"{path}.{name}", inner, level + 1)
    return lines


def _component(path: str) -> list[str]:
    lines = [f"## `{path}`", "", f"One of {len(COMPONENTS[path])}, by `name`.", ""]
    for model, names in classes_of(COMPONENTS[path]).items():
        title = ", ".join(f"`{name}`" for name in names) if len(names) < 4 else f"`{names[0].partition(':')[0]}:...`"
        entry = COMPONENTS[path][names[0]]
        own = plain((inspect.getdoc(entry) or "").split("\n\n")[0]) if entry is not model else ""
        lines += [f"### {title}", "", *([own, ""] if own else [])]
        if len(names) >= 4:
            lines += ["Names: " + ", ".join(f"`{name}`" for name in names) + ".", ""]
        lines += _fields(model, path, skip=("name",))
        for name, info in model.model_fields.items():
            inner = info.annotation
            nested = isinstance(inner, type) and issubclass(inner, Settings) and f"{path}.{name}" not in COMPONENTS
            if nested and isinstance(inner, type):
                lines += [f"Fields of `{path}.{name}`:", "", *_fields(inner, f"{path}.{name}")]
    return lines


def _class(title: str, model: type[Settings], path: str, level: int) -> list[str]:
    return ["#" * level + f" {title}", "", *_paragraphs(model.__doc__ or ""), "", *_fields(model, path)]


def _fields(model: type[Settings], path: str, skip: tuple[str, ...] = ()) -> list[str]:
    schema = model.model_json_schema()
    lines: list[str] = []
    for name, field in schema["properties"].items():
        if name in skip:
            continue
        at = f"{path}.{name}" if path else name
        text = [_kind(field)]
        if name in schema.get("required", ()):
            text.append("required")
        elif "default" in field and not isinstance(field["default"], dict):
            text.append(f"default {_value(field['default'])}")
        lines += [f"`{at}`", f":   *{', '.join(text)}.* {plain(field.get('description', ''))}", ""]
    return lines


def _kind(schema: Mapping[str, Any]) -> str:
    """What a field takes, in words."""
    if "enum" in schema:
        return " or ".join(_value(value) for value in schema["enum"])
    if "const" in schema:
        return _value(schema["const"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(inner) for inner in schema["anyOf"]))
    if schema.get("type") == "array":
        inner = schema.get("items") or {}
        return f"list of {_kind(inner)}" if inner else "list"
    name = _TYPES.get(schema.get("type", "object"), "anything")
    limits = [f"{word} {_number(schema[key])}" for key, word in _LIMITS.items() if key in schema]
    return " ".join([name, " and ".join(limits)]).strip()


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    return "empty" if value in ("", [], {}) else f"`{value}`"


def studies_page() -> str:
    """The fields of study and search files, and what comes with the package."""
    lines = ["# Studies, searches, profiles", "", "Made from the classes that read the files, and from the files.", ""]
    for title, model in (("Study file", StudySpec), ("Search file", SearchSpec)):
        lines += [*_class(title, model, "", 2)]
        definitions = model.model_json_schema().get("$defs", {})
        for inner in sorted(_inner(model), key=lambda found: found.__name__):
            if inner.__name__ in definitions:
                lines += [*_class(f"{title}: {inner.__name__}", inner, "", 3)]
    lines += ["## Profiles", "", *_table(("profile", "", "seeds"), _profile_rows()), ""]
    lines += [
        "## Shipped studies",
        "",
        *_table(("study", ""), [(f"`{n}`", load_spec(n).title) for n in spec_names()]),
        "",
    ]
    rows = [(f"`{name}`", load_search(name).title) for name in search_names()]
    lines += ["## Shipped searches", "", *_table(("search", ""), rows), ""]
    named = [(f"`{name}`", b.about, ", ".join(f"`{s}`" for s in b.studies)) for name, b in bundles().items()]
    lines += ["## Bundles", "", *_table(("bundle", "", "studies"), named), ""]
    return "\n".join(lines)


def _profile_rows() -> list[tuple[str, ...]]:
    return [(f"`{name}`", _escaped(profile.about), str(profile.seeds)) for name, profile in profiles().items()]


def _inner(model: type[Settings]) -> set[type[Settings]]:
    """Classes of settings that fields of ``model`` hold, in whatever container."""
    found: set[type[Settings]] = set()

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Settings) and annotation not in found:
            found.add(annotation)
            for info in annotation.model_fields.values():
                visit(info.annotation)
        for argument in getattr(annotation, "__args__", ()):
            visit(argument)

    for info in model.model_fields.values():
        visit(info.annotation)
    return found


def spaces_page() -> str:
    """The search spaces by name."""
    lines = ["# Search spaces", "", "Made from `search_spaces/spaces`. A search names them in `space`.", ""]
    for name in space_names():
        lines += [f"## `{name}`", "", about(name), ""]
        rows = []
        for axis in space(name).axes:
            raw = axis.to_dict()
            when = ", ".join(f"{path} is {value}" for path, value in raw.pop("when", {}).items())
            source = raw.pop("source", "")
            domain = ", ".join(f"{key}: {value}" for key, value in raw.items())
            rows.append((f"`{axis.path}`", f"`{domain}`", _escaped(when), _escaped(source)))
        lines += [*_table(("field", "values", "exists when", "source"), rows), ""]
    return "\n".join(lines)


def metrics_page() -> str:
    """Tasks of every task set with their metric."""
    lines = [
        "# Tasks and metrics",
        "",
        "Made from the task sets. The metric is what Δm and searches rest on; what is measured further is recorded "
        "beside it.",
        "",
    ]
    for name in TASK_SETS:
        rows = []
        for task in make_tasks(TasksConfig(set=name), *_labels_for(name)):
            direction = "higher" if task.higher_is_better else "lower"
            further = ", ".join(f"`{metric.name}`" for metric in task.further)
            rows.append(
                (f"`{task.name}`", f"`{task.label}`", str(task.channels), f"`{task.metric}`", direction, further)
            )
        header = ("task", "label", "channels", "metric", "better", "further")
        lines += [f"## `{name}`", "", *_table(header, rows), ""]
    return "\n".join(lines)


def _labels_for(task_set: str) -> tuple[Mapping[str, int], frozenset[str]]:
    """Classes by label of a data set that has all the labels of a task set."""
    for data_set in [DATA_SETS[name] for name in sorted(DATA_SETS, key=lambda name: not name.startswith(task_set))]:
        try:
            tasks = make_tasks(TasksConfig(set=task_set), data_set.classes, frozenset())
        except KeyError:
            continue
        if all(task.label in data_set.labels for task in tasks):
            return data_set.classes, frozenset()
    raise LookupError(f"no data set has the labels of task set '{task_set}'")


def records_page() -> str:
    """The names in the records, from the module that spells them."""
    source = inspect.getsource(record_names)
    lines = [
        "# Records",
        "",
        "Made from `study/schema.py`, the one place that spells these names. A study is an MLflow experiment; each "
        "`run` makes a run of kind `study`, each trial a run of kind `trial` below it. See "
        "[reading records in pandas](../howto/pandas.md).",
        "",
    ]
    text = source.splitlines()
    body = ast.parse(source).body
    for index, node in enumerate(body):
        above = text[node.lineno - 2] if node.lineno > 1 else ""
        if above.startswith("# "):
            lines += ["", f"## {above[2:]}", ""]
        following = body[index + 1] if index + 1 < len(body) else None
        said = plain(_docstring(following))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = getattr(record_names, node.targets[0].id)
            shown = ", ".join(f"`{part}`" for part in value) if isinstance(value, tuple) else f"`{value}`"
            lines.append(f"- {shown}" + (f": {said}" if said else f" ({node.targets[0].id.replace('_', ' ').lower()})"))
        elif isinstance(node, ast.FunctionDef):
            lines.append(f"- {plain(ast.get_docstring(node) or '')}")
    return "\n".join(lines)


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _paragraphs(text: str) -> list[str]:
    return [line for block in inspect.cleandoc(text.replace("\b", "")).split("\n\n") for line in (plain(block), "")][
        :-1
    ]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    out = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*out, *("| " + " | ".join(cell.replace("\n", " ") for cell in row) + " |" for row in rows)]


def _escaped(text: str) -> str:
    return plain(text).replace("|", "\\|").replace("<", "&lt;")
