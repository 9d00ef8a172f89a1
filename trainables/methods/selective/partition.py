"""Task groups: disjoint sets of task indices that cover all tasks."""

from __future__ import annotations

from collections.abc import Iterable

Groups = tuple[tuple[int, ...], ...]
"""Task indices, group by group."""


def tidy(groups: Iterable[Iterable[int]]) -> Groups:
    """The same groups with members ascending, the groups themselves by their lowest member."""
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def singletons(count: int) -> Groups:
    """Each of ``count`` tasks in a group of its own."""
    return tuple((index,) for index in range(count))


def together(count: int) -> Groups:
    """All ``count`` tasks in one group."""
    return (tuple(range(count)),)
