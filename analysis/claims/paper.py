"""The paper's statements (Jeong & Yoon, ICLR 2025, arXiv:2502.11986v2), each with the comparisons that test it.

A new claim is one function and one entry of :data:`CLAIMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.claims.claim import Claim, Comparison, lost_seeds, rows_compared
from analysis.claims.evidence import Evidence
from analysis.claims.inference import Question
from study import schema

SELECTIVE = "selective"
JOINT = ("gd", "joint")
"""What studies call all tasks in one step."""

BASELINES = (
    "gd",
    "graddrop",
    "mgda",
    "uw",
    "dtp",
    "dwa",
    "pcgrad",
    "cagrad",
    "imtl",
    "aligned_mtl",
    "nash_mtl",
    "famo",
)
OPTIMIZER_STUDIES = ("table2", "d1", "d2", "d3", "table3_nyud", "table3_pascal")
GROUPING_STUDIES = ("table4", "table4_d5")
BETAS = ("beta_1e_05", "beta_0_0001", "beta_0_001", "beta_0_01", "beta_0_1")
PAPER_BETA = "beta_0_001"
RANDOM = tuple(f"random_{groups}" for groups in range(2, 7))
DEPTHS = ("depth_euclidean", "depth_zbuffer")
BACKBONES = ("vit_pico", "vit_tiny", "vit_small", "vit_base", "vit_large")
"""From small to large."""

Compare = Callable[[Evidence, Sequence[str]], list[Comparison]]


def _rows(question: Question, *pairs: tuple[str, str]) -> Compare:
    """The same pairs of rows in every study that has all of them."""

    def compare(evidence: Evidence, studies: Sequence[str]) -> list[Comparison]:
        names = {row for pair in pairs for row in pair}
        return [
            rows_compared(evidence, study, question, left, right)
            for study in evidence.studies(studies, names)
            for left, right in pairs
        ]

    return compare


def _joint(evidence: Evidence, studies: Sequence[str], row: str) -> list[tuple[str, str]]:
    """Every study with ``row`` and a joint row, under whichever name; a named study goes before any other."""
    found = {study: name for name in reversed(JOINT) for study in evidence.studies((), (row, name))}
    return [(study, found[study]) for study in [name for name in studies if name in found] or sorted(found)]


def _beats_gd(evidence: Evidence, studies: Sequence[str]) -> list[Comparison]:
    return [
        rows_compared(evidence, study, Question.MORE, SELECTIVE, joint)
        for study, joint in _joint(evidence, studies, SELECTIVE)
    ]


def _every_task(evidence: Evidence, studies: Sequence[str]) -> list[Comparison]:
    found = []
    for study, joint in _joint(evidence, studies, SELECTIVE):
        gains = evidence.gains(study)
        lost = gains.lost.get(SELECTIVE, ())
        found += [
            Comparison(
                label=f"{task.name}: {SELECTIVE} - {joint}",
                study=study,
                question=Question.MORE,
                left=gains.task(SELECTIVE, task.name),
                right=gains.task(joint, task.name),
                unit="% of the single-task metric",
                flaw=lost_seeds(SELECTIVE, lost) if lost else "",
                identity=(evidence.keys(study, SELECTIVE), evidence.keys(study, joint)),
            )
            for task in evidence.records[study].plan.tasks
        ]
    return found


def _groups_by_backbone(sign: int) -> Compare:
    """Per seed, the slope of the mean number of groups over the size of the backbone, by rank; ``sign`` turns it."""

    def compare(evidence: Evidence, studies: Sequence[str]) -> list[Comparison]:
        by_task_set: dict[str, dict[str, tuple[str, dict[int, float]]]] = {}
        for study in evidence.studies(studies, [SELECTIVE]):
            complete = evidence.complete(study, SELECTIVE)
            backbones = set(complete[schema.BACKBONE])
            counted = complete[["seed", schema.MEAN_GROUPS]].dropna()
            groups = {int(seed): float(mean) for seed, mean in counted.itertuples(index=False, name=None)}
            if len(backbones) == 1 and groups and (backbone := backbones.pop()) in BACKBONES:
                by_task_set.setdefault(evidence.records[study].plan.task_set, {}).setdefault(backbone, (study, groups))
        return [_slope(found, sign) for found in by_task_set.values() if len(found) > 1]

    return compare


def _slope(found: dict[str, tuple[str, dict[int, float]]], sign: int) -> Comparison:
    ordered = sorted(found, key=BACKBONES.index)
    sizes = np.array([BACKBONES.index(backbone) for backbone in ordered], dtype=np.float64)
    weights = (sizes - sizes.mean()) / ((sizes - sizes.mean()) ** 2).sum()
    seeds = set.intersection(*(set(found[backbone][1]) for backbone in ordered))
    slopes = {
        seed: sign * float(weights @ np.array([found[backbone][1][seed] for backbone in ordered])) for seed in seeds
    }
    return Comparison(
        label=f"{'growth' if sign > 0 else 'decline'} of M from {ordered[0]} to {ordered[-1]}",
        study=", ".join(found[backbone][0] for backbone in ordered),
        question=Question.MORE,
        left=slopes,
        right=dict.fromkeys(slopes, 0.0),
        unit="groups per size of backbone",
        identity=tuple(ordered),
    )


def _depths_together(evidence: Evidence, studies: Sequence[str]) -> list[Comparison]:
    found = []
    for study in evidence.studies(studies, [SELECTIVE]):
        names = [task.name for task in evidence.records[study].plan.tasks]
        if not set(DEPTHS) < set(names):
            continue
        pairs: dict[int, tuple[float, float, float]] = {}
        for seed, history in evidence.histories(study, SELECTIVE).items():
            if sorted(history["tasks"].tolist()) == sorted(names):
                pairs[seed] = _depth_shares(_shares(history), history["tasks"].tolist())
        depths = {seed: shares[0] for seed, shares in pairs.items()}
        found += [
            Comparison(
                label=f"{' with '.join(DEPTHS)} - {rest}",
                study=study,
                question=Question.MORE,
                left=depths,
                right={seed: shares[place] for seed, shares in pairs.items()},
                unit="share of iterations in one group",
                identity=(evidence.keys(study, SELECTIVE),),
            )
            for place, rest in ((1, "a depth with another task"), (2, "any other two tasks"))
        ]
    return found


def _depth_shares(shares: NDArray[np.float64], tasks: list[str]) -> tuple[float, float, float]:
    """Of the two depths, of a depth with another task, of any two but the two depths; the last two as means."""
    one, other = (tasks.index(name) for name in DEPTHS)
    rest = [place for place in range(len(tasks)) if place not in (one, other)]
    above = np.triu(np.ones(shares.shape, dtype=bool), 1)
    above[min(one, other), max(one, other)] = False
    return float(shares[one, other]), float(shares[np.ix_([one, other], rest)].mean()), float(shares[above].mean())


def _windows(history: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Iterations of each window, (T,), adding up to 1: the last one may be shorter."""
    lengths = np.diff(history["iteration"].astype(np.float64), prepend=0.0)
    return np.asarray(lengths / lengths.sum())


