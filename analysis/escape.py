"""Text made safe for one line, Markdown and LaTeX."""

from __future__ import annotations

import re
import unicodedata

DASH = "-"
"""A cell with nothing in it."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "Δ": r"$\Delta$",
    "ε": r"$\epsilon$",
    "η": r"$\eta$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
}


def escape_markdown(text: str) -> str:
    """Text for a cell of a GitHub table or a list item: characters with a meaning there get a backslash."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Text for LaTeX: special characters escaped, characters pdfLaTeX lacks by their nearest ASCII or ``?``."""
    return "".join(_LATEX.get(char) or _latin(char) for char in text)


def _latin(char: str) -> str:
    if char.isascii() or (char.isalpha() and ord(char) < 0x180):
        return char
    return unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"


def clean(text: str) -> str:
    """One line without control characters: labels and reasons come from files and tracebacks."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())
