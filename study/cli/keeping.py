"""Commands that look after a home: is everything there, is it right, does it come out the same."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from study.cli.options import FAILURES, example, home_option, json_option, print_json, screen
from study.home import Home


@click.command(
    epilog=example("mtl-study doctor", "mtl-study doctor --home mtl-study-home", "mtl-study doctor --home . --repair")
)
@home_option
@click.option("--repair", is_flag=True, help="With --home: mend what can be mended without losing anything.")
@json_option
def doctor(home: Path | None, repair: bool, as_json: bool) -> int:
    """Check versions, devices, data roots and Ray; say what is missing and how to get it.

    With --home, look through that home, too: counts, runs without a driver, missing artifacts, checksums, leases,
    records that wait, unfinished writes. Exit code 1 where something is missing or wrong.
    """
    from study.doctor import examine
    from study.inspection import inspect

    where = Home.locate(home)
    findings: list[tuple[str, str, str, str, str]] = [(f.name, f.level, f.mark, f.found, f.fix) for f in examine(where)]
    if (home is not None or repair) and where.path.is_dir():
        seen = inspect(where, repair=repair)
        findings += [(f"home: {o.name}", o.level, _MARKS.get(o.level, o.level), o.found, o.fix) for o in seen]
    if as_json:
        print_json(
            [dict(zip(("name", "level", "found", "fix"), (n, lv, t, x), strict=True)) for n, lv, _, t, x in findings]
        )
    else:
        grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, _, mark, found, fix in findings:
            grid.add_row(mark, name, found, fix)
        screen().print(grid)
    return FAILURES if any(level in ("missing", "wrong") for _, level, *_ in findings) else 0


_MARKS = {"wrong": "WRONG"}


@click.command(epilog=example("mtl-study verify table4_d5 --sample 3", "mtl-study verify --sample 5 --json"))
@click.argument("study", required=False)
@click.option("--sample", type=click.IntRange(min=1), help="Trials to train again (default: all).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample.")
@home_option
@json_option
def verify(study: str | None, sample: int | None, seed: int, home: Path | None, as_json: bool) -> int:
    """Train finished trials again and compare with their records: bit for bit on a CPU, within a tolerance on a GPU.

    Records nothing. Exit code 1 where one differs or cannot be compared.
    """
    from study.verify import verify as train_again

    verdicts = []
    for verdict in train_again(Home.locate(home), study, sample, seed):
        verdicts.append(verdict)
        if not as_json:
            detail = f": {verdict.detail}" if verdict.detail else f" ({verdict.values} values)"
            click.echo(f"{verdict.result:<9} {verdict.label}, trial {verdict.key[:12]}{detail}")
    wrong = [verdict for verdict in verdicts if not verdict.right]
    if as_json:
        print_json([verdict.to_dict() for verdict in verdicts])
    else:
        click.echo(f"{len(verdicts) - len(wrong)} of {len(verdicts)} trials come out as recorded")
    return FAILURES if wrong else 0
