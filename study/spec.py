"""A study as a file: base, rows, axes, seeds, baseline. Short, readable, validated against the trial config before
anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import Field

from study.resources import Resources
from trainables.errors import ConfigError, unknown
from trainables.presets import merge
from trainables.registry import Registry
from trainables.settings import Settings, parse_yaml

MOST_SEEDS = 1000


def yaml_files(kind: str, group: str, folder: str) -> Registry[Traversable]:
    """The YAML files of a folder of this package by name; other packages add theirs as entry points of ``group``."""
    registry: Registry[Traversable] = Registry(
        kind, group, lambda name, entry: "" if hasattr(entry, "read_text") else "the path of a YAML file is wanted"
    )
    for entry in (files("study") / folder).iterdir():
        if entry.name.endswith(".yaml"):
            registry.register(entry.name.removesuffix(".yaml"), entry)
    return registry


STUDIES = yaml_files("study", "mtl_study.studies", "specs")
"""Studies by id."""


class Published(Settings):
    """Where a row's published number stands in ``analysis/published``."""

    table: str = ""
    """Table, as the files key it; the spec's own ``published`` where it is left out."""
    row: str
    """Row, as the files key it."""


class Row(Settings):
    """One row of the table, or one for each combination of its axes."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    """Short name; with axes, their values are appended."""
    label: str
    """As the table shows it; ``{path}`` is replaced by the axis's value."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Trial-config fields that make the row what it is."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Field path to a list of values; the row becomes one for each combination."""
    per_task: bool = False
    """One trial per task, on a network of its own, instead of one trial on all tasks."""
    published: tuple[Published, ...] = ()
    """Where the paper has this row, perhaps in several tables; ``{path}`` is replaced as in the label."""


class SpecProfile(Settings):
    """What the study changes in a profile."""

    seeds: int | None = Field(default=None, ge=1, le=MOST_SEEDS)
    """Number of replicates."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Trial-config fields."""


class StudySpec(Settings):
    """A study: a set of cells, what they are compared with, and where the published numbers are."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    """Its name on the command line and in the records."""
    title: str
    """One line."""
    about: str = ""
    """What is asked, and what to keep in mind when reading the answer."""
    published: str = ""
    """The table of the paper it regenerates, as ``analysis/published`` keys it."""
    extend: str = ""
    """Another study whose base, profiles, baseline and rows are taken over where this one gives none. ``base`` and
    ``profiles`` are laid on the other's, field by field; ``rows`` replace the other's whole."""
    profile: str = "cpu"
    """The profile it runs at unless told otherwise."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Trial-config fields common to all rows."""
    profiles: dict[str, SpecProfile] = Field(default_factory=dict)
    """Additions to single profiles."""
    resources: Resources = Resources()
    """What each trial takes of the machines."""
    baseline: str = ""
    """Id of the row that Delta_m is measured against."""
    rows: tuple[Row, ...] = ()
    """The rows, in the table's order."""


class Profile(Settings):
    """The scale a study runs at."""

    about: str
    """One line."""
    seeds: int = Field(ge=1, le=MOST_SEEDS)
    """Number of replicates."""
    set: dict[str, Any]
    """Trial-config fields, below the study's own."""


@cache
def profiles() -> Mapping[str, Profile]:
    """All profiles by name."""
    source = files("study") / "profiles.yaml"
    raw = parse_yaml(source.read_text(encoding="utf-8"), "study/profiles.yaml")
    return {name: Profile.parse(value, f"profile {name}") for name, value in raw.items()}


def profile(name: str) -> Profile:
    """One profile; raises :class:`ConfigError` naming the nearest one."""
    if name not in profiles():
        raise ConfigError(unknown("profile", name, profiles()))
    return profiles()[name]


class Bundle(Settings):
    """A name for several studies."""

    about: str
    """One line."""
    studies: tuple[str, ...] = Field(min_length=1)
    """Their ids, in the order they are run."""


@cache
def bundles() -> Mapping[str, Bundle]:
    """All bundles by name."""
    source = files("study") / "bundles.yaml"
    raw = parse_yaml(source.read_text(encoding="utf-8"), "study/bundles.yaml")
    return {name: Bundle.parse(value, f"bundle {name}") for name, value in raw.items()}


def studies_of(name: str) -> tuple[str, ...]:
    """The studies that ``name`` stands for: those of a bundle, or the one study."""
    return bundles()[name].studies if name in bundles() else (name,)


def spec_names() -> tuple[str, ...]:
    """Ids of the studies that come with this package and with others."""
    return tuple(sorted(STUDIES))


def load_spec(name: str) -> StudySpec:
    """A study by id, or from a YAML file by its path.

    Raises:
        ConfigError: the id is unknown (the nearest is named), or there is a mistake in the file.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            return parse_spec(Path(name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"{name}: cannot be read: {reason}") from None
    if name not in STUDIES:
        raise ConfigError(unknown("study", name, [*STUDIES, *bundles()]))
    spec = parse_spec(STUDIES[name].read_text(encoding="utf-8"), f"{name}.yaml")
    if spec.id != name:
        raise ConfigError(f"{name}.yaml: id: is '{spec.id}', the file's name says '{name}'")
    return spec


def _extended(raw: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` laid on the study it extends."""
    name = raw["extend"]
    if name not in STUDIES:
        raise ConfigError(f"extend: {unknown('study', name, spec_names())}")
    below = load_spec(name).model_dump(mode="json", exclude_unset=True)
    out = {**below, **raw}
    for field in ("base", "profiles"):
        if field in below and field in raw:
            out[field] = merge(below[field], raw[field])
    return out


def parse_spec(text: str, source: str) -> StudySpec:
    """A study from YAML text; raises :class:`ConfigError` naming ``source`` and the field."""
    raw = parse_yaml(text, source)
    try:
        if isinstance(raw, Mapping) and raw.get("extend"):
            raw = _extended(raw)
        spec = StudySpec.parse(raw)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    if not spec.rows:
        raise ConfigError(f"{source}: rows: a study needs at least one row")
    ids = [row.id for row in spec.rows]
    plain = [row.id for row in spec.rows if not row.axes]  # those with axes get their values appended
    for index, row_id in enumerate(ids):
        if plain.count(row_id) > 1 and row_id in ids[:index]:
            raise ConfigError(f"{source}: rows.{index}.id: '{row_id}' is taken by another row")
    if spec.baseline not in ids:
        raise ConfigError(f"{source}: baseline: {unknown('row', spec.baseline, ids)}")
    try:
        check_profiles(spec.profiles, spec.profile)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return spec


def check_profiles(named: Iterable[str], default: str) -> None:
    """Raise :class:`ConfigError`, with the nearest name, for a profile there is none of."""
    for name in named:
        if name not in profiles():
            raise ConfigError(f"profiles: {unknown('profile', name, profiles())}")
    if default not in profiles():
        raise ConfigError(f"profile: {unknown('profile', default, profiles())}")