def _shares(history: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """(K, K): the share of all iterations in which two tasks shared a group.

    Records that did not count it have the groups at the end of each window, which stand for the window.
    """
    group = history["group"]
    together = history.get("together", group[:, :, None] == group[:, None, :])
    return np.asarray(np.tensordot(_windows(history), together.astype(np.float64), axes=1))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "beats_gd",
        "selective task group updates do better than joint gradient descent",
        "Section 5, Tables 2 to 4, D.1 to D.3",
        (*OPTIMIZER_STUDIES, *GROUPING_STUDIES),
        _beats_gd,
    ),
    Claim(
        "beats_every_baseline",
        "selective task group updates do better than each of the twelve methods they are compared with",
        "Section 5 and Appendix D, Tables 2, 3, D.1 to D.3",
        OPTIMIZER_STUDIES,
        _rows(Question.MORE, *((SELECTIVE, baseline) for baseline in BASELINES)),
    ),
    Claim(
        "every_task",
        "every single task does better than with joint gradient descent",
        "Section 5, Tables 2 and 3",
        (*OPTIMIZER_STUDIES, *GROUPING_STUDIES),
        _every_task,
    ),
    Claim(
        "beta_matters_little",
        "the decay rate of the affinity hardly matters",
        "Section 5 and Appendix D, Table D.4",
        ("d4",),
        _rows(Question.SAME, *((beta, PAPER_BETA) for beta in BETAS if beta != PAPER_BETA)),
    ),
    Claim(
        "every_beta_beats_gd",
        "at every decay rate the method does better than joint gradient descent",
        "Appendix D, Table D.4",
        ("d4",),
        _rows(Question.MORE, *((beta, "gd") for beta in BETAS)),
    ),
    Claim(
        "order_matters_little",
        "the order in which groups are stepped hardly matters",
        "Section 5, Table 4",
        GROUPING_STUDIES,
        _rows(Question.SAME, ("selective_forward", SELECTIVE), ("selective_backward", SELECTIVE)),
    ),
    Claim(
        "beats_separate",
        "selective groups do better than a group for each task",
        "Section 5, Table 4",
        GROUPING_STUDIES,
        _rows(Question.MORE, (SELECTIVE, "separate")),
    ),
    Claim(
        "steadier_than_separate",
        "a group for each task spreads more over seeds than selective groups",
        "Section 5, Table 4",
        GROUPING_STUDIES,
        _rows(Question.STEADIER, ("separate", SELECTIVE)),
    ),
    Claim(
        "homogeneous_groups",
        "groups of similar tasks do better than heterogeneous and than random ones",
        "Appendix D, Table D.5",
        ("d5", "table4_d5"),
        _rows(Question.MORE, (SELECTIVE, "heterogeneous"), *((SELECTIVE, random) for random in RANDOM)),
    ),
    Claim(
        "every_batch_size",
        "the gain over joint gradient descent holds at batch 4, 8 and 16",
        "Appendix D, Table D.6",
        ("d6",),
        _rows(Question.MORE, *((f"selective_{batch}", f"gd_{batch}") for batch in (4, 8, 16))),
    ),
    Claim(
        "groups_grow_with_backbone",
        "the number of groups M grows with the backbone (the appendix says the opposite)",
        "Section 5, Figure 3(c)",
        ("d3", "d2", "d1", "table2"),
        _groups_by_backbone(1),
        needs="selective rows of one task set at two backbones",
    ),
    Claim(
        "groups_shrink_with_backbone",
        "the number of groups M grows as the backbone shrinks (Section 5 says the opposite)",
        "Appendix D, Figure 3(c)",
        ("d3", "d2", "d1", "table2"),
        _groups_by_backbone(-1),
        needs="selective rows of one task set at two backbones",
    ),
    Claim(
        "similar_tasks_grouped",
        "similar tasks, the two depths, share a group more often than others",
        "Section 5, Figure 3",
        (*OPTIMIZER_STUDIES, *GROUPING_STUDIES),
        _depths_together,
    ),
)
