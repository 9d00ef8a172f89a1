"""Shell completion: the script, and the names it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from study.cli.options import example

PROGRAM = "mtl-study"
VARIABLE = "_MTL_STUDY_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_HOW = {
    "bash": 'eval "$(mtl-study completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(mtl-study completion zsh)"  # in ~/.zshrc',
    "fish": "mtl-study completion fish > ~/.config/fish/completions/mtl-study.fish",
}


@click.command("completion", epilog=example(*_HOW.values()))
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options, studies, profiles and methods."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())


class Names(click.types.StringParamType):
    """Text, with names to offer.

    Args:
        names: gives them, given what is typed so far; called only when a shell asks.
        files: whether the text may also be a file.
    """

    def __init__(self, names: Callable[[str], Iterable[str]], *, files: bool = False) -> None:
        self._names = names
        self._files = files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin so; files where none does."""
        found = [CompletionItem(name) for name in self._names(incomplete) if name.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if self._files else [])


def studies(incomplete: str = "") -> list[str]:
    """Studies and bundles."""
    from study.spec import bundles, spec_names

    return [*spec_names(), *bundles()]


def searches(incomplete: str = "") -> list[str]:
    """Searches."""
    from study.search.spec import search_names

    return list(search_names())


def profiles(incomplete: str = "") -> list[str]:
    """Profiles."""
    from study.spec import profiles as all_profiles

    return list(all_profiles())


def cells(incomplete: str) -> list[str]:
    """Studies, and after a slash the rows of one."""
    from study.spec import load_spec, spec_names

    study, slash, _ = incomplete.partition("/")
    if slash and study in spec_names():
        return [f"{study}/{row.id}" for row in load_spec(study).rows]
    return studies()


def figures(incomplete: str = "") -> list[str]:
    """Figures."""
    from analysis.figures import FIGURES

    return list(FIGURES)


def data_sets(incomplete: str = "") -> list[str]:
    """Data sets."""
    from trainables.data import DATA_SETS

    return list(DATA_SETS)


def assignments(incomplete: str) -> list[str]:
    """``--set``: fields that have names for values, with these."""
    from trainables.data import DATA_SETS
    from trainables.methods import METHODS
    from trainables.models import BACKBONES

    named: dict[str, Iterable[str]] = {
        "method.name": METHODS,
        "model.backbone": BACKBONES,
        "data.name": DATA_SETS,
    }
    field, equals, _ = incomplete.partition("=")
    return [f"{field}={name}" for name in named.get(field, ())] if equals else [f"{path}=" for path in named]


def methods(incomplete: str) -> list[str]:
    """``--only`` of a search: contenders are called like their methods; several with commas between."""
    from trainables.methods import METHODS

    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in METHODS]


_BY_NAME: dict[str, click.types.StringParamType] = {
    "study": Names(studies, files=True),
    "studies": Names(studies),
    "search": Names(searches, files=True),
    "profile": Names(profiles),
    "cell": Names(cells),
    "a": Names(cells),
    "b": Names(cells),
    "assignments": Names(assignments),
    "only": Names(methods),
}
_OF_COMMAND: dict[tuple[str, str], click.types.StringParamType] = {
    ("figure", "name"): Names(figures),
    ("status", "name"): Names(studies),
    ("show", "name"): Names(data_sets),
}


def offer_names(group: click.Group) -> None:
    """Let every parameter of a group's commands that takes a name complete it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            offer_names(command)
        for parameter in command.params:
            kind = _OF_COMMAND.get((name, parameter.name or ""), _BY_NAME.get(parameter.name or ""))
            if kind is not None and parameter.type is click.STRING:
                parameter.type = kind
