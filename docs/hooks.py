"""What ``mkdocs build`` adds to the pages in this folder: the reference, made from the code; CONTRIBUTING and
CHANGELOG; the files that a star in the navigation stands for; formulas as MathML, which browsers show without a
script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from made_pages import generated_pages  # mkdocs puts a hook's folder on the path

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the files of the folder in place of the stars of the navigation."""
    config["nav"] = [_expanded(entry, Path(config["docs_dir"])) for entry in config["nav"]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for name, text in generated_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Formulas between dollars as MathML; in the reference a dollar begins a variable's name."""
    return markdown if page.file.src_uri.startswith("reference/") else with_formulas(markdown)


def _expanded(entry: Any, folder: Path) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    return {title: _files(inner, folder) if isinstance(inner, str) else inner for title, inner in entry.items()}


def _files(pattern: str, folder: Path) -> Any:
    if "*" not in pattern:
        return pattern
    found = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    # The section's own page first.
    return sorted((name for name in found if name != "index.md"), key=lambda name: not name.endswith("README.md"))


def with_formulas(markdown: str) -> str:
    """``$...$`` and ``$$...$$`` outside of code as MathML."""
    from latex2mathml.converter import convert

    def outside(text: str) -> str:
        # In a span: Markdown takes a line that begins with <math> for a block of its own.
        text = re.sub(r"\$\$(.+?)\$\$", lambda m: f"\n{convert(m[1].strip(), display='block')}\n", text, flags=re.S)
        return re.sub(
            r"(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])", lambda m: f"<span>{convert(m[1])}</span>", text
        )

    parts = re.split(r"(^```.*?^```[ \t]*$|`[^`\n]+`)", markdown, flags=re.S | re.M)
    return "".join(part if index % 2 else outside(part) for index, part in enumerate(parts))
