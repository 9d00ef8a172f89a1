"""What went wrong, how to make the numbers again, and every trial with its run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from analysis.escape import DASH
from analysis.records import MISSING, Records
from analysis.report.markup import Cell, Head, RunLinks, details, safe, section, table, words
from analysis.sheet import short_number
from study import schema

_PLACES = (
    ("data", schema.DATA),
    ("data fingerprint", schema.DATA_FINGERPRINT),
    ("backbone", schema.BACKBONE),
    ("device", schema.DEVICE),
    ("machine", schema.HOST),
    ("executor", schema.EXECUTOR),
    ("commit", schema.GIT_COMMIT),
    ("uncommitted changes", schema.GIT_DIRTY),
    ("result version", schema.RESULT_VERSION),
)

_TRIAL_HEADS = (
    Head("row", words=True),
    Head("seed"),
    Head("tasks", words=True),
    Head("status", words=True),
    Head("seconds"),
    Head("attempt"),
    Head("trial key", words=True),
    Head("MLflow run", words=True),
)


def failures_section(records: Records, links: RunLinks) -> str:
    """Trials that did not end as they should, and those that needed several attempts."""
    trials = records.trials
    # A trial diverges on its own account; a missing one was not begun, which the header tells.
    lost = trials[~trials["status"].isin([schema.COMPLETE, MISSING])]
    missing = int((trials["status"] == MISSING).sum())
    again = int(
        sum(str(attempt) not in ("", "1") for attempt in trials.loc[trials["status"] == schema.COMPLETE, "attempt"])
    )
    said = []
    if lost.empty:
        said.append("No trial failed, diverged or was interrupted.")
    if missing:
        said.append(f"{missing} trial{' was' if missing == 1 else 's were'} not begun yet.")
    if again:
        said.append(f"{again} complete trial{' needed' if again == 1 else 's needed'} more than one attempt.")
    rows: list[tuple[str, Sequence[Cell]]] = [
        (
            str(status),
            [
                words(label),
                Cell(str(seed), float(seed)),
                words(_tasks(tasks)),
                words(status),
                words(reason or "no reason recorded"),
                Cell(links.link([(experiment, run)], safe(run[:12] or DASH))),
            ],
        )
        for label, seed, tasks, status, reason, experiment, run in lost[
            ["label", "seed", "tasks", "status", "status_reason", "experiment_id", "run_id"]
        ].itertuples(index=False, name=None)
    ]
    heads = [
        Head("row", words=True),
        Head("seed"),
        *(Head(text, words=True) for text in ("tasks", "status", "reason", "MLflow run")),
    ]
    return section(
        "failures",
        "Failures and divergences",
        [
            f"<p>{' '.join(said)}</p>" if said else "",
            table("failure-table", "Trials without a result", heads, rows) if rows else "",
        ],
    )


def reproduce_section(records: Records, links: RunLinks) -> str:
    """The command, what it ran on, and what was installed."""
    plan = records.plan
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    commits = distinct(complete[schema.GIT_COMMIT])
    command = f"mtl-study run {plan.study} --profile {plan.profile} --seeds {len(plan.seeds)}"
    lines = [
        *([f"git checkout {commits[0]}"] if len(commits) == 1 else []),
        command,
        f"mtl-study report {plan.study} --profile {plan.profile}",
    ]
    facts = [("profile", plan.profile), ("seeds", ", ".join(map(str, plan.seeds)))]
    facts += [(name, ", ".join(distinct(complete[tag])) or "unknown") for name, tag in _PLACES]
    facts.append(("versions", _versions(complete[schema.VERSIONS])))
    items = "".join(f"<dt>{safe(name)}</dt><dd>{safe(text)}</dd>" for name, text in facts)
    address = (
        '<div class="tools"><label>Links to runs lead to the MLflow UI (<code>mtl-study ui</code>) at '
        f'<input type="url" id="mlflow" value="{safe(links.base)}" data-base="{safe(links.base)}" size="28">'
        "</label></div>"
    )
    return section(
        "reproduce",
        "Make the numbers again",
        [
            f'<pre tabindex="0">{"".join(safe(line) + chr(10) for line in lines)}</pre>',
            "<p>What is finished is not trained again; what was interrupted is resumed.</p>",
            f'<dl class="facts">{items}</dl>',
            address,
            _trials(records, links),
        ],
    )


def _trials(records: Records, links: RunLinks) -> str:
    rows: list[tuple[str, Sequence[Cell]]] = [
        (
            "",
            [
                words(label),
                Cell(str(seed), float(seed)),
                words(_tasks(tasks)),
                words(status),
                Cell(short_number(seconds), float(seconds)),
                words(attempt or DASH),
                Cell(f"<code>{safe(key[:12])}</code>"),
                Cell(links.link([(experiment, run)], f"<code>{safe(run or DASH)}</code>")),
            ],
        )
        for label, seed, tasks, status, seconds, attempt, key, experiment, run in records.trials[
            ["label", "seed", "tasks", "status", "seconds", "attempt", "trial_key", "experiment_id", "run_id"]
        ].itertuples(index=False, name=None)
    ]
    body = table("trial-table", "Every trial and its run", _TRIAL_HEADS, rows, searched=True)
    return details(f"{len(rows)} trials and their runs", body)


def distinct(values: Iterable[str]) -> list[str]:
    """Those that say something, in order of appearance."""
    return list(dict.fromkeys(value for value in values if value))


def _tasks(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) == 1 else f"all {len(names)}"


def _versions(tags: Iterable[str]) -> str:
    found: dict[str, list[str]] = {}
    for tag in distinct(tags):
        try:
            packages = json.loads(tag)
        except json.JSONDecodeError:
            continue
        for name, version in packages.items() if isinstance(packages, dict) else ():
            if str(version) not in found.setdefault(str(name), []):
                found[str(name)].append(str(version))
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items()) or "unknown"
