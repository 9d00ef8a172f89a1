"""Commands that look at single things in the records: explain one, compare two."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from study.cli.options import example, home_option, json_option, print_json, screen
from study.home import Home
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from analysis.explain import Explanation

_NAMES = (
    "A name is a study (table4_d5, table4_d5@cpu), one of its rows (table4_d5/gd), a label as the MLflow UI shows it, "
    "or the beginning of a run id, trial key or cell key."
)
_MOST_ATTEMPTS = 20


@click.command(
    epilog=example("mtl-study explain table4_d5/gd", "mtl-study explain 3f9c12ab", "mtl-study explain d4 --json"),
    help="Say everything about a run, trial, CELL, row or study: what config, which tables use it, how it went, what "
    f"it cost, why it failed, how to repeat it.\n\n{_NAMES}",
)
@click.argument("cell")
@click.option("--profile", help="Look at plans of this profile alone.")
@home_option
@json_option
def explain(cell: str, profile: str | None, home: Path | None, as_json: bool) -> None:
    """Say everything about a run, trial, cell, row or study."""
    from analysis.explain import explain as find
    from analysis.store import Store
    from analysis.subjects import Directory

    directory = Directory(Store(Home.locate(home).path), profile)
    option = f" --home {shlex.quote(str(home))}" if home else ""
    found = find(directory, cell, shorten, base_of, home_option=option)
    if as_json:
        print_json(found.to_dict())
    else:
        show(found, screen())


@click.command(
    epilog=example("mtl-study compare table4_d5/gd table4_d5/random", "mtl-study compare d4@cpu d4@gpu --json"),
    help="Compare two runs, cells, rows or studies: what differs in their configs, and in their numbers with paired "
    f"intervals over seeds.\n\n{_NAMES}",
)
@click.argument("a")
@click.argument("b")
@click.option("--profile", help="Look at plans of this profile alone.")
@home_option
@json_option
def compare(a: str, b: str, profile: str | None, home: Path | None, as_json: bool) -> None:
    """Compare two runs, cells, rows or studies."""
    from analysis.compare import compare as hold
    from analysis.store import Store
    from analysis.subjects import Directory

    found = hold(Directory(Store(Home.locate(home).path), profile), a, b)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(found.to_text())


def shorten(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A resolved trial config without what is default; raises :class:`ConfigError` where this version refuses it."""
    from trainables.config import load_trial

    return load_trial(config, "recorded config").canonical()


def base_of(study: str, profile: str) -> Mapping[str, Any] | None:
    """The resolved config that the rows of a study change; ``None`` for a study that does not come with the
    package, or whose base alone is no config."""
    from study.spec import load_spec, spec_names
    from study.spec import profile as profile_of
    from trainables.config import load_trial
    from trainables.presets import merge

    if study not in spec_names():
        return None
    spec = load_spec(study)
    own = spec.profiles.get(profile)
    try:
        fields = merge(merge(profile_of(profile).set, spec.base), own.set if own else {})
        return load_trial(fields, study).to_dict()
    except ConfigError:
        return None


def show(found: Explanation, console: Console) -> None:
    """As text."""

    def say(line: str = "") -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    from study.progress import duration

    states = ", ".join(f"{count} {status}" for status, count in sorted(found.status.items()))
    say(f"{found.kind} {found.name.removeprefix(found.kind + ' ')}: {states}")
    say(_keys("trial key", found.trial_keys))
    say(_keys("cell key", found.cell_keys))
    if found.config:
        say("\nConfig, where it is not the default:")
        for path, value in found.config.items():
            say(f"  {path} = {value}")
    for study, fields in found.changes.items():
        say(f"\nChanges to the base of {study}:" if fields else f"\nThe base of {study}, unchanged")
        for path, (base, here) in fields.items():
            say(f"  {path} = {here} (base: {base})")
    if found.kind != "study":
        say("\nUsed by:" if found.uses else "\nUsed by no recorded plan")
        for use in found.uses:
            printed = f"; printed in {', '.join(use.published)}" if use.published else ""
            tasks = f", {use.tasks[0]}" if len(use.tasks) == 1 else ""
            say(f"  {use.study} at profile {use.profile}: {use.label}{tasks}, seed {use.seed}{printed}")
    costs = found.costs
    say(
        f"\nCost: {duration(costs['seconds'])}, {costs['trunk_passes']:,.0f} trunk passes, "
        f"{costs['iterations']:,.0f} iterations"
        + (f"; {duration(found.wasted)} more in runs that do not count" if found.wasted else "")
    )
    _show_attempts(found, say)
    if found.repeat:
        say("\nTo repeat it:")
        for command in found.repeat:
            say(f"  {command}")


def _keys(what: str, keys: tuple[str, ...]) -> str:
    if len(keys) == 1:
        return f"{what}: {keys[0]}"
    shown = ", ".join(key[:12] for key in keys[:4])
    return f"{len(keys)} {what}s: {shown}{', ...' if len(keys) > 4 else ''}"


def _show_attempts(found: Explanation, say: Any) -> None:
    from study.progress import duration

    say("\nRuns:" if found.attempts else "\nNo run was begun")
    # Those that went wrong first: they are what one asks about where there are many.
    ordered = sorted(found.attempts, key=lambda attempt: attempt.status == "complete")
    for attempt in ordered[:_MOST_ATTEMPTS]:
        parts = [attempt.status + ("" if attempt.counts or attempt.status != "complete" else ", not the one counted")]
        if "seconds" in attempt.costs:
            parts.append(duration(attempt.costs["seconds"]))
        parts += [each for each in (attempt.where, f"commit {attempt.commit}" if attempt.commit else "") if each]
        say(f"  {attempt.run_id} (seed {attempt.seed}, by {attempt.study}): {', '.join(parts)}")
        if attempt.reason:
            say(f"    why: {attempt.reason}")
        if attempt.error:
            say(f"    {attempt.error}")
        if attempt.traceback:
            say(f"    traceback: {attempt.traceback}")
    if len(found.attempts) > _MOST_ATTEMPTS:
        say(f"  and {len(found.attempts) - _MOST_ATTEMPTS} more (--json has all)")
