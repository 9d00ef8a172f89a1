"""LaTeX tables in a paper: nothing but the packages that they name, compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pandas import DataFrame
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.audit import audit
from analysis.records import Records
from analysis.render import render
from analysis.report import bibtex, latex_document
from analysis.tables import rows_table

LATEX = next((path for name in ("pdflatex", "tectonic") if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(LATEX is None, reason="neither pdflatex nor tectonic on the PATH")


def typeset(body: str, folder: Path) -> None:
    """A paper with ``body`` in it, and the packages that ``body`` says it needs."""
    said = "\n".join(line for line in body.splitlines() if line.startswith("%"))
    packages = "\n".join(re.findall(r"\\usepackage\{[\w,]+\}", said))
    (folder / "body.tex").write_text(body, encoding="utf-8")
    made(f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n\\input{{body}}\n\\end{{document}}\n", folder)


def made(document: str, folder: Path) -> None:
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    strict = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in str(LATEX) else []
    done = subprocess.run([str(LATEX), *strict, "paper.tex"], cwd=folder, capture_output=True, timeout=200, check=False)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output[-2000:]
    assert "Missing character" not in output
    assert (folder / "paper.pdf").stat().st_size > 5000


def test_a_table_compiles(mixed_home: Path, tmp_path: Path) -> None:
    typeset(render(rows_table(Records.load(mixed_home, "toy")), "latex"), tmp_path)


def test_a_table_with_every_odd_character_compiles(store: SyntheticStore, tmp_path: Path) -> None:
    label = "a|b & 50% of $x_1 {~^} <b>*β*\\ é \x1b[31m\nnext \\input{/etc/passwd} ≥ … – 北"
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0)], label)], title="Title_with & <i># % ↑"))
    store.baseline()
    store.trial("a-0", {"depth/rmse": 2.0, "semseg/miou": 44.0})
    typeset(render(rows_table(Records.load(store.home, "toy")), "latex"), tmp_path)


def test_a_long_listing_compiles(tmp_path: Path) -> None:
    found: DataFrame = audit()
    typeset(render(found, "latex"), tmp_path)


def test_the_document_of_a_report_compiles_as_it_is(mixed_home: Path, tmp_path: Path) -> None:
    tables = [render(rows_table(Records.load(mixed_home, "toy")), "latex"), render(audit(), "latex")]
    made(latex_document(tables), tmp_path)


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="no bibtex on the PATH")
def test_the_bibliography_compiles(mixed_home: Path, tmp_path: Path) -> None:
    entries = bibtex(Records.load(mixed_home, "toy"))
    (tmp_path / "refs.bib").write_text(entries, encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\begin{document}\n\\nocite{*}\\bibliographystyle{plain}\\bibliography{refs}\n"
        "\\end{document}\n",
        encoding="utf-8",
    )
    for command in (["pdflatex", "-interaction=nonstopmode", "paper"], ["bibtex", "paper"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert "Warning" not in done.stdout.decode(), done.stdout.decode()
    assert len(re.findall(r"\\bibitem", (tmp_path / "paper.bbl").read_text())) == entries.count("\n@")
