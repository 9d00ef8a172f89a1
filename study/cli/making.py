"""The command that writes a start: a package with a method, a data set or a task set of one's own, or a study."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType

import click

from study.cli.options import example
from trainables.errors import ConfigError

LONGEST_NAME = 40


@dataclass(frozen=True)
class Kind:
    """What can be made as a package.

    Attributes:
        word: what it is called.
        group: of the entry point.
        target: the object in the module that the entry point names; ``{camel}`` is its name in capitals.
    """

    word: str
    group: str
    target: str


PACKAGES: Mapping[str, Kind] = MappingProxyType(
    {
        "method": Kind("method", "mtl_study.methods", "{camel}Method"),
        "dataset": Kind("data set", "mtl_study.data_sets", "{camel}Data"),
        "task": Kind("task set", "mtl_study.task_sets", "TASKS"),
    }
)


@click.command(
    epilog=example("mtl-study new method my_weighting", "mtl-study new study my_ablation --out studies"),
)
@click.argument("kind", type=click.Choice([*PACKAGES, "study"]))
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), help="Folder to write into (default: the current one)."
)
def new(kind: str, name: str, out: Path) -> None:
    """Write a start that works: a package with a method, data set or task set, its tests and a trial; or a study's YAML
    file. Nothing that exists is overwritten."""
    path = make(kind, name, out)
    if kind == "study":
        click.echo(f"wrote {path}\nnext: mtl-study plan {path}")
    else:
        click.echo(
            f"wrote {path}\nnext: pip install -e {path} && pytest {path} && mtl-study trial {path / 'trial.yaml'}"
        )


def make(kind: str, name: str, out: Path) -> Path:
    """Write the start of a component or study; returns the package's folder or the study's file.

    Args:
        kind: a key of :data:`PACKAGES`, or ``study``.
        name: as it will be registered.
        out: folder to write into; made where it is not there.

    Raises:
        ConfigError: the name is not allowed or taken, what would be written exists, or ``out`` cannot be written.
    """
    _check(kind, name)
    out = out.expanduser()
    module, dashed = f"mtl_study_{name}", name.replace("_", "-")
    if kind == "study":
        target, written = out / f"{name}.yaml", {"": "study.yaml"}
        words = {"name": name}
    else:
        target = out / f"mtl-study-{dashed}"
        written = {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            "trial.yaml": f"{kind}_trial.yaml",
            f"{module}/__init__.py": f"{kind}.py",
            f"tests/test_{name}.py": f"{kind}_test.py",
        }
        camel = "".join(part.capitalize() for part in name.split("_"))
        made = PACKAGES[kind]
        words = {"name": name, "dashed": dashed, "module": module, "camel": camel, "kind": made.word}
        words |= {"group": made.group, "target": made.target.format(camel=camel)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if kind != "study":
            target.mkdir()
        for path, template in written.items():
            file = target / path if path else target
            file.parent.mkdir(exist_ok=True)
            text = (files("study") / "templates" / f"{template}.in").read_text(encoding="utf-8")
            # "x": whatever came to be there in the meantime stays as it is.
            with file.open("x", encoding="utf-8") as stream:
                stream.write(Template(text).substitute(words))
    except FileExistsError as error:
        raise ConfigError(f"{error.filename}: exists already; nothing is overwritten") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    return target


def _check(kind: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST_NAME or keyword.iskeyword(name):
        raise ConfigError(
            f"name: small letters, digits and single underscores are wanted, a letter first, at most {LONGEST_NAME} "
            f"of them and no word of Python, got '{name}'"
        )
    if name in _taken(kind):
        raise ConfigError(f"name: there is a {PACKAGES[kind].word if kind in PACKAGES else kind} '{name}' already")


def _taken(kind: str) -> Collection[str]:
    if kind == "study":
        from study.spec import bundles, spec_names

        return {*spec_names(), *bundles()}
    from trainables.data import DATA_SETS
    from trainables.methods import METHODS
    from trainables.task_sets import TASK_SETS

    taken: Mapping[str, Collection[str]] = {"method": METHODS, "dataset": DATA_SETS, "task": TASK_SETS}
    return taken[kind]
