from __future__ import annotations

import re

import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.records import Records
from analysis.report import bibtex, latex_document
from analysis.report.bibtex import METHODS, entries
from trainables.methods import METHODS as REGISTERED


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{([^,]+),$", text, flags=re.MULTILINE)


def test_every_method_of_the_paper_has_its_entry():
    ours = {name for name in REGISTERED if ":" not in name}
    assert ours == set(METHODS)
    assert {key for found in METHODS.values() for key in found} <= set(entries())


@pytest.mark.parametrize("key", sorted(entries()))
def test_an_entry_is_whole(key):
    entry = entries()[key]
    fields = dict(re.findall(r"^  (\w+) = \{(.*?)\},$", entry, flags=re.MULTILINE | re.DOTALL))
    assert {"title", "author", "year"} <= fields.keys()
    assert "booktitle" in fields or "journal" in fields
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    assert entry.count("{") == entry.count("}")


def test_what_is_compared(store: SyntheticStore):
    published = {"table": "D.5", "row": "Random (M=2)"}
    names = ("famo", "mgda", "torchjd:UPGrad", "mine}\n@article{evil,")
    rows = [row(f"r{n}", [cell(f"r{n}-0", 0)], "", published if n == 0 else None) for n in range(len(names))]
    store.study(plan([baseline_row(), *rows], task_set="taskonomy"))
    for n, name in enumerate(names):
        store.trial(f"r{n}-0", {"depth/rmse": 1.0, "semseg/miou": 40.0}, tags={"method": name})
    text = bibtex(Records.load(store.home, "toy"))
    assert keys(text) == [
        "jeong2025selective",
        "liu2023famo",
        "desideri2012mgda",
        "sener2018mgda",
        "quinton2024jacobian",
        "maninis2019astmt",
        "zamir2018taskonomy",
        "dosovitskiy2021vit",
    ]
    assert "% no paper is known here of method mine? ?article?evil?" in text


def test_nothing_begun_and_nothing_published(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    assert bibtex(Records.load(store.home, "toy")) == "% what study toy compares"


def test_a_document_has_what_its_tables_need():
    text = latex_document(["% needs \\usepackage{booktabs}\n\\begin{table}[t]\n\\end{table}"] * 2)
    assert text.index(r"\usepackage{booktabs}") < text.index(r"\begin{document}") < text.index(r"\begin{table}")
    assert text.count(r"\begin{table}") == 2
    assert text.endswith(r"\end{document}")
