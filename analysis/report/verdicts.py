"""The paper's claims that the study's records speak to, with their verdicts."""

from __future__ import annotations

import math

import pandas as pd

from analysis.escape import DASH
from analysis.records import Records
from analysis.report.markup import Cell, Head, details, notes, safe, section, table, words

_MARKS = {"supported": "✓", "contradicted": "✗", "undecided": "?"}


def claims_section(records: Records, verdicts: pd.DataFrame | None) -> str:
    """Every claim with a comparison in this study; empty where there is none.

    Args:
        records: of the study.
        verdicts: of :func:`analysis.claims.claims`, at the study's profile.
    """
    if verdicts is None or verdicts.empty:
        return ""
    study = records.plan.study
    comparisons = verdicts[verdicts["level"] == "comparison"]
    # Without a comparison, pandas would take the empty mask of objects for a list of no columns.
    mine = comparisons["study"].map(lambda names: study in str(names).split(", ")).astype(bool)
    here = comparisons[mine]
    ids = list(dict.fromkeys(here["claim"]))
    if not ids:
        return ""
    parts = ["<p>Statements of the paper, tested on what is recorded here by paired comparisons over seeds.</p>"]
    for claim in ids:
        own = verdicts[verdicts["claim"] == claim]
        head = own[own["level"] == "claim"].iloc[0]
        parts.append(_claim(head, own[own["level"] == "comparison"]))
    return section("claims", "Claims of the paper", [*parts, notes(f"{note}." for note in verdicts.attrs["footnotes"])])


def _claim(head: pd.Series, comparisons: pd.DataFrame) -> str:
    statement = str(head["text"]).partition(": ")[2]
    note = f'<p class="notes">{safe(head["note"])}</p>' if head["note"] else ""
    shown = _comparisons(str(head["claim"]), comparisons)
    return (
        f'<article class="claim"><p>{_verdict(head["verdict"])} {safe(statement)}</p>{note}'
        f"{details(f'{len(comparisons)} comparison{str() if len(comparisons) == 1 else chr(115)}', shown)}</article>"
    )


def _verdict(text: str) -> str:
    """A verdict as a mark and a word: colour is not all that tells them apart."""
    kind = str(text).partition(" at ")[0]
    name = kind.replace(" ", "-")
    mark = f'<span aria-hidden="true">{_MARKS.get(kind, "–")}</span>'
    return f'<span class="verdict {safe(name)}">{mark} {safe(text)}</span>'


def _comparisons(claim: str, frame: pd.DataFrame) -> str:
    heads = [
        Head("comparison", words=True),
        Head("verdict", words=True),
        Head("n"),
        Head("difference"),
        Head("95% interval"),
        Head("p"),
        Head("more seeds"),
        Head("note", words=True),
    ]
    rows = [
        (
            "",
            [
                words(str(line["text"]).removeprefix("> ")),
                Cell(_verdict(line["verdict"])),
                _number(line["n"], ".0f"),
                _number(line["difference"], "+.3g"),
                _interval(line["low"], line["high"]),
                _number(line["p_claim"], ".2g"),
                _number(line["more_seeds"], ".0f"),
                words(line["note"] or ""),
            ],
        )
        for line in frame.to_dict("records")
    ]
    return table(f"claim-{safe(claim)}", f"Comparisons behind {claim}", heads, rows)


def _number(value: float, spec: str) -> Cell:
    return Cell(format(value, spec) if math.isfinite(value) else DASH, float(value))


def _interval(low: float, high: float) -> Cell:
    return Cell(f"{low:+.3g} to {high:+.3g}", low) if math.isfinite(low) else Cell(DASH, math.nan)
