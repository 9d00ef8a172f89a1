"""Commands that carry records from home to home, and clean a home up."""

from __future__ import annotations

from pathlib import Path

import click

from study.cli.options import FAILURES, example, home_option, json_option, print_json
from study.home import Home

ARCHIVE = "mtl-study-records.zip"
_MOST_CONFLICTS = 20


@click.command("export", epilog=example("mtl-study export", "mtl-study export table4_d5 d4 --out ours.zip"))
@click.argument("studies", nargs=-1, metavar="[STUDY]...")
@click.option("--out", type=click.Path(path_type=Path), default=Path(ARCHIVE), show_default=True, help="The archive.")
@home_option
@json_option
def export_command(studies: tuple[str, ...], out: Path, home: Path | None, as_json: bool) -> None:
    """Write all records, or those of some studies, into one archive for another home.

    It holds every run that ended with its configs, numbers and artifacts, and the checksum of every file; no data sets
    and no checkpoints.
    """
    from dataclasses import asdict

    from study.archive import export
    from study.cli.options import studies as studies_of

    names = tuple(dict.fromkeys(each for name in studies for each in studies_of(name)))
    done = export(Home.locate(home), out, names)
    if as_json:
        print_json(asdict(done))
        return
    left = f"; {done.left_out} runs left out (not ended, or second of their trial)" if done.left_out else ""
    click.echo(f"{done.path}: {done.trials} trial runs of {', '.join(done.studies) or 'no study'}{left}")


@click.command("import", epilog=example("mtl-study import ours.zip", "mtl-study import ours.zip --check --home mine"))
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Check the archive and say what would be taken. Writes nothing.")
@home_option
@json_option
def import_command(archive: Path, check: bool, home: Path | None, as_json: bool) -> int:
    """Merge an archive's records into this home, by trial key.

    What is finished here stays as it is. Exit code 1 where a trial has one result here and another there: nothing of
    that trial is taken.
    """
    from study.merge import import_archive

    done = import_archive(Home.locate(home), archive, dry=check)
    if as_json:
        print_json(done.to_dict())
    else:
        verb = "would be taken" if check else "taken"
        click.echo(
            f"{verb}: {done.trials} finished trials, {done.others} other runs, {done.studies} plans of studies; "
            f"{done.present} were here already"
        )
        for conflict in done.conflicts[:_MOST_CONFLICTS]:
            click.echo(f"conflict: {conflict}", err=True)
        if len(done.conflicts) > _MOST_CONFLICTS:
            click.echo(f"and {len(done.conflicts) - _MOST_CONFLICTS} conflicts more (--json has all)", err=True)
    return FAILURES if done.conflicts else 0


@click.command("gc", epilog=example("mtl-study gc", "mtl-study gc --yes --home mtl-study-home"))
@click.option("--yes", is_flag=True, help="Delete it. Without this, nothing is deleted.")
@home_option
@json_option
def gc_command(yes: bool, home: Path | None, as_json: bool) -> None:
    """Show what the home holds that nothing needs any more, and how much room it takes; with --yes, delete it.

    Records, reports and checkpoints that a trial can go on from are never among it.
    """
    from rich.table import Table

    from study.cli.options import screen
    from study.gc import collect, look

    where = Home.locate(home)
    found = collect(where) if yes else look(where)
    if as_json:
        kinds = [garbage.to_dict() for garbage in found.garbage]
        print_json({"deleted": yes, "bytes": found.bytes, "drivers": found.drivers, "garbage": kinds})
        return
    if found.drivers:
        click.echo(f"{found.drivers} runs seem to be going on: scratch, data and half-written files are left", err=True)
    if not found.garbage:
        click.echo("nothing to delete")
        return
    table = Table("what", "pieces", "size", "why", box=None, padding=(0, 2, 0, 0))
    for garbage in found.garbage:
        table.add_row(garbage.kind, str(len(garbage.paths)), size(garbage.bytes), garbage.why)
    screen().print(table)
    click.echo(f"{size(found.bytes)} freed" if yes else f"{size(found.bytes)} can be freed: mtl-study gc --yes")


def size(count: int) -> str:
    """Bytes as people read them: ``12 B``, ``3.4 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
