"""What a claim is, and the comparisons that stand behind one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.claims.evidence import Evidence
from analysis.claims.inference import Question

POINTS = "points of Delta_m"


@dataclass(frozen=True)
class Comparison:
    """Two rows of a study, or one quantity against another, seed by seed.

    Attributes:
        label: ``selective - gd``.
        study: whose records; several where they share the trials.
        question: asked of them.
        left: seed to value.
        right: seed to value; only seeds of both are paired.
        unit: of the difference.
        flaw: why it cannot affirm a claim whatever its numbers: seeds were lost. Empty where none were.
        void: why there is nothing to compare with: the rival diverged at every seed. Empty otherwise.
        identity: equal for comparisons of the same trials.
    """

    label: str
    study: str
    question: Question
    left: Mapping[int, float]
    right: Mapping[int, float]
    unit: str = POINTS
    flaw: str = ""
    void: str = ""
    identity: tuple[object, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """Those both have."""
        return sorted(self.left.keys() & self.right.keys())

    @property
    def pairs(self) -> tuple[list[float], list[float]]:
        """Their values, in the order of the seeds."""
        return [self.left[seed] for seed in self.seeds], [self.right[seed] for seed in self.seeds]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper as a test on records. It holds where every comparison affirms it.

    Attributes:
        id: one word.
        statement: in our words.
        place: where it stands in the paper.
        studies: whose records are read; another that has the rows where none of them is recorded.
        compare: finds the comparisons; none where no study has the rows.
        needs: what must be recorded, where that is more than one of ``studies``.
    """

    id: str
    statement: str
    place: str
    studies: tuple[str, ...]
    compare: Callable[[Evidence, Sequence[str]], list[Comparison]]
    needs: str = ""

    def comparisons(self, evidence: Evidence) -> list[Comparison]:
        """Every comparison there is, those of the same trials once."""
        found: dict[tuple[object, ...], Comparison] = {}
        for comparison in self.compare(evidence, self.studies):
            key = (comparison.label, comparison.question, *comparison.identity)
            first = found.get(key)
            found[key] = replace(first, study=f"{first.study}, {comparison.study}") if first else comparison
        return list(found.values())


def rows_compared(evidence: Evidence, study: str, question: Question, left: str, right: str) -> Comparison:
    """Delta_m of two rows of one study, against its one baseline.

    A rival (``right``) that lost every seed is void for :attr:`Question.MORE`. Elsewhere lost seeds are a flaw, but for
    those of a rival to be beaten: what is left of it flatters it.
    """
    gains = evidence.gains(study)
    lost = {row: gains.lost.get(row, ()) for row in (left, right)}
    values = {row: gains.delta_m(row) for row in (left, right)}
    blamed = [left] if question is Question.MORE else [left, right]
    flaw = "; ".join(lost_seeds(row, lost[row]) for row in blamed if lost[row])
    void = ""
    if question is Question.MORE and lost[right] and not values[right] and values[left]:
        void = f"{lost_seeds(right, lost[right])}: nothing to compare with"
    return Comparison(
        label=f"{left} {'/' if question is Question.STEADIER else '-'} {right}",
        study=study,
        question=question,
        left=values[left],
        right=values[right],
        unit="ratio of standard deviations" if question is Question.STEADIER else POINTS,
        flaw=flaw,
        void=void,
        identity=(evidence.keys(study, left), evidence.keys(study, right)) if evidence.keys(study, left) else (study,),
    )


def lost_seeds(row: str, seeds: Sequence[int]) -> str:
    """``mgda has no finite result at seed 0, 1``."""
    return f"{row} has no finite result at seed {', '.join(map(str, seeds))}"
