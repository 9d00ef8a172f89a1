"""From comparisons to verdicts, and to the table of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims.claim import Claim, Comparison
from analysis.claims.evidence import Evidence
from analysis.claims.inference import MOST_SEEDS, Outcome, Question, ask, seeds_needed
from analysis.claims.paper import CLAIMS
from analysis.listing import listing
from analysis.stats import holm
from analysis.tables.footnotes import PAPER_PROFILE
from trainables.errors import ConfigError

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_MEASURED = "not measured"
VOID = "no rival"


@dataclass(frozen=True)
class Criteria:
    """What decides.

    Attributes:
        level: of the tests; the chance of a wrong decision about a claim.
        power: the chance of a decision that ``more_seeds`` is to reach.
        margin: points of Delta_m within which two rows count as the same. The default is a little over twice the spread
            over seeds the paper prints for the method (0.21 in Tables 2 and 4, so that three seeds can in principle
            show it), and under the least advantage the paper counts as one (0.56 points over Nash-MTL in Table 3).

    Raises:
        ConfigError: one of them is out of range.
    """

    level: float = 0.05
    power: float = 0.8
    margin: float = 0.5

    def __post_init__(self) -> None:
        for name in ("level", "power"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} is not allowed (allowed: between 0 and 1, exclusive)")
        if not 0 < self.margin < math.inf:
            raise ConfigError(f"margin {self.margin} is not allowed (allowed: more than 0)")


@dataclass(frozen=True)
class Judged:
    """A comparison with what came of it; ``p`` is corrected over its claim."""

    comparison: Comparison
    outcome: Outcome
    p: float
    verdict: str
    more_seeds: float


_COLUMNS = (
    "profile",
    "claim",
    "level",
    "text",
    "place",
    "study",
    "question",
    "verdict",
    "n",
    "difference",
    "unit",
    "sd",
    "low",
    "high",
    "effect",
    "p",
    "p_claim",
    "p_all",
    "more_seeds",
    "note",
)
_SHOWN = {
    "text": ("claim, and the comparisons behind it", ""),
    "verdict": ("verdict", ""),
    "n": ("n", ".0f"),
    "difference": ("difference", "+.3g"),
    "low": ("from", "+.3g"),
    "high": ("to", "+.3g"),
    "effect": ("effect", "+.2f"),
    "p_claim": ("p", ".2g"),
    "more_seeds": ("more seeds", ".0f"),
    "note": ("note", ""),
}


def claims(home: Path, profile: str | None = None, criteria: Criteria | None = None) -> pd.DataFrame:
    """Every claim of :data:`analysis.claims.paper.CLAIMS` judged by the records, to be shown with ``render``.

    Args:
        home: the folder with the records.
        profile: whose records; without it, that of the study recorded last.
        criteria: what decides.

    Raises:
        StoreError: nothing is recorded there, or nothing at that profile.
    """
    return judge(Evidence.load(home, profile), CLAIMS, criteria or Criteria())


def judge(evidence: Evidence, given: Sequence[Claim], criteria: Criteria) -> pd.DataFrame:
    """The table of :func:`claims` from records that are loaded.

    One row per claim (``level`` is ``claim``), its comparisons below it (``comparison``). Columns: ``profile``,
    ``claim``, ``level``, ``text``, ``place`` (in the paper), ``study``, ``question``, ``verdict`` (with its profile),
    ``n`` (seeds both sides have), ``difference`` (mean over them; a ratio for ``steadier``) in ``unit``, ``sd``,
    ``low`` and ``high`` (95 % interval), ``effect``, ``p`` (uncorrected), ``p_claim`` and ``p_all`` (Holm over the
    comparisons of the claim, and of all claims), ``more_seeds`` (beyond those there are), ``note``.

    A claim is supported where each of its comparisons is, contradicted where one is, not measured where no seed of any
    is there, and undecided otherwise. The level holds for each claim, not for all of them together.
    """
    judged = [(claim, _judged(claim, evidence, criteria)) for claim in given]
    everything = [entry for _, entries in judged for entry in entries]
    overall = dict(zip(map(id, everything), _corrected([entry.outcome for entry in everything]), strict=True))
    lines: list[dict[str, Any]] = []
    for claim, entries in judged:
        lines.append(_claim_line(claim, entries, evidence))
        lines += [_comparison_line(claim, entry, overall[id(entry)], evidence) for entry in entries]
    decided = [entry for entry in everything if entry.verdict in (SUPPORTED, CONTRADICTED)]
    frail = sum(not overall[id(entry)] <= criteria.level for entry in decided)
    return listing(
        lines,
        _COLUMNS,
        name="claims",
        title=f"The paper's claims by the records at profile {evidence.profile}",
        shown=_SHOWN,
        footnotes=_footnotes(evidence, criteria, len(everything), len(decided), frail),
        about={"profile": evidence.profile},
    )


def _judged(claim: Claim, evidence: Evidence, criteria: Criteria) -> list[Judged]:
    comparisons = claim.comparisons(evidence)
    nothing = Outcome(0)
    outcomes = [nothing if c.void else ask(c.question, *c.pairs, criteria.margin) for c in comparisons]
    for_, against = (holm([getattr(outcome, side) for outcome in outcomes]) for side in ("p_for", "p_against"))
    tests = max(sum(not math.isnan(outcome.p_for) for outcome in outcomes), 1)
    judged = []
    for comparison, outcome, yes, no in zip(comparisons, outcomes, for_, against, strict=True):
        verdict = _verdict(comparison, outcome, yes, no, criteria.level)
        more = math.nan
        if verdict == UNDECIDED:
            level = criteria.level / tests
            needed = seeds_needed(
                comparison.question,
                outcome,
                *comparison.pairs,
                margin=criteria.margin,
                level=level,
                power=criteria.power,
            )
            more = max(needed - outcome.n, 1.0)
        judged.append(Judged(comparison, outcome, _smaller(yes, no), verdict, more))
    return judged


def _verdict(comparison: Comparison, outcome: Outcome, p_for: float, p_against: float, level: float) -> str:
    if comparison.void:
        return VOID
    if outcome.n == 0:
        return NOT_MEASURED
    if p_against <= level:
        return CONTRADICTED
    return SUPPORTED if p_for <= level and not comparison.flaw else UNDECIDED


def _smaller(one: float, other: float) -> float:
    return math.nan if math.isnan(one) else min(one, other)


def _corrected(outcomes: Sequence[Outcome]) -> list[float]:
    sides = (holm([getattr(outcome, side) for outcome in outcomes]) for side in ("p_for", "p_against"))
    return [_smaller(yes, no) for yes, no in zip(*sides, strict=True)]


def _overall(entries: Sequence[Judged]) -> str:
    verdicts = Counter(entry.verdict for entry in entries)
    if verdicts[CONTRADICTED]:
        return CONTRADICTED
    if verdicts[NOT_MEASURED] + verdicts[VOID] == len(entries):
        return UNDECIDED if verdicts[VOID] else NOT_MEASURED
    return UNDECIDED if verdicts[UNDECIDED] + verdicts[NOT_MEASURED] else SUPPORTED


def _claim_line(claim: Claim, entries: Sequence[Judged], evidence: Evidence) -> dict[str, Any]:
    verdict = _overall(entries)
    verdicts = Counter(entry.verdict for entry in entries)
    notes = []
    if verdict == NOT_MEASURED and not entries:
        needed = f"{claim.needs}: " if claim.needs else ""
        commands = claim.studies if claim.needs else claim.studies[:1]
        notes.append(needed + "; ".join(f"mtl-study run {study} --profile {evidence.profile}" for study in commands))
    elif len(entries) > 1:
        notes.append(f"{', '.join(f'{count} {name}' for name, count in verdicts.items())}")
    recorded = sum(study in evidence.records for study in claim.studies)
    if entries and recorded < len(claim.studies):
        notes.append(f"{recorded} of {len(claim.studies)} studies recorded")
    open_ = [entry.more_seeds for entry in entries if entry.verdict == UNDECIDED]
    more = max(open_) if verdict == UNDECIDED and open_ and not any(map(math.isnan, open_)) else math.nan
    seeds = [entry.outcome.n for entry in entries if entry.outcome.n]
    return {
        "profile": evidence.profile,
        "claim": claim.id,
        "level": "claim",
        "text": f"{claim.id}: {claim.statement} ({claim.place})",
        "place": claim.place,
        "verdict": f"{verdict} at {evidence.profile}",
        "n": float(min(seeds)) if seeds else math.nan,
        "more_seeds": math.nan if math.isinf(more) else more,
        "note": "; ".join([*notes, *([f"more than {MOST_SEEDS} seeds"] if math.isinf(more) else [])]),
    }


def _comparison_line(claim: Claim, entry: Judged, p_all: float, evidence: Evidence) -> dict[str, Any]:
    comparison, outcome = entry.comparison, entry.outcome
    notes = [text for text in (comparison.void, comparison.flaw) if text]
    if entry.verdict == NOT_MEASURED:
        notes.append(f"mtl-study run {comparison.study.split(',')[0]} --profile {evidence.profile}")
    elif entry.verdict == UNDECIDED:
        notes += _why_open(comparison, outcome, entry.more_seeds)
    return {
        "profile": evidence.profile,
        "claim": claim.id,
        "level": "comparison",
        "text": f"> {comparison.label} ({comparison.study})",
        "place": claim.place,
        "study": comparison.study,
        "question": comparison.question.value,
        "verdict": f"{entry.verdict} at {evidence.profile}",
        "n": float(outcome.n),
        "difference": outcome.estimate,
        "unit": comparison.unit,
        "sd": outcome.sd,
        "low": outcome.low,
        "high": outcome.high,
        "effect": outcome.effect,
        "p": _smaller(outcome.p_for, outcome.p_against),
        "p_claim": entry.p,
        "p_all": p_all,
        "more_seeds": math.nan if math.isinf(entry.more_seeds) else entry.more_seeds,
        "note": "; ".join(notes),
    }


def _why_open(comparison: Comparison, outcome: Outcome, more: float) -> list[str]:
    if outcome.n == 1:
        return ["one seed has no spread: at least one more"]
    if comparison.question is Question.STEADIER and outcome.n == 2:
        return ["two seeds cannot compare spreads: at least one more"]
    if math.isnan(outcome.p_for):
        return ["no spread over seeds to test with"]
    return [f"more than {MOST_SEEDS} seeds"] if math.isinf(more) else []


def _footnotes(evidence: Evidence, criteria: Criteria, total: int, decided: int, frail: int) -> list[str]:
    notes = [
        f"read: {', '.join(evidence.records) or 'no study'} at profile {evidence.profile}",
        "difference: mean over the seeds both rows have, each seed against itself, of Delta_m against one baseline "
        "(the mean over its seeds), in points, unless CSV or JSON name another unit; from, to: 95% interval by "
        "Student's t, not corrected; effect: Cohen's d of the paired differences, corrected for few seeds (not defined "
        "for two)",
        f"p: Holm's correction over the comparisons of one claim, decided at {criteria.level:g}, two-sided; corrected "
        f"over all {total} comparisons of all claims (p_all in CSV and JSON), {frail} of the {decided} decisions "
        "do not hold",
        f"what is to matter little must differ by less than {criteria.margin:g} points (two one-sided tests), about "
        "twice the spread over seeds the paper prints for the method (0.21); spreads: ratio of standard deviations, "
        "Pitman and Morgan's test, which three seeds hardly ever decide",
        f"more seeds: beyond those there are, to decide with {criteria.power:.0%} power should mean and spread stay as "
        "observed; few seeds give it roughly",
    ]
    if evidence.profile != PAPER_PROFILE:
        notes.insert(
            0,
            f"a verdict at profile {evidence.profile} is about what was trained at that profile (its data, backbone "
            "and iterations) and is no verdict on the paper",
        )
    if evidence.other_profiles:
        notes.append(f"also recorded, and not read here: profile {', '.join(evidence.other_profiles)}")
    return [*notes, *evidence.problems]
