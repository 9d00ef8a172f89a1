"""A table in LaTeX as a document of its own."""

from __future__ import annotations

from collections.abc import Iterable

_PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{} % outlines, where a small TeX has bitmaps alone
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{amsmath}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage{longtable}
\begin{document}
"""


def latex_document(tables: Iterable[str]) -> str:
    """Tables as :func:`analysis.render.render` gives them in LaTeX, with all they need to compile; without a newline at
    the end."""
    return "\n".join([_PREAMBLE, *(f"{table}\n\\clearpage\n" for table in tables), r"\end{document}"])
