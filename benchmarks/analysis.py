"""How long tables, figures, claims and audit take on many runs: ``python -m benchmarks.analysis --help``."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.bulk import BulkStore

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.store import Store

LIMIT = 5.0
"""Seconds that each is to stay under, loading aside."""


@click.command(context_settings={"show_default": True})
@click.option("--runs", default=10_000, help="finished trials in the records; every study names all of them")
@click.option("--points", default=5, help="points of every training curve")
@click.option("--only", default="", help="what to measure, by the beginning of its name, with commas")
@click.option("--raw", default=None, type=click.Path(path_type=Path), help="write every measured time to this file")
def main(runs: int, points: int, only: str, raw: Path | None) -> None:
    """Invent records of many runs and time everything that reads them, after loading.

    Seconds of this process (its own and the machine's for it) and wall seconds; the limit is on the former, which other
    work on the machine does not stretch. Reading the curves that a figure draws counts as drawing it.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    times: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        click.echo(f"inventing {runs:,} runs ...", err=True)
        studies = BulkStore(home, runs, points).fill()
        click.echo(f"{'what':28}{'CPU s':>9}{'wall s':>9}")
        for name, work in _everything(home, studies, [part for part in only.split(",") if part]):
            started, cpu = time.perf_counter(), time.process_time()
            work()
            times[name] = time.process_time() - cpu, time.perf_counter() - started
            slow = " over the limit" if times[name][0] > LIMIT and not name.startswith("load") else ""
            click.echo(f"{name:28}{times[name][0]:9.2f}{times[name][1]:9.2f}{slow}")
    if raw is not None:
        raw.write_text(json.dumps({"runs": runs, "points": points, "seconds": times}, indent=2), encoding="utf-8")


def _everything(home: Path, studies: list[str], only: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and work, one after the other: what is loaded by one is used by the next."""
    from analysis.audit import audit
    from analysis.claims import CLAIMS, Criteria, Evidence, judge
    from analysis.figures import FIGURES, FigureKind, canvas
    from analysis.figures.shelf import Shelf
    from analysis.store import Store
    from analysis.tables import rows_table
    from study import schema

    store = Store(home)
    yield "load runs", lambda: store.runs(list(store.experiments().values()), schema.TRIAL_RUN)
    loaded: dict[str, Records] = {}
    for study in studies:
        yield f"load {study}", partial(_load, loaded, store, study)
    evidence = Evidence(loaded[studies[0]].profile, loaded)
    work: dict[str, Callable[[], Any]] = {
        "audit": audit,
        "claims": lambda: judge(evidence, CLAIMS, Criteria()),
        "table of any study": lambda: rows_table(loaded[studies[0]]),
    }
    for study, records in loaded.items():
        work[f"table {study}"] = partial(_rendered, records)
    for name, kind in FIGURES.items():
        wanted = kind.studies or ("sensitivity_tune_selective",) if name == "sensitivity" else kind.studies or ("d5",)
        shelf = Shelf(name, home, None, wanted)
        shelf.hold({study: loaded[study] for study in wanted if study in loaded})

        def draw(shelf: Shelf = shelf, kind: FigureKind = kind, name: str = name) -> None:
            with canvas.style():
                canvas.save(kind.draw(shelf), home / "figures", name, name)

        work[f"figure {name}"] = draw
    yield from ((name, one) for name, one in work.items() if not only or name.startswith(tuple(only)))


def _load(loaded: dict[str, Records], store: Store, study: str) -> None:
    from analysis.records import Records

    loaded[study] = Records.read(store, study)


def _rendered(records: Records) -> str:
    from analysis.render import render
    from analysis.tables import make_table

    return render(make_table(records))


if __name__ == "__main__":
    main()
