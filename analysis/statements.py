"""What the paper's text says of its own tables, from ``published/statements.csv``, held against the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from analysis.findings import CARE, Finding
from analysis.printed import PrintedRow, higher_is_better, printed_rows, read_text
from analysis.reference import SINGLE_TASK
from analysis.rounding import Interval, Printed, decimals
from trainables.errors import ConfigError, unknown


@dataclass(frozen=True)
class Statement:
    """One line of ``statements.csv``.

    Attributes:
        id: unique.
        place: where it stands in the paper.
        kind: one of :data:`CHECKS`, or ``says``: two that say different things of one ``row`` contradict each other.
        table: it speaks of; several, separated by blanks, for ``gain_grows``.
        dataset: of the table.
        row: it speaks of, as the paper names it.
        other: what the row is compared with.
        value: what is stated, as text.
        words: the statement in one line.
    """

    id: str
    place: str
    kind: str
    table: str
    dataset: str
    row: str
    other: str
    value: str
    words: str


def statements() -> tuple[Statement, ...]:
    """Every statement, in the file's order."""
    lines = read_text("statements.csv").itertuples(index=False, name=None)
    return tuple(Statement(*line) for line in lines)


def check_statements(given: tuple[Statement, ...] | None = None) -> tuple[list[Finding], int]:
    """What the tables contradict, and how many statements were checked.

    Raises:
        ConfigError: a statement is of an unknown kind, or speaks of a row that is not there.
    """
    checked = statements() if given is None else given
    found = []
    for statement in checked:
        if statement.kind == "says":
            continue
        if statement.kind not in CHECKS:
            raise ConfigError(f"statement '{statement.id}': {unknown('kind', statement.kind, [*CHECKS, 'says'])}")
        finding = CHECKS[statement.kind](statement)
        found += [finding] if finding else []
    return [*found, *_contradicting(checked)], len(checked)


def _contradicting(given: tuple[Statement, ...]) -> list[Finding]:
    by_subject: dict[str, list[Statement]] = {}
    for statement in given:
        if statement.kind == "says":
            by_subject.setdefault(statement.row, []).append(statement)
    return [
        Finding("text", said[0].dataset, "", "text", "; ".join(f"{one.place}: {one.words}" for one in said))
        for said in by_subject.values()
        if len({one.value for one in said}) > 1
    ]


def _row(statement: Statement, table: str, name: str) -> PrintedRow:
    rows = {row.row: row for row in printed_rows() if (row.table, row.dataset) == (table, statement.dataset)}
    if name not in rows:
        raise ConfigError(f"statement '{statement.id}': {unknown(f'row of Table {table}', name, rows)}")
    return rows[name]


def _rivals(statement: Statement) -> list[PrintedRow]:
    """The other rows of the statement's table, single-task training aside: it is no multi-task method."""
    return [
        row
        for row in printed_rows()
        if (row.table, row.dataset) == (statement.table, statement.dataset)
        and row.row not in (statement.row, SINGLE_TASK)
    ]


def _contradicted(statement: Statement, what: str) -> Finding:
    note = f"{statement.place}: {statement.words}; {what}"
    return Finding(statement.table, statement.dataset, statement.row, "text", note)


def _gain_of(statement: Statement, table: str) -> tuple[float, Interval]:
    row, other = (_row(statement, table, name).delta_m for name in (statement.row, statement.other))
    if row is None or other is None:
        raise ConfigError(f"statement '{statement.id}': Table {table} prints a dash")
    value = row.value - other.value
    return value, Interval(value, value).widened(row.half_unit + other.half_unit)


def _gain(statement: Statement) -> Finding | None:
    value, range_ = _gain_of(statement, statement.table)
    stated = Printed(float(statement.value), decimals(statement.value))
    if range_.overlaps(stated.interval):
        return None
    finding = _contradicted(statement, f"the table gives {value:.2f}")
    return replace(finding, printed=stated.value, recomputed=value, range=range_)


def _gain_grows(statement: Statement) -> Finding | None:
    gains = [_gain_of(statement, table) for table in statement.table.split()]
    if all(later.high >= earlier.low for (_, earlier), (_, later) in pairwise(gains)):
        return None
    numbers = ", ".join(f"{value:.2f}" for value, _ in gains)
    what = f"from the largest backbone to the smallest (Tables {', '.join(statement.table.split())}) it is {numbers}"
    return Finding("text", statement.dataset, "", "text", f"{statement.place}: {statement.words}; {what}", CARE)


def _best(statement: Statement) -> Finding | None:
    own = _row(statement, statement.table, statement.row).delta_m
    better = [row for row in _rivals(statement) if own and row.delta_m and row.delta_m.interval.low > own.interval.high]
    return _contradicted(statement, f"{', '.join(row.row for row in better)} is better") if better else None


def _steadiest(statement: Statement) -> Finding | None:
    own = _row(statement, statement.table, statement.row).spread
    less = [row for row in _rivals(statement) if own and row.spread and row.spread.interval.high < own.interval.low]
    return _contradicted(statement, f"{', '.join(row.row for row in less)} spreads less") if less else None


def _every_task(statement: Statement) -> Finding | None:
    own, other = (_row(statement, statement.table, name).numbers for name in (statement.row, statement.other))
    if own is None or other is None:
        raise ConfigError(f"statement '{statement.id}': Table {statement.table} prints a dash")
    worse = []
    for task in own:
        pair = (own[task].interval, other[task].interval)
        better, less = pair if higher_is_better()[statement.dataset, task] else pair[::-1]
        worse += [task] if better.high < less.low else []
    return _contradicted(statement, f"not {', '.join(worse)}") if worse else None


def _tasks(statement: Statement) -> Finding | None:
    printed = set(_row(statement, statement.table, SINGLE_TASK).tasks)
    odd = sorted(printed ^ set(statement.value.split()))
    if not odd:
        return None
    what = f"{len(statement.value.split())} are named, the tables have {len(printed)}: {', '.join(odd)} is left out"
    return Finding("text", statement.dataset, "", "text", f"{statement.place}: {statement.words}; {what}")


CHECKS: Mapping[str, Callable[[Statement], Finding | None]] = MappingProxyType(
    {
        "gain": _gain,
        "gain_grows": _gain_grows,
        "best": _best,
        "steadiest": _steadiest,
        "every_task": _every_task,
        "tasks": _tasks,
    }
)
"""Kind of statement to its check, which gives a finding where the tables say otherwise."""
