"""Which recorded searches are held against which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.search.records import WHOLE, SearchRecords, SearchRun, recorded_searches
from analysis.store import DATABASE, Store
from trainables.errors import ConfigError, StoreError, unknown

_SHORTEST_RUN = 6


def ways_to_search(records: SearchRecords, home: Path, against: Iterable[str]) -> dict[str, list[SearchRecords]]:
    """Label of each way to search to its repeats: that of ``records`` first, then the others in the order given.

    Searches with the same id, profile, objective, sampler and pruner, and another seed, are repeats of one way; those
    of the way of ``records`` are found by themselves.

    Args:
        records: the search that is asked about.
        home: the folder with its records.
        against: each the id of another recorded search, a sampler (``random``), a sampler and a pruner
            (``random+none``), the beginning of a parent run's id, or another home's folder, of which every search of
            the same id is taken.

    Raises:
        ConfigError: one that is none of these, or nothing beside the search itself is named.
        StoreError: records cannot be read, or the searches have no contender in common.
    """
    store = Store(home)
    here = [entry for entry in recorded_searches(store) if entry.plan.profile == records.plan.profile]
    mine = [entry for entry in here if entry.plan.search == records.plan.search]
    own = records.plan.way
    found = [(own, records)]
    found += [(own, SearchRecords.of(store, entry)) for entry in mine if _repeat(entry, records)]
    for name in against:
        other = store
        if (Path(name) / DATABASE).is_file():
            other = Store(Path(name), tracking="")
            every = recorded_searches(other)
            chosen = [entry for entry in every if _comparable(entry, records)]
        else:
            chosen = _named(name, mine, here)
        if not chosen:
            raise ConfigError(f"--against {name}: {_what_there_is(name, mine, here)}")
        found += [(_label(entry, records), SearchRecords.of(other, entry)) for entry in chosen]
    ways: dict[str, list[SearchRecords]] = {}
    for label, each in found:
        if each is not records and not each.trials["status"].isin(WHOLE).any():
            continue  # begun, or stopped before there was anything to compare
        repeats = ways.setdefault(label, [])
        # A search that went on with a larger budget has several parent runs and the same trials: the last one counts.
        earlier = next((place for place, old in enumerate(repeats) if _same_trials(old, each)), None)
        if earlier is None:
            repeats.append(each)
        elif each.run.started > repeats[earlier].run.started and repeats[earlier].run.run_id != records.run.run_id:
            repeats[earlier] = each
    if len(ways) < 2:
        raise ConfigError(f"--against: names nothing but {own} itself ({_what_there_is('', mine, here)})")
    contenders = [{entry.id for entry in each.plan.contenders} for repeats in ways.values() for each in repeats]
    if not set.intersection(*contenders):
        raise StoreError("--against: the searches have no contender in common")
    return ways


def _named(name: str, mine: Sequence[SearchRun], here: Sequence[SearchRun]) -> list[SearchRun]:
    for entries in (
        [entry for entry in here if entry.plan.search == name],
        [entry for entry in mine if name in (entry.plan.way, entry.plan.sampler.name)],
        [entry for entry in here if len(name) >= _SHORTEST_RUN and entry.run_id.startswith(name)],
    ):
        if entries:
            return entries
    return []


def _what_there_is(name: str, mine: Sequence[SearchRun], here: Sequence[SearchRun]) -> str:
    ids = dict.fromkeys(entry.plan.search for entry in here)
    options = [*dict.fromkeys(entry.plan.way for entry in mine), *ids]
    return (
        unknown("recorded search, sampler, run or home", name, options) if name else f"recorded: {', '.join(options)}"
    )


def _comparable(entry: SearchRun, records: SearchRecords) -> bool:
    same_search = (entry.plan.search, entry.plan.profile) == (records.plan.search, records.plan.profile)
    return same_search and entry.plan.objective == records.plan.objective


def _repeat(entry: SearchRun, records: SearchRecords) -> bool:
    same_way = entry.plan.way == records.plan.way and entry.run_id != records.run.run_id
    return same_way and _comparable(entry, records)


def _label(entry: SearchRun, records: SearchRecords) -> str:
    return entry.plan.way if _comparable(entry, records) else f"{entry.plan.search}: {entry.plan.way}"


def _same_trials(one: SearchRecords, other: SearchRecords) -> bool:
    return one.home == other.home and bool(set(one.plan.studies) & set(other.plan.studies))
