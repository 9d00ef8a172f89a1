"""The documentation's commands and code are run, its links and generated pages are looked at.

Conventions of a page: a ``bash`` block after ``<!-- run -->`` is run, command by command, ``<!-- run PATH=VALUE -->``
with these settings; a block with ``title="FILE"`` is written to the page's folder first; a ``python`` block without a
title is executed, all of a page in one namespace. Commands run in this process at profile smoke, on one worker, in
one home for all pages, unless they say otherwise.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from study.cli import main, run
from study.home import VARIABLE
from trainables.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WRITTEN = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES = sorted(
    [*WRITTEN, *(p.relative_to(ROOT).as_posix() for p in DOCS.rglob("*.md") if "results" not in p.parts)],
)
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>run[^\n]*?) -->\n)?```(?P<language>\w+)(?P<rest>[^\n]*)\n(?P<body>.*?)^```", re.S | re.M
)
FINDINGS = {"doctor", "verify"}
"""Commands whose exit code 1 says that they found something."""


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    body: str
    runs: bool
    settings: tuple[str, ...] = ()
    """Of every command that has ``--set``, so that a test takes seconds."""


def blocks(page: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', match["rest"])
        language = match["language"]
        runs = bool(match["mark"]) if language == "bash" else language == "python" and not title
        settings = tuple((match["mark"] or "").split()[1:])
        found.append(Block(language, title[1] if title else "", match["body"], runs, settings))
    return found


def commands(block: Block) -> Iterator[list[str]]:
    for line in block.body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "mtl-study":
            yield words[1:]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and its arguments."""
    at: click.Command = main
    rest = list(words)
    while isinstance(at, click.Group) and rest and not rest[0].startswith("-"):
        assert rest[0] in at.commands, f"there is no command {' '.join(words)}"
        at = at.commands[rest.pop(0)]
    return at, rest


def small(words: list[str], settings: tuple[str, ...]) -> list[str]:
    """The command at the scale of a test."""
    command, rest = command_of(words)
    names = {option for parameter in command.params for option in parameter.opts}
    out = list(words)
    if "--profile" in names and "--profile" not in rest and "all" not in rest:
        out += ["--profile", "smoke"]
    if "--executor" in names and "--executor" not in rest:
        out += ["--executor", "local", "--workers", "1"]
    if "--set" in names:
        out += [word for setting in settings for word in ("--set", setting)]
    return out


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs") / "home"


def runnable(page: str) -> bool:
    return any(block.runs for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_what_a_page_shows_runs(
    page: str, shared_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(shared_home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))  # a page may register a method of its own
    module = type(sys)("docs_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # pydantic looks annotations up there
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.runs and block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.body, page, "exec"), module.__dict__)
        elif block.runs:
            for words in commands(block):
                code = run(small(words, block.settings))
                out, err = capsys.readouterr()
                allowed = {0, 1} if words[0] in FINDINGS else {0}
                assert code in allowed, f"mtl-study {' '.join(words)}: exit code {code}\n{out}\n{err}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in ("bash", "console") for b in blocks(page))]
)
def test_every_command_shown_exists_with_its_options(page: str) -> None:
    for block in blocks(page):
        for words in commands(block) if block.language == "bash" else ():
            command, rest = command_of(words)
            if isinstance(command, click.Group) or command.name == "submit":  # takes the options of run, too
                continue
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S | re.M)
    made = made_names()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:|#", target):
            continue
        path = ((ROOT / page).parent / target.partition("#")[0]).resolve()
        generated = path.is_relative_to(DOCS) and path.relative_to(DOCS).as_posix() in made
        assert generated or path.exists(), f"{page}: {target}"


def made_names() -> set[str]:
    return {
        *(f"reference/{name}.md" for name in ("cli", "config", "studies", "spaces", "metrics", "records")),
        "contributing.md",
        "changelog.md",
    }


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    sys.path.insert(0, str(DOCS))
    try:
        from made_pages import generated_pages

        return generated_pages()
    finally:
        sys.path.remove(str(DOCS))


def test_the_made_pages_are_those_that_are_linked(made: dict[str, str]) -> None:
    assert set(made) == made_names()


def test_the_reference_says_everything_there_is(made: dict[str, str]) -> None:
    from search_spaces import space_names
    from study.json_schema import field_paths
    from study.search.spec import search_names
    from study.spec import profiles, spec_names

    def all_commands(command: click.Command, path: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from all_commands(inner, f"{path} {name}")
        else:
            yield path

    assert [c for c in all_commands(main, "mtl-study") if f"## {c}\n" not in made["reference/cli.md"]] == []
    components = ("method", "data", "method.grouping", "method.grouping.clusterer")
    skipped = {f"{path}.name" for path in components}
    assert [p for p in field_paths() if p not in skipped and f"`{p}`\n:" not in made["reference/config.md"]] == []
    assert [n for n in space_names() if f"## `{n}`" not in made["reference/spaces.md"]] == []
    names = [*spec_names(), *search_names(), *profiles()]
    assert [n for n in names if f"| `{n}` |" not in made["reference/studies.md"]] == []


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        """Takes tags of Python's, which mkdocs allows, for nothing."""

    raw: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=Loader)

    def entries(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from entries(inner)

    named = list(entries(raw["nav"]))
    for path in DOCS.rglob("*.md"):
        relative = path.relative_to(DOCS)
        assert any(Path(relative).match(entry) and len(Path(entry).parts) == len(relative.parts) for entry in named), (
            path
        )
    for entry in named:
        assert "*" in entry or (DOCS / entry).exists() or entry in made_names(), entry


def test_the_trial_config_of_the_readme_is_one() -> None:
    from trainables.config import load_trial
    from trainables.settings import parse_yaml

    (block,) = [block for block in blocks("README.md") if block.language == "yaml"]
    assert load_trial(parse_yaml(block.body, "README.md")).method.name == "selective"
