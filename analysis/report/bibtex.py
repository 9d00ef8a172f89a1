"""The literature behind a study as BibTeX: its methods, measure, data sets and backbone, from ``references.bib``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from analysis.records import Records
from study import schema

_PAPER = "jeong2025selective"
_DELTA_M = "maninis2019astmt"

METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aligned_mtl": ("senushkin2023aligned",),
        "cagrad": ("liu2021cagrad",),
        "dtp": ("guo2018dtp",),
        "dwa": ("liu2019dwa",),
        "famo": ("liu2023famo",),
        "gd": ("caruana1997multitask",),
        "graddrop": ("chen2020graddrop",),
        "imtl": ("liu2021imtl",),
        "imtl_g": ("liu2021imtl",),
        "imtl_l": ("liu2021imtl",),
        "mgda": ("desideri2012mgda", "sener2018mgda"),
        "nash_mtl": ("navon2022nash",),
        "pcgrad": ("yu2020pcgrad",),
        "selective": (_PAPER,),
        "single_task": (),
        "uw": ("kendall2018uw",),
    }
)
"""Name of a method in the records to the keys of its papers; methods of TorchJD have that library's own."""

_TORCHJD = "torchjd:"
_TORCHJD_PAPER = "quinton2024jacobian"

_DATA: Mapping[str, str] = MappingProxyType(
    {"taskonomy": "zamir2018taskonomy", "nyud": "silberman2012nyud", "pascal_context": "mottaghi2014pascal"}
)
"""Task set or data set to the key of its paper."""

_BACKBONES = (("vit", "dosovitskiy2021vit"),)
"""What a backbone's name begins with, and the key of its paper."""


def bibtex(records: Records) -> str:
    """Entries of what the study compares, in the order of its rows, without a newline at the end.

    A comment names the methods no paper is known of, which a third party may have registered. A row no trial of which
    was begun names no method yet.
    """
    plan, trials = records.plan, records.trials
    methods = [str(method) for method in dict.fromkeys(trials[schema.METHOD]) if method]
    wanted = [_PAPER] if any(row.published for row in plan.rows) else []
    unknown = []
    for method in methods:
        if method.startswith(_TORCHJD):
            wanted.append(_TORCHJD_PAPER)
        elif method in METHODS:
            wanted += METHODS[method]
        else:
            unknown.append(method)
    wanted += [_DELTA_M] if plan.baseline is not None else []
    named = [plan.task_set, *(str(data) for data in dict.fromkeys(trials[schema.DATA]))]
    wanted += [_DATA[name] for name in named if name in _DATA]
    wanted += [
        key for start, key in _BACKBONES if any(str(backbone).startswith(start) for backbone in trials[schema.BACKBONE])
    ]
    known = entries()
    head = f"% what study {_line(plan.study)} compares"
    notes = [f"% no paper is known here of method {_line(method)}" for method in unknown]
    return "\n\n".join(["\n".join([head, *notes]), *(known[key] for key in dict.fromkeys(wanted))])


@cache
def entries() -> Mapping[str, str]:
    """Key to entry, of every entry in ``references.bib``."""
    text = files("analysis.report").joinpath("references.bib").read_text(encoding="utf-8")
    found = re.findall(r"^(@\w+\{([^,]+),\n.*?^\})$", text, flags=re.MULTILINE | re.DOTALL)
    return MappingProxyType({key: entry for entry, key in found})


def _line(text: str) -> str:
    """One line of a comment: whatever an id holds, nothing after it is read as an entry."""
    return re.sub(r"[^\w:./ -]", "?", " ".join(text.split()))
